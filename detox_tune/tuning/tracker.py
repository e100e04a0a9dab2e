"""The tracker that a search reports to."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path

from ray.tune import Callback

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError


def check_tracker(config: SearchConfig) -> None:
    """Find out, before anything is loaded, whether the tracker is installed.

    Raises:
        UserError: if not.
    """
    if config.track and importlib.util.find_spec(config.track) is None:
        raise UserError(
            f"track={config.track}: that package is not installed: pip install mlflow-skinny"
        )


def tracker_callback(config: SearchConfig, folder: Path) -> list[Callback]:
    """Ray's callback of the tracker that the search has, if any; each trial is a run there.

    MLflow's runs go to MLFLOW_TRACKING_URI, by default to mlflow.db in the run's folder.

    Args:
        config: of the search; its name is MLflow's experiment.
        folder: of the run.
    """
    if config.track is None:
        return []
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    here = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    uri = os.environ.get("MLFLOW_TRACKING_URI", here)
    return [MLflowLoggerCallback(tracking_uri=uri, experiment_name=config.name)]
