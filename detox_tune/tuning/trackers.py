"""Trackers that a search reports to, by Ray's own callbacks."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path

from ray.tune import Callback

from detox_tune.config import SearchConfig, Tracker
from detox_tune.errors import UserError

_PROJECT = "detox_tune"
_WANDB_KEYS = ("WANDB_API_KEY", "WANDB_MODE")


def check_tracker(tracker: Tracker | None) -> None:
    """Find out, before anything is loaded, whether a tracker is installed and knows its user.

    Raises:
        UserError: if not.
    """
    if tracker is None:
        return
    if importlib.util.find_spec(tracker) is None:
        raise UserError(
            f"track={tracker}: that package is not installed: pip install 'detox-tune[track]'"
        )
    if tracker == "wandb" and not any(os.environ.get(name) for name in _WANDB_KEYS):
        raise UserError(
            "track=wandb: neither WANDB_API_KEY nor WANDB_MODE is set: set the key, or "
            "WANDB_MODE=offline to keep the runs on this machine"
        )


def tracker_callback(config: SearchConfig, folder: Path) -> list[Callback]:
    """The callback of the tracker that the search has, if any; each trial is a run there.

    MLflow's runs go to MLFLOW_TRACKING_URI, by default to mlflow.db in the run's folder.

    Args:
        config: of the search; its name is MLflow's experiment, and W&B's group.
        folder: of the run.
    """
    if config.track == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        here = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", here)
        return [MLflowLoggerCallback(tracking_uri=uri, experiment_name=config.name)]
    if config.track == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return [WandbLoggerCallback(project=_PROJECT, group=config.name)]
    return []
