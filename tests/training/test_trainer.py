"""The trainer on a tiny random mT5: losses, steps, checkpoints."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from detox_tune.config import MASK_STRATEGIES, MaskStrategy
from detox_tune.training.collator import DetoxCollator
from detox_tune.training.detox_trainer import DetoxTrainer, NonFiniteLossError
from detox_tune.training.masking import trained_positions
from detox_tune.training.trainer import build_trainer
from tests.tiny_models import FORBIDDEN, Row, random_rows, tiny_base, tiny_lora


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "train_sampling_strategy": "sequential",
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
    }
    return TrainingArguments(**settings | changes)


def trainer_of(
    folder: Path, model: Any, rows: Sequence[Row], settings: Mapping[str, Any], **changes: Any
) -> DetoxTrainer:
    data = {"train": rows, "validation": rows}
    return build_trainer("toxic_mask_v1", model, arguments(folder, **changes), data, **settings)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def slow_terms(
    model: Any,
    rows: Sequence[Row],
    strategy: MaskStrategy,
    window: int | None,
    masked_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and penalty from the model's probabilities, one pair at a time."""
    cross_entropy, penalty = torch.zeros(2, dtype=torch.float64)
    weights, penalised_count = 0.0, 0
    for row in rows:
        labels = torch.tensor([row["labels"]])
        logits = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).logits
        trained = trained_positions(
            strategy,
            toxic=row["toxic_positions"],
            label_toxic=row["label_toxic"],
            context_window=window,
        )
        for position, label in enumerate(row["labels"]):
            p = logits[0, position].double().softmax(-1)
            weight = 1.0 if trained[position] else masked_weight
            cross_entropy = cross_entropy - weight * p[label].log()
            weights += weight
            if label not in FORBIDDEN and not row["label_toxic"][position]:
                penalty = penalty - (1 - p[list(FORBIDDEN)].sum()).log()
                penalised_count += 1
    return cross_entropy / weights, penalty / penalised_count


MASKS: list[tuple[MaskStrategy, int | None]] = [
    (name, 2 if name == "toxic_context" else None) for name in MASK_STRATEGIES
]


@pytest.mark.parametrize(
    ("strategy", "window", "gamma", "masked_weight"),
    [(*mask, gamma, None) for mask, gamma in zip(MASKS, (0.15, 2.0, 0.0, 0.5), strict=True)]
    + [("none", None, 0.0, None), ("toxic_only", None, 0.5, 0.25), ("toxic_context", 2, 0.0, 1.0)],
)
def test_losses_and_gradients_equal_a_slow_loop(
    tmp_path: Path,
    strategy: MaskStrategy,
    window: int | None,
    gamma: float,
    masked_weight: float | None,
) -> None:
    """The study's two tries are the first case, with its gamma, and the one without any."""
    rows = random_rows(7)
    model = tiny_base()
    settings = {
        "mask_strategy": strategy,
        "context_window": window,
        "masked_weight": masked_weight,
        "gamma": gamma,
        "forbidden_token_ids": FORBIDDEN if gamma else (),
    }
    trainer = trainer_of(
        tmp_path, model, rows, settings, max_steps=1, gradient_accumulation_steps=2
    )
    weight = masked_weight or 0.0
    cross_entropy, penalty = slow_terms(model.eval(), rows, strategy, window, weight)
    loss = cross_entropy + gamma * penalty
    loss.backward()
    before = weights(model)
    gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    expected = {"loss": loss.item(), "cross_entropy": cross_entropy.item()}
    expected |= {"toxic_penalty": penalty.item() if gamma else 0.0}

    # batches of 3, 3 and 1 pairs: a mean of the batches' means would differ
    evaluated = trainer.evaluate()
    assert {name for name in evaluated if "penalty" in name or "entropy" in name} == {
        f"eval_{name}" for name in expected if name != "loss"
    }
    # one step over batches of 4 and 3 pairs: its loss is that of the model before the step
    trainer.train()
    [logged] = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name, value in expected.items():
        assert evaluated[f"eval_{name}"] == pytest.approx(value, rel=1e-5)
        assert logged[name] == pytest.approx(value, rel=1e-5)
    after = weights(model)
    assert gradients.keys() == before.keys()
    for name, gradient in gradients.items():  # gradient descent at a rate of 0.5
        close = 1e-5 * before[name].abs().max().item()
        torch.testing.assert_close(before[name] - 0.5 * gradient, after[name], rtol=0, atol=close)


def test_logged_terms_are_means_over_the_steps_since_the_last_log(tmp_path: Path) -> None:
    settings = {"gamma": 0.5, "forbidden_token_ids": FORBIDDEN, "mask_strategy": "toxic_only"}

    def logs(logging_steps: int) -> list[dict[str, float]]:
        trainer = trainer_of(
            tmp_path, tiny_base(), random_rows(16), settings, max_steps=4,
            logging_steps=logging_steps, gradient_accumulation_steps=2,
        )  # fmt: skip
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    each, pairs = logs(1), logs(2)
    assert (len(each), len(pairs)) == (4, 2)
    for name in ("loss", "cross_entropy", "toxic_penalty"):
        for number, entry in enumerate(pairs):
            both = each[2 * number : 2 * number + 2]
            assert entry[name] == pytest.approx(sum(one[name] for one in both) / 2, rel=1e-5)
    for entry in each + pairs:
        total = entry["cross_entropy"] + 0.5 * entry["toxic_penalty"]
        assert entry["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("per_batch", "accumulated", "remove_unused_columns"), [(4, 2, True), (1, 8, False)]
)
def test_accumulation_gives_the_step_of_one_large_batch(
    tmp_path: Path, per_batch: int, accumulated: int, remove_unused_columns: bool
) -> None:
    settings = {"gamma": 0.5, "forbidden_token_ids": FORBIDDEN, "mask_strategy": "toxic_only"}
    rows = random_rows(11)  # the second step is an incomplete one, of 3 pairs

    def trained(batch: int, steps: int) -> dict[str, Tensor]:
        model = tiny_base()
        trainer_of(
            tmp_path, model, rows, settings, num_train_epochs=1,
            per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
            remove_unused_columns=remove_unused_columns, max_grad_norm=1.0,
        ).train()  # fmt: skip
        return weights(model)

    before, whole, parts = weights(tiny_base()), trained(8, 1), trained(per_batch, accumulated)
    moved = max((whole[name] - before[name]).abs().max().item() for name in before)
    assert moved > 0.01
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-6)


