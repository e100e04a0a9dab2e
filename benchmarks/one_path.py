"""One path, stock or fast, in a process of its own: `python benchmarks/one_path.py SPEC`.

SPEC is JSON (`Spec`). The process loads its model, says `ready`, and then takes one training step
for each line that it reads, answering with the seconds. After the last it answers with the bytes
that its steps took at most beyond what was there after the first one, and what the last one's time
went to. So two such processes can be led step by step in turn, and neither sees the other's memory.
"""

from __future__ import annotations

import ctypes
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from stock import stock_model, stock_trainer
from torch.profiler import profile
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from detox_tune.cli import quiet_environment
from detox_tune.config import TrialConfig
from detox_tune.model.base import load_model
from detox_tune.model.lora import TARGETS, add_lora
from detox_tune.model.vocabulary import Vocabulary, cut_vocabulary
from detox_tune.training.collator import masked_rows
from detox_tune.training.trainer import build_trainer


class Spec(BaseModel):
    """What a process trains."""

    path: str
    """`stock` or `fast`."""
    prepared: bool = False
    """Whether the stock path prepares the base as PEFT's guide says."""
    checkpoint: str
    quantized: bool = True
    device: str = "cpu"
    pairs: int
    """Pairs of a batch."""
    width: int = 32
    """Tokens of a source, and of a reference."""
    mask: str
    """Mask strategy: `none`, or `toxic_only`, with a toxic position in seven."""
    kept: int
    """Tokens of the cut vocabulary."""
    steps: int


class Memory:
    """Peak of this process's memory since it was made; on a GPU, of its tensors there."""

    def __init__(self, device: str) -> None:
        gc.collect()
        self._cuda = device.startswith("cuda")
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self._before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak

    def peak(self) -> int:
        """Bytes beyond what was there at first."""
        top = torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")
        return top - self._before


class Turn(TrainerCallback):
    """Waits for a line before each step, and answers with the step's seconds.

    The first step pages the weights in and the last one is profiled: neither's time should count.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.started = 0.0
        self.memory: Memory | None = None
        self.profile = profile()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer before the forward pass."""
        sys.stdin.readline()
        if state.global_step == 1:
            self.memory = Memory(self.spec.device)
        if state.global_step == self.spec.steps - 1:
            assert self.memory is not None
            self.peak_bytes = self.memory.peak()
            self.profile.start()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer when the weights have moved."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        answer({"seconds": time.perf_counter() - self.started})
        if state.global_step == self.spec.steps:
            self.profile.stop()
            answer({"peak_bytes": self.peak_bytes, "profile": self._shares()})

    def _shares(self) -> dict[str, float]:
        """Share of the last step's time by operation, the largest first."""
        on_gpu = self.spec.device.startswith("cuda")
        name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        times = {event.key: getattr(event, name) for event in self.profile.key_averages()}
        total = sum(times.values())
        return {key: t / total for key, t in sorted(times.items(), key=lambda item: -item[1])[:8]}


def main() -> None:
    """Load, then train at the word of whoever started this."""
    quiet_environment()
    spec = Spec.model_validate_json(sys.argv[1])
    vocabulary = Vocabulary(_kept_ids(spec))
    rows = random_rows(spec, vocabulary.kept)
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(spec, folder)
        if spec.path == "stock":
            model = stock_model(
                spec.checkpoint,
                TARGETS["first"],
                quantized=spec.quantized,
                device=spec.device,
                prepared=spec.prepared,
            )
            trainer: Any = stock_trainer(model, arguments, rows, Turn(spec))
        else:
            trainer = _fast_trainer(spec, arguments, vocabulary, rows)
        trainer.remove_callback(PrinterCallback)  # it would print among our answers
        answer("ready")
        trainer.train()


def _fast_trainer(
    spec: Spec, arguments: TrainingArguments, vocabulary: Vocabulary, rows: Sequence[dict[str, Any]]
) -> Any:
    base = load_model(
        spec.checkpoint,
        quantization="nf4" if spec.quantized else "none",
        device=spec.device,
    )
    if len(vocabulary.kept) < base.config.vocab_size:
        cut_vocabulary(base, vocabulary)
        rows = [
            row | {name: vocabulary.cut(row[name]) for name in ("input_ids", "labels")}
            for row in rows
        ]
    name = "original" if spec.mask == "none" else "toxic_mask_v1"
    trainer = build_trainer(
        name,
        add_lora(base, TrialConfig(lora="first"), seed=0),
        arguments,
        {"train": rows},
        callbacks=[Turn(spec)],
        mask_strategy=spec.mask,
    )
    return trainer


def random_rows(spec: Spec, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Pairs of random tokens; real text would change nothing of what is measured."""
    draw = random.Random(0)
    content = [i for i in ids if i > 2]
    rows = []
    for _ in range(spec.pairs):
        sides = [[*draw.choices(content, k=spec.width - 1), 1] for _ in range(2)]
        toxic = [place % 7 == 3 for place in range(spec.width)]
        rows.append(
            {
                "input_ids": sides[0],
                "labels": sides[1],
                "label_toxic": [False] * spec.width,
                "toxic_positions": toxic,
            }
        )
    kept, _ = masked_rows("train", rows, spec.mask, None)
    return kept


def _kept_ids(spec: Spec) -> tuple[int, ...]:
    config = json.loads((Path(spec.checkpoint) / "config.json").read_text(encoding="utf-8"))
    return tuple(range(min(spec.kept, config["vocab_size"])))


def _arguments(spec: Spec, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=spec.steps,
        per_device_train_batch_size=spec.pairs,
        learning_rate=1e-3,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=spec.device == "cpu",
        seed=0,
    )


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def answer(content: Any) -> None:
    """A line of JSON for whoever reads this process's output."""
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
