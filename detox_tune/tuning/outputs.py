"""What trials made of the validation sample, sentence by sentence.

A trial writes its outputs into each checkpoint, under its seal, so they are there when a process
dies. The driver copies those of each trial's best report into outputs/ of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from detox_tune.data.pairs import Pair
from detox_tune.files import write_text
from detox_tune.tuning.checkpoints import OUTPUTS_FILE, find_checkpoint
from detox_tune.tuning.results import TrialRecord, best_report
from detox_tune.tuning.storage import Storage

OUTPUTS = "outputs"
"""The folder of a run that holds a file per trial: trial_001.jsonl, a row per sentence."""


def keep_outputs(
    checkpoint: Path, step: int, outputs: Sequence[str], pairs: Sequence[Pair], scored: pd.DataFrame
) -> None:
    """Write the outputs of a report into its checkpoint, which is not sealed yet.

    Args:
        checkpoint: its folder.
        step: of the report.
        outputs: one text for each pair.
        pairs: the validation sample.
        scored: what `score_outputs` gave for them.
    """
    rows = [
        {
            "step": step,
            "language": pair.language,
            "source": pair.source,
            "references": pair.references,
            "output": output,
            "label": label,
            "j": round(float(j), 4),
        }
        for output, pair, label, j in zip(outputs, pairs, scored["label"], scored["j"], strict=True)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_text(checkpoint / OUTPUTS_FILE, "\n".join(lines) + "\n")


def collect_outputs(run: Path, trials: Iterable[TrialRecord], storage: Storage) -> None:
    """Bring outputs/ up to the best report of each trial, as far as checkpoints are left.

    Args:
        run: its folder.
        trials: of the search.
        storage: where their checkpoints are.
    """
    for trial in trials:
        path = run / OUTPUTS / f"{trial.name}.jsonl"
        if not trial.reports or _step(path) == best_report(trial.reports)["step"]:
            continue
        best = find_checkpoint(storage, trial.name, lambda report: float(report["feasible_j"]))
        if best is None or best.report["step"] == _step(path):
            continue
        source = f"{best.checkpoint.path}/{OUTPUTS_FILE}"
        try:
            with storage.filesystem.open_input_file(source) as file:
                write_text(path, file.read().decode("utf-8"))
        except FileNotFoundError:
            continue  # of an earlier version, or Tune just removed the checkpoint


def read_outputs(run: Path, trial: str) -> list[dict[str, Any]]:
    """The rows of a trial's file; none where there is no whole one."""
    try:
        lines = (run / OUTPUTS / f"{trial}.jsonl").read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    except (FileNotFoundError, ValueError):
        return []


def _step(path: Path) -> int | None:
    """The step of the report whose outputs a file holds; None where there is no whole one."""
    try:
        with path.open(encoding="utf-8") as file:
            return int(json.loads(file.readline())["step"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
