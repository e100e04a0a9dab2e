"""What only a GPU can show: the fast path there gives the plain path's numbers."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments

from detox_tune.config import TrialConfig
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.model.base import Quantization, load_base
from detox_tune.model.lora import adapted
from detox_tune.training.trainer import build_trainer

pytestmark = pytest.mark.gpu

IDS = range(3, 300)


@pytest.fixture
def device() -> str:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return "cuda"


def rows(count: int) -> list[dict[str, Any]]:
    """Pairs of uneven lengths."""
    draw = random.Random(0)
    pairs = []
    for number in range(count):
        size = draw.randint(5, 30) + 30 * (number % 8 == 0)
        pairs.append(
            {
                "input_ids": [*draw.choices(IDS, k=size), 1],
                "labels": [*draw.choices(IDS, k=size - 1), 1],
                "label_toxic": [False] * size,
                "toxic_positions": [place % 5 == 2 for place in range(size)],
            }
        )
    return pairs


def loaded(folder: Path, quantization: Quantization, device: str) -> Any:
    base, _ = load_base(str(folder), quantization=quantization, device=device)
    return base


def trained(base: Any, folder: Path, *, fast: bool, dropout: float, steps: int) -> dict[str, Any]:
    """Logged losses and the adapter's weights after some steps."""
    args = TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        per_device_train_batch_size=8,
        max_steps=steps,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=base.device.type == "cpu",
    )
    with adapted(base, TrialConfig(lora="all"), seed=0) as model:
        for name, module in model.named_modules():
            if ".lora_dropout." in name:
                module.p = dropout
        trainer = build_trainer(
            "toxic_mask_v1", model, args, {"train": rows(32)}, mask_strategy="toxic_only", fast=fast
        )
        trainer.train()
        weights: dict[str, Tensor] = {
            name: w.detach().float().cpu()
            for name, w in model.named_parameters()
            if w.requires_grad
        }
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "weights": weights}


@pytest.mark.parametrize(("quantization", "close"), [("none", 1e-3), ("nf4", 5e-2)])
def test_steps_are_the_plain_path_s(
    tiny_base: Path, tmp_path: Path, device: str, quantization: Quantization, close: float
) -> None:
    runs = [
        trained(
            loaded(tiny_base, quantization, device),
            tmp_path,
            fast=fast,
            dropout=0.0,
            steps=8,
        )
        for fast in (True, False)
    ]
    assert runs[0]["losses"] == pytest.approx(runs[1]["losses"], rel=close)
    for name, weight in runs[1]["weights"].items():
        error = (runs[0]["weights"][name] - weight).norm() / weight.norm()
        assert error < close, name


def test_with_dropout_an_nf4_base_learns_its_pairs(
    tiny_base: Path, tmp_path: Path, device: str
) -> None:
    base = loaded(tiny_base, "nf4", device)
    losses = trained(base, tmp_path, fast=True, dropout=0.05, steps=60)["losses"]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_drafted_outputs_are_greedy_s(tiny_base: Path, device: str) -> None:
    base = loaded(tiny_base, "none", device)
    sources = [row["input_ids"] for row in rows(64)]
    with adapted(base, TrialConfig(lora="all"), seed=0) as model:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        found = draft_decode(model, sources, max_new_tokens=40)
        assert found == greedy_decode(model, sources, max_new_tokens=40)
        assert len({tuple(ids) for ids in found}) > 8