def test_the_mask_does_not_change_what_the_decoder_reads(tmp_path: Path) -> None:
    rows = random_rows(3)
    seen: dict[str, Tensor] = {}
    for strategy, window in MASKS:
        model = tiny_base()
        model.decoder.register_forward_pre_hook(
            lambda module, args, kwargs, strategy=strategy: seen.update(
                {strategy: kwargs["input_ids"]}
            ),
            with_kwargs=True,
        )
        settings = {"mask_strategy": strategy, "context_window": window}
        trainer_of(tmp_path, model, rows, settings, max_steps=1).train()
    width = max(len(row["labels"]) for row in rows)
    expected = [
        ([0] + row["labels"][:-1] + [1] + [0] * width)[:width] for row in rows
    ]  # shifted right by the start token, padded with 0
    assert {strategy: ids.tolist() for strategy, ids in seen.items()} == dict.fromkeys(
        MASK_STRATEGIES, expected
    )


def test_adapters_move_and_the_base_does_not(tmp_path: Path) -> None:
    model = tiny_lora()
    before = weights(model)
    settings = {"gamma": 0.5, "forbidden_token_ids": FORBIDDEN, "mask_strategy": "toxic_only"}
    trainer_of(tmp_path, model, random_rows(8), settings, max_steps=2).train()
    after = weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert len(moved) == 2 * 2 * 3  # A and B, q and v, of three attentions


@pytest.mark.parametrize(
    ("make_model", "stop_at", "sampling"),
    [
        (tiny_lora, 3, "random"),
        (tiny_lora, 4, "random"),
        (tiny_base, 3, "random"),
        (tiny_lora, 4, "group_by_length"),
        (tiny_lora, 5, "group_by_length"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, make_model: Any, stop_at: int, sampling: str
) -> None:
    # 4 steps an epoch: step 3 lies inside the first, step 4 at its end; dropout, AdamW, a
    # schedule, shuffling and an evaluation all draw on the state that a checkpoint has to hold
    settings = {"gamma": 0.5, "forbidden_token_ids": FORBIDDEN, "mask_strategy": "toxic_only"}

    def run(folder: Path, resume: str | None) -> dict[str, Tensor]:
        model = make_model(dropout=0.2)
        trainer = trainer_of(
            folder, model, random_rows(14), settings, max_steps=6, save_strategy="steps",
            save_steps=stop_at, per_device_train_batch_size=2, gradient_accumulation_steps=2,
            train_sampling_strategy=sampling, optim="adamw_torch", learning_rate=1e-2,
            lr_scheduler_type="linear", eval_strategy="steps", eval_steps=1, max_grad_norm=1.0,
        )  # fmt: skip
        if resume is not None:
            torch.rand(5)  # a new process would not have the old one's random state
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 6
        return weights(model)

    whole = run(tmp_path / "whole", None)
    resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / f"checkpoint-{stop_at}"))
    fresh = weights(make_model(dropout=0.2))
    assert any(not torch.equal(whole[name], fresh[name]) for name in whole)
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def test_dataset_dicts_and_sampling_by_length(tmp_path: Path) -> None:
    rows = random_rows(6)
    rows.append(rows[0] | {"toxic_positions": [False] * len(rows[0]["labels"])})
    data = DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows))
    trainer = build_trainer(
        "toxic_mask_v1",
        tiny_base(),
        arguments(tmp_path, max_steps=2, train_sampling_strategy="group_by_length"),
        data,
        mask_strategy="toxic_only",
    )
    trainer.train()
    assert trainer.eval_dataset is None
    assert (trainer.mask_statistics.examples, trainer.mask_statistics.dropped) == (7, 1)
    assert trainer.mask_statistics.trained == sum(sum(row["toxic_positions"]) for row in rows)


def test_own_collator_and_callbacks_are_used(tmp_path: Path) -> None:
    widths: list[int] = []
    steps: list[int] = []

    def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
        batch = DetoxCollator(0)(rows)
        widths.append(batch["labels"].shape[1])
        return batch

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    build_trainer(
        "original",
        tiny_base(),
        arguments(tmp_path, max_steps=2),
        {"train": random_rows(8)},
        collate,
        [Count()],
    ).train()
    assert steps == [1, 2]
    assert len(widths) >= 2


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = tiny_base()
    with torch.no_grad():
        model.lm_head.weight[3] = math.inf
    settings = {"gamma": 0.25, "forbidden_token_ids": FORBIDDEN, "mask_strategy": "inverse_toxic"}
    trainer = trainer_of(tmp_path, model, random_rows(4), settings, max_steps=3)
    message = (
        r"the loss is (nan|inf) {} \(gamma 0\.25, mask_strategy inverse_toxic, "
        r"learning rate 0\.5, dtype float32\)"
    )
    with pytest.raises(NonFiniteLossError, match=message.format("at step 1")):
        trainer.train()
    with pytest.raises(NonFiniteLossError, match=message.format("in an evaluation before step 1")):
        trainer.evaluate()
