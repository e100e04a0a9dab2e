"""What a trial will cost on this machine."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.long_work import clock
from detox_tune.machine import cores, memory
from detox_tune.tuning.checks.result import CheckResult, Status
from detox_tune.tuning.cluster import room

_MEMORY_WARN = 0.9  # of the machine's


def longest_rows(rows: Sequence[dict[str, Any]], trial: TrialConfig) -> list[dict[str, Any]]:
    """The rows of the heaviest batch that a trial can meet."""
    size = trial.batch_size * trial.gradient_accumulation
    return sorted(rows, key=lambda row: len(row["input_ids"]) + len(row["labels"]))[-size:]


def estimate_check(
    config: SearchConfig, *, step_seconds: float, report_seconds: float, peak_bytes: int
) -> CheckResult:
    """How long a trial and the search take here, and whether the trials' memory fits.

    Args:
        config: steps, reports, trials and resources of a trial.
        step_seconds: of one optimiser step.
        report_seconds: of decoding and scoring the validation sample once.
        peak_bytes: memory of one trial, see `peak_memory`.
    """
    here = {"CPU": cores(), "GPU": torch.cuda.device_count()}
    fit = room([here], config.cpus_per_trial, config.gpus_per_trial)
    at_once = max(1, min(config.trials, fit))
    reports = config.steps // config.eval_every
    trial_seconds = step_seconds * config.steps + report_seconds * reports
    rounds = -(-config.trials // at_once)
    total = machine_memory()
    sharing = at_once
    if torch.cuda.is_initialized() and config.gpus_per_trial:
        sharing = max(1, int(1 / config.gpus_per_trial))
    seen = (
        f"a trial of {config.steps:,} steps and {reports} reports takes about "
        f"{clock(trial_seconds)} and {_gib(peak_bytes)}; {config.trials} trials, {at_once} at "
        f"once, at most {clock(trial_seconds * rounds)}; {_gib(total)} of memory here"
    )
    if sharing * peak_bytes > _MEMORY_WARN * total:
        return CheckResult(
            "estimate",
            Status.WARN,
            f"{seen}: {sharing} trials at once need {_gib(sharing * peak_bytes)}",
            "raise cpus_per_trial or gpus_per_trial, or lower batch_size or max_tokens",
        )
    return CheckResult("estimate", Status.PASS, seen)


def peak_memory() -> int:
    """Bytes that a trial takes: on a GPU its tensors, else the most that this process ever held."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine_memory() -> int:
    """Bytes of the GPU that trials share, else of what this process may use."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
