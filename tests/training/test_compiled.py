"""Compiled blocks: the same steps, few compilations, and none where they fail."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import lookup_backend
from transformers import MT5Config, MT5ForConditionalGeneration, TrainingArguments

from detox_tune.model.lora import adapted
from detox_tune.training import trainer as trainer_module
from detox_tune.training.compiled import CompiledBlocks, backend_for
from detox_tune.training.trainer import build_trainer

GRAPHS = 4  # of a bucket: each stack's first block, and its others
Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture
def base() -> Any:
    sizes: Any = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2}
    torch.manual_seed(0)
    config = MT5Config(**sizes, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0)
    return MT5ForConditionalGeneration(config).requires_grad_(False)


class Counting:
    """A backend that counts what it compiles, and runs it as eager mode does."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, examples: Any) -> Any:
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, examples)


def rows(lengths: list[int]) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [
        {
            "input_ids": draw.choices(range(2, 40), k=length),
            "labels": draw.choices(range(2, 40), k=length - 1),
            "label_toxic": [False] * (length - 1),
            "toxic_positions": [place % 3 == 0 for place in range(length - 1)],
        }
        for length in lengths
    ]


def gradients(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    base: Any,
    backend: Any,
    lengths: list[int],
    **arguments: Any,
) -> Gradients:
    """Weights after training on rows of such lengths, two a batch, in order."""
    monkeypatch.setattr(trainer_module, "backend_for", lambda device: backend)
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        learning_rate=0.1,
        **arguments,
    )
    with adapted(base, "first", seed=0) as model:
        for name, module in model.named_modules():
            if name.endswith("lora_dropout.default"):
                module.p = 0.0
        data = {"train": rows(lengths)}
        build_trainer("toxic_mask_v1", model, args, data, mask_strategy="toxic_only").train()
        named = model.named_parameters()
        return {name: w.detach().clone() for name, w in named if w.requires_grad}


def assert_same(found: Gradients, expected: Gradients) -> None:
    assert found.keys() == expected.keys()
    assert any(weight.any() for name, weight in expected.items() if "lora_B" in name)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_a_cpu_compiles_nothing_and_a_gpu_does() -> None:
    assert backend_for(torch.device("cpu")) is None
    assert backend_for(torch.device("cuda:0")) == "inductor"


def test_steps_are_the_same_and_only_they_are_compiled_once_for_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Any
) -> None:
    lengths = [5, 9, 33, 12, 30, 4]  # two batches of up to 32 tokens, one of up to 64
    expected = gradients(tmp_path, monkeypatch, base, None, lengths)
    counting = Counting()
    gradients(tmp_path, monkeypatch, base, counting, [7])  # an epoch's rest: no whole batch
    gradients(tmp_path, monkeypatch, base, counting, lengths, max_steps=2)  # too short a training
    assert counting.graphs == 0
    for _ in range(2):
        assert_same(gradients(tmp_path, monkeypatch, base, counting, lengths), expected)
        assert counting.graphs == 2 * GRAPHS

    ids = torch.arange(2, 12)[None]  # decoding has many shapes
    base(input_ids=ids, decoder_input_ids=ids)
    assert counting.graphs == 2 * GRAPHS


def no_forward(graph: Any, examples: Any) -> Any:
    raise RuntimeError("no compiler here")


def no_backward(graph: Any, examples: Any) -> Any:
    def compiled(*arguments: Any) -> Any:
        raise RuntimeError("no memory here")

    whole = aot_autograd(
        fw_compiler=lambda graph, _: graph.forward, bw_compiler=lambda *_: compiled
    )
    return whole(graph, examples)


@pytest.mark.parametrize(
    ("backend", "reason"), [(no_forward, "no compiler here"), (no_backward, "no memory here")]
)
def test_where_compiling_fails_training_goes_on_without(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    base: Any,
    backend: Any,
    reason: str,
) -> None:
    lengths = [5, 9, 7, 6, 8, 8]
    accumulate = {"gradient_accumulation_steps": 2}
    expected = gradients(tmp_path, monkeypatch, base, None, lengths, **accumulate)
    found = gradients(tmp_path, monkeypatch, base, backend, lengths, **accumulate)
    assert_same(found, expected)
    [record] = [r for r in caplog.records if r.name == "detox_tune.training.compiled"]
    assert "training goes on uncompiled" in record.message
    assert reason in record.message


def test_gradients_that_were_there_before_a_failure_are_kept(base: Any) -> None:
    with adapted(base, "first", seed=0) as model:
        weights = [w for w in model.parameters() if w.requires_grad]
        weights[0].grad = torch.full_like(weights[0], 2.0)
        blocks = CompiledBlocks(model, "aot_eager", rows=2, steps=-1)
        taken = []

        def take() -> Tensor:
            taken.append(True)
            for weight in weights:
                weight.grad = torch.ones_like(weight) + (0 if weight.grad is None else weight.grad)
            if len(taken) == 1:
                raise RuntimeError("halfway")
            return torch.tensor(1.5)

        ids = torch.ones(2, 3, dtype=torch.long)
        assert blocks.step(take, {"input_ids": ids, "labels": ids}) == 1.5
        assert len(taken) == 2
        assert torch.equal(weights[0].grad, torch.full_like(weights[0], 3.0))
        assert all(torch.equal(w.grad, torch.ones_like(w)) for w in weights[1:])  # type: ignore[arg-type]
