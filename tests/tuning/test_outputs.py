"""Outputs travel with checkpoints, and those of the best report are collected."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.pairs import Pair
from detox_tune.model.lora import adapted
from detox_tune.tuning import outputs as outputs_module
from detox_tune.tuning import trial as trial_module
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.checkpoints import find_checkpoint, seal
from detox_tune.tuning.outputs import collect_outputs, keep_outputs, read_outputs
from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.storage import Storage
from detox_tune.tuning.task import Task
from detox_tune.tuning.trial import ReportToTune, training_arguments, trial_trainer

PAIRS = [Pair("you damn fool", ("you fool",), "en"), Pair("ein Satz\n", ("ein Satz",), "de")]


def checkpoint(folder: Path, step: int, feasible_j: float, text: str) -> dict[str, Any]:
    """A sealed checkpoint of trial_001 with two outputs; returns its report."""
    place = folder / "ray" / "session_1" / "trial_001" / f"checkpoint_{step:06d}"
    place.mkdir(parents=True)
    scored = pd.DataFrame({"label": ["rewritten", "copied"], "j": [0.5, 0.0]})
    keep_outputs(place, step, [f"{text}\u2028{step}", "ein Satz"], PAIRS, scored)
    report = {"step": step, "feasible_j": feasible_j}
    seal(place, report)
    return report


def storage(folder: Path) -> Storage:
    return Storage(fs.LocalFileSystem(), str(folder / "ray"))


def test_outputs_of_the_best_report_are_collected(tmp_path: Path) -> None:
    reports = [checkpoint(tmp_path, 10, 0.2, "first"), checkpoint(tmp_path, 20, 0.4, "best")]
    trial = TrialRecord("trial_001", {}, reports)
    collect_outputs(tmp_path, [trial, TrialRecord("trial_002", {}, [])], storage(tmp_path))
    rows = read_outputs(tmp_path, "trial_001")
    assert [row["output"] for row in rows] == ["best\u202820", "ein Satz"]
    assert rows[1] == {
        "step": 20,
        "language": "de",
        "source": "ein Satz\n",
        "references": ["ein Satz"],
        "output": "ein Satz",
        "label": "copied",
        "j": 0.0,
    }
    assert read_outputs(tmp_path, "trial_002") == []


def test_outputs_follow_a_better_report_and_survive_its_checkpoint(tmp_path: Path) -> None:
    reports = [checkpoint(tmp_path, 10, 0.2, "first")]
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path))
    reports.append(checkpoint(tmp_path, 20, 0.4, "second"))
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path))
    assert read_outputs(tmp_path, "trial_001")[0]["output"] == "second\u202820"
    file = tmp_path / "outputs" / "trial_001.jsonl"
    written = file.stat().st_mtime_ns
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path / "lost"))
    assert file.stat().st_mtime_ns == written


def test_a_damaged_file_of_outputs_is_written_again(tmp_path: Path) -> None:
    trial = TrialRecord("trial_001", {}, [checkpoint(tmp_path, 10, 0.2, "whole")])
    file = tmp_path / "outputs" / "trial_001.jsonl"
    file.parent.mkdir()
    file.write_text('{"step": 1', encoding="utf-8")
    assert read_outputs(tmp_path, "trial_001") == []
    collect_outputs(tmp_path, [trial], storage(tmp_path))
    assert len(read_outputs(tmp_path, "trial_001")) == 2


def test_checkpoints_without_outputs_are_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "ray" / "session_1" / "trial_001" / "checkpoint_000010"
    place.mkdir(parents=True)
    report = {"step": 10, "feasible_j": 0.1}
    seal(place, report)
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, [report])], storage(tmp_path))
    assert not (tmp_path / outputs_module.OUTPUTS).exists()


def test_a_trial_writes_its_outputs_under_the_seal(
    config: SearchConfig, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trial_module, "report_patiently", lambda report, _: reports.append(report))
    folder = tmp_path / "ray" / "session_1" / "trial_001"
    trial = TrialConfig()
    base, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    with adapted(base, trial, seed=0) as model:
        arguments = training_arguments(trial, config, folder, "cpu")
        trainer = trial_trainer(trial, model, arguments, config, task, task.rows(trial))
        told = ReportToTune(tokenizer, trial, config, task, trainer.mask_statistics)
        trainer.add_callback(told)
        trainer.train()
    record = TrialRecord("trial_001", trial.model_dump(), reports)
    collect_outputs(tmp_path, [record], storage(tmp_path))
    rows = read_outputs(tmp_path, "trial_001")
    assert [row["source"] for row in rows] == [pair.source for pair in task.validation]
    assert sum(row["j"] for row in rows) / len(rows) == pytest.approx(reports[0]["j"], abs=1e-4)
    copied = [row["label"] == "copied" for row in rows]
    assert sum(copied) / len(rows) == pytest.approx(reports[0]["copy_rate"])
    (folder / "checkpoint-3" / "outputs.jsonl").write_text("damaged", encoding="utf-8")
    assert find_checkpoint(storage(tmp_path), "trial_001", lambda report: report["step"]) is None
