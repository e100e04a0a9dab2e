"""The fast trainer against the plain one: the same losses, gradients and weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from detox_tune.model.vocabulary import Vocabulary, cut_vocabulary
from detox_tune.training import chunked_loss as chunked_loss_module
from detox_tune.training.collator import DetoxCollator
from detox_tune.training.detox_trainer import DetoxTrainer, NonFiniteLossError
from detox_tune.training.trainer import build_trainer
from tests.tiny_models import FORBIDDEN, VOCABULARY, Row, random_rows, tiny_base, with_lora

KEPT = Vocabulary((0, 1, 3, 5, *FORBIDDEN, 12, 13, 17, 20, 21, 22, 28, 31, 34, 39))
Settings = Mapping[str, Any]


def trainer_of(
    folder: Path, model: Any, rows: Sequence[Row], settings: Settings, **changes: Any
) -> DetoxTrainer:
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 1,
        "train_sampling_strategy": "sequential",
        "optim": "sgd",
        "learning_rate": 0.2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
    }
    args = TrainingArguments(**arguments | changes)
    return build_trainer("toxic_mask_v1", model, args, {"train": rows}, **settings)


class Gradients(TrainerCallback):
    """Keeps the gradients of the last step."""

    def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self.found = {
            name: weight.grad.clone()
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }


def one_step(
    folder: Path, model: Any, rows: Sequence[Row], settings: Settings, **changes: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What is logged of the step, and its gradients."""
    trainer = trainer_of(folder, model, rows, settings, **changes)
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    [logged] = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = ("loss", "cross_entropy", "toxic_penalty")
    return {name: logged[name] for name in names if name in logged}, gradients.found


def trained(
    folder: Path, model: Any, settings: Settings, rows: Sequence[Row] | None = None
) -> dict[str, Tensor]:
    """The trained weights after some steps, in fp64 (but T5 norms in fp32)."""
    rows = random_rows(14) if rows is None else rows
    model.double()
    trainer_of(folder, model, rows, settings, max_steps=5, learning_rate=0.05).train()
    return {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}


def assert_like(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], close: float) -> None:
    """Each tensor's error is small beside its largest element."""
    assert found.keys() == expected.keys()
    assert len(expected) > 0
    for name, tensor in expected.items():
        largest = tensor.abs().max().item()
        assert largest > 0, name
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=close * largest, msg=name)


MASKED: list[tuple[str, float]] = [
    ("none", 0.0),
    ("none", 2.0),
    ("toxic_only", 0.15),
    ("toxic_context", 0.0),
    ("inverse_toxic", 2.0),
]
PENALISED = {"mask_strategy": "toxic_only", "gamma": 0.5, "forbidden_token_ids": FORBIDDEN}


