"""The winner among the best trials: scored again on the whole validation split.

Of each trial two adapters are scored: that of its best report, and the mean of those of its three
best. Averaged weights of one training often do better than any of them (Wortsman et al., "Model
soups", 2022); on ParaDetox they gain about .01 of `j` (results/LOG.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from ray.tune import Checkpoint
from rich.console import Console
from safetensors.torch import load_file, save

from detox_tune.config import SearchConfig
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.adapter_files import CONFIG, WEIGHTS
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import copy_outputs
from detox_tune.long_work import progress_of
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.results import Candidate, feasible_j
from detox_tune.tuning.task import Task

FINALISTS = 3
"""Trials that are scored again at least. Their scores on the sample are the best of many, so too
good: where none of these may win on the whole split, the next ones that might by their reports are
scored, too."""


class Finalist(NamedTuple):
    """An adapter of a candidate, and its scores on the whole validation split."""

    candidate: Candidate
    averaged: int
    """It is the mean of so many of the candidate's checkpoints."""
    scores: dict[str, float]
    feasible_j: float
    """Of these scores: above -1 where it may win."""

    def record(self) -> dict[str, Any]:
        """What search.json says of it."""
        names = ("j", "copy_rate")
        return {
            "trial": self.candidate.trial,
            "step": self.candidate.report["step"],
            "averaged": self.averaged,
            "sample": {name: self.candidate.report[name] for name in names},
            "whole": {name: self.scores[name] for name in names},
        }


def score_finalists(
    candidates: Sequence[Candidate],
    config: SearchConfig,
    task: Task,
    validation: Sequence[Pair],
    console: Console,
) -> list[Finalist]:
    """Adapters of candidates with their scores on the validation split, the best first.

    Args:
        candidates: the best first; FINALISTS of them are scored, and more until one may win.
        config: of the search.
        task: what its trials shared.
        validation: the whole split.
        console: shows how far it is.
    """
    if not candidates:
        return []
    device = "cuda" if config.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    copy_j = task.mean_scores(copy_outputs(validation), validation, "")["j"]
    base, tokenizer = load_cut_base(task.base, config.quantization, device, task.vocabulary)
    finalists: list[Finalist] = []
    for number, candidate in enumerate(candidates):
        if number >= FINALISTS and any(one.feasible_j > -1 for one in finalists):
            break
        prefix = candidate.settings.task_prefix
        for averaged in sorted({1, len(candidate.checkpoints)}):
            with TemporaryDirectory() as folder:
                write_adapter(candidate.checkpoints[:averaged], Path(folder))
                adapted = PeftModel.from_pretrained(base, folder)
            with progress_of(candidate.trial, "pairs", len(validation), console) as progress:
                outputs = rewrite(
                    adapted,
                    tokenizer,
                    [pair.source for pair in validation],
                    task_prefix=prefix,
                    max_tokens=config.max_tokens,
                    beams=config.beams,
                    progress=progress,
                )
            adapted.unload()
            scores = task.mean_scores(outputs, validation, prefix)
            rank = feasible_j(scores, config.max_copy_rate, copy_j)
            finalists.append(Finalist(candidate, averaged, scores, rank))
    return sorted(finalists, key=lambda one: -one.feasible_j)


def write_adapter(checkpoints: Sequence[Checkpoint], folder: Path) -> None:
    """Write the mean of the adapters in checkpoints of one trial, in PEFT's format.

    Args:
        checkpoints: at least one.
        folder: exists; gets adapter_model.safetensors and adapter_config.json.
    """
    adapters: list[dict[str, torch.Tensor]] = []
    for checkpoint in checkpoints:
        with checkpoint.as_directory() as source:
            adapters.append(load_file(Path(source) / WEIGHTS))
            shutil.copyfile(Path(source) / CONFIG, folder / CONFIG)
    mean = {name: torch.stack([one[name] for one in adapters]).mean(0) for name in adapters[0]}
    (folder / WEIGHTS).write_bytes(save(mean, metadata={"format": "pt"}))
