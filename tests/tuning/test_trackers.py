"""Trackers hear every report, offline."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.tuning.trackers import check_tracker, tracker_callback
from tests.tuning.test_resume import TOYS, known


def test_every_report_is_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = SearchConfig(name="x", track="mlflow")
    (callback,) = tracker_callback(config, tmp_path)
    trial = Trial("toy", stub=True, config={"gamma": 0.5}, trial_name_creator=lambda _: "trial_1")
    told: dict[str, Any] = {"iteration": 1, "trials": [trial], "trial": trial}
    callback.setup()
    callback.on_trial_start(**told)
    for number, j in enumerate((0.25, 0.5), start=1):
        result = {"training_iteration": number, "step": 10 * number, "j": j, "copy_rate": 0.75}
        callback.on_trial_result(**told, result=result)
    callback.on_trial_complete(**told)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("x").experiment_id])
    assert (run.data.tags["trial_name"], run.data.params["gamma"]) == ("trial_1", "0.5")
    assert [one.value for one in client.get_metric_history(run.info.run_id, "j")] == [0.25, 0.5]
    assert run.data.metrics["step"] == 20
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_every_trial_is_a_run_of_wandb(tmp_path: Path) -> None:
    """Its callback sends reports from an actor, so this takes a real search."""
    pytest.importorskip("wandb")
    driver = subprocess.run(
        [sys.executable, TOYS, tmp_path, "2", "2"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TOYS_TRACK": "wandb", "WANDB_MODE": "offline"},
    )
    assert driver.returncode == 0, driver.stderr
    files = tmp_path.glob("ray/session_1/*/wandb/offline-run-*/*.wandb")
    contents = {file.parents[2].name: file.read_bytes() for file in files}
    assert contents.keys() == {trial.name for trial in known(tmp_path)}
    for content in contents.values():
        assert b"learning_rate" in content
        assert b"copy_rate" in content


def test_a_tracker_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker(None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"track=mlflow: that package is not installed: pip"):
        check_tracker("mlflow")
    monkeypatch.undo()
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UserError, match="track=wandb: neither WANDB_API_KEY nor WANDB_MODE is set"):
        check_tracker("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_tracker("wandb")