def settings_of(strategy: str, gamma: float, forbidden: Sequence[int] = FORBIDDEN) -> Row:
    return {
        "mask_strategy": strategy,
        "context_window": 2 if strategy == "toxic_context" else None,
        "gamma": gamma,
        "forbidden_token_ids": forbidden if gamma else (),
    }


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few positions a chunk, so that a batch takes several."""
    monkeypatch.setattr(chunked_loss_module, "_CHUNK", 5)


# ------------------------------------------------------------------ the gathered head


@pytest.mark.parametrize(("strategy", "gamma"), MASKED)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_loss_and_gradients_are_those_of_all_logits(
    tmp_path: Path, dtype: torch.dtype, close: float, strategy: str, gamma: float
) -> None:
    settings, rows = settings_of(strategy, gamma), random_rows(7)
    (fast, fast_gradients), (plain, plain_gradients) = (
        one_step(tmp_path, with_lora(tiny_base()).to(dtype), rows, settings | {"fast": fast})
        for fast in (True, False)
    )
    assert fast == pytest.approx(plain, rel=close)
    assert (fast["toxic_penalty"] > 0) == (gamma > 0)
    assert_like(fast_gradients, plain_gradients, close)


@pytest.mark.parametrize("kind", ["mT5", "tied T5"])
def test_whole_runs_end_at_the_same_weights(tmp_path: Path, kind: str) -> None:
    start = {n: w.detach().clone() for n, w in with_lora(tiny_base(kind)).named_parameters()}
    fast, plain = (
        trained(tmp_path, with_lora(tiny_base(kind)), PENALISED | {"fast": fast})
        for fast in (True, False)
    )
    assert max((plain[name] - start[name]).abs().max().item() for name in plain) > 0.01
    assert_like(fast, plain, 1e-5)


def test_only_positions_that_a_loss_reads_are_projected_and_few_at_once(tmp_path: Path) -> None:
    rows, model = random_rows(8), with_lora(tiny_base())
    projected: list[int] = []
    model.get_base_model().lm_head.register_forward_hook(
        lambda module, args, logits: projected.append(logits[..., 0].numel())
    )
    settings = settings_of("toxic_only", 0.0)
    one_step(tmp_path, model, rows, settings)
    assert sum(projected) == sum(sum(row["toxic_positions"]) for row in rows)
    assert max(projected) == 5
    projected.clear()
    one_step(tmp_path, model, rows, settings | {"fast": False})
    padded = [4 * max(len(row["labels"]) for row in rows[i : i + 4]) for i in (0, 4)]
    assert projected == padded


@pytest.mark.parametrize("kind", ["mT5", "tied T5"])
def test_a_trained_head_is_projected_whole_and_gets_its_gradient(tmp_path: Path, kind: str) -> None:
    found = {}
    for fast in (True, False):
        model = with_lora(tiny_base(kind))
        head = model.get_base_model().lm_head
        head.weight.requires_grad_()
        shapes: list[tuple[int, ...]] = []
        head.register_forward_hook(lambda module, args, logits, s=shapes: s.append(logits.shape))
        found[fast] = one_step(tmp_path, model, random_rows(8), PENALISED | {"fast": fast})
        assert [len(shape) for shape in shapes] == [3, 3]
    assert found[True][0] == found[False][0]
    assert any("lm_head" in name or "shared" in name for name in found[True][1])
    assert_like(found[True][1], found[False][1], 1e-6)


def test_a_batch_of_which_no_position_is_read(tmp_path: Path) -> None:
    model = with_lora(tiny_base())
    trainer = trainer_of(tmp_path, model, random_rows(2), PENALISED)
    row = random_rows(1)[0]
    size = len(row["labels"])
    batch = DetoxCollator(0)([row | {"trained": [False] * size, "label_toxic": [True] * size}])
    loss = trainer.compute_loss(model.train(), batch)
    loss.backward()
    assert loss.item() == 0
    gradients = [w.grad for w in model.parameters() if w.requires_grad]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_a_loss_that_is_no_number_leaves_the_head_in_place(tmp_path: Path) -> None:
    model = with_lora(tiny_base())
    head = model.get_base_model().lm_head
    with torch.no_grad():
        head.weight[3] = torch.inf
    trainer = trainer_of(tmp_path, model, random_rows(4), PENALISED)
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step 1"):
        trainer.train()
    assert model.get_base_model().lm_head is head


# ------------------------------------------------------------------ the token budget


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("budget", "parts"), [(1, {1}), (50, {2, 4}), (59, {2, 3, 1, 4}), (10**6, {4})]
)
def test_a_token_budget_does_not_change_the_step(
    tmp_path: Path, budget: int, parts: set[int], fast: bool
) -> None:
    rows = random_rows(16)
    settings = PENALISED | {"fast": fast}
    passes: list[int] = []
    model = with_lora(tiny_base())
    model.get_base_model().encoder.register_forward_hook(
        lambda module, args, output: passes.append(len(output.last_hidden_state))
    )
    in_parts = trained(tmp_path, model, settings | {"token_budget": budget}, rows)
    assert sum(passes) == 5 * 8
    assert set(passes) == parts
    whole = trained(tmp_path, with_lora(tiny_base()), settings, rows)
    assert_like(in_parts, whole, 1e-5)


def test_a_token_budget_logs_the_whole_batch_s_losses(tmp_path: Path) -> None:
    found = [
        one_step(tmp_path, with_lora(tiny_base()), random_rows(8), PENALISED | {"token_budget": n})
        for n in (None, 30)
    ]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert_like(found[1][1], found[0][1], 1e-5)


# ------------------------------------------------------------------ the cut vocabulary


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("strategy", "gamma"), MASKED)
def test_a_cut_base_trains_as_the_full_one_with_the_other_logits_at_minus_infinity(
    tmp_path: Path, strategy: str, gamma: float, fast: bool
) -> None:
    rows = random_rows(8, [token for token in KEPT.kept if token > 1])
    dropped = torch.tensor(sorted(set(range(VOCABULARY)) - set(KEPT.kept)))
    full = tiny_base()
    full.lm_head.register_forward_hook(
        lambda module, args, logits: logits.index_fill(-1, dropped, -torch.inf)
    )
    settings = settings_of(strategy, gamma) | {"fast": fast}
    expected = one_step(tmp_path, with_lora(full), rows, settings)

    cut = tiny_base()
    cut_vocabulary(cut, KEPT)
    cut_rows = [
        row | {column: KEPT.cut(row[column]) for column in ("input_ids", "labels")} for row in rows
    ]
    settings = settings_of(strategy, gamma, KEPT.cut(FORBIDDEN)) | {"fast": fast}
    found = one_step(tmp_path, with_lora(cut), cut_rows, settings)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert_like(found[1], expected[1], 1e-5)
    if fast:  # the softmax has become smaller: on the full base the loss is another
        whole = one_step(tmp_path, with_lora(tiny_base()), rows, settings_of(strategy, gamma))
        assert whole[0]["cross_entropy"] > expected[0]["cross_entropy"] * 1.001
