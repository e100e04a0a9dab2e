"""MLflow hears every report."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.tuning.tracker import check_tracker, tracker_callback


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


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker(SearchConfig(name="x"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"track=mlflow: that package is not installed: pip"):
        check_tracker(SearchConfig(name="x", track="mlflow"))
