"""The Ray that a search runs on: started here, or a cluster that is joined."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.machine import cores

_CONNECT_SECONDS = 10
_LONGEST_SOCKET_PATH = 107  # bytes; a rule of Linux


@contextmanager
def connected(config: SearchConfig) -> Iterator[dict[str, float]]:
    """Ray, started here or joined at `address`; yields the cluster's resources.

    Raises:
        UserError: if the cluster can't be reached or has too little for one trial.
    """
    if config.address and config.address.startswith("ray://"):
        raise UserError(
            f"address={config.address!r} is a Ray client, which would run the search out of sight "
            "on the cluster: start the command on the cluster's head, with --address auto"
        )
    quiet: Any = {"logging_level": logging.ERROR, "log_to_driver": False}
    if config.address:
        _join(config.address, quiet)
    else:
        ray.init(num_cpus=cores(), include_dashboard=False, **quiet)
    try:
        resources = ray.cluster_resources()
        needs = {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
        for kind, needed in needs.items():
            # A joined cluster may still scale up; what starts here is all there will be.
            if not config.address and needed > resources.get(kind, 0):
                raise UserError(
                    f"{kind.lower()}s_per_trial={needed:g}, but this machine has "
                    f"{resources.get(kind, 0):g} {kind}s: lower it, or join a cluster (--address)"
                )
        yield resources
    finally:
        ray.shutdown()


def _join(address: str, quiet: dict[str, Any]) -> None:
    try:
        _reach(address)
        ray.init(address=address, **quiet)
    except (OSError, ray.exceptions.AuthenticationError) as error:  # ConnectionError is an OSError
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"address={address!r}: no Ray cluster answers there that lets this machine in: start "
            "one with `ray start --head` or `ray up cluster.yaml`, or leave --address out "
            f"({reason})"
        ) from error


def _reach(address: str) -> None:
    """Fail at once where nobody listens; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not (host and port.isdecimal()):
        raise UserError(f"address={address!r} must be `auto` or host:port, such as 10.0.0.1:6379")
    socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def check_temporary_folder() -> None:
    """Refuse a temporary folder whose path is too long for the sockets of a Ray started here.

    Raises:
        UserError: by how much.
    """
    folder = get_default_ray_temp_dir()
    session = "session_2026-01-01_00-00-00_000000_4194304"  # its name: a time, and the process
    over = len(os.fsencode(f"{folder}/{session}/sockets/plasma_store")) - _LONGEST_SOCKET_PATH
    if over > 0:
        raise UserError(
            f"the temporary folder {folder} is {over} bytes too long for the sockets that Ray "
            "makes there: set RAY_TMPDIR to a shorter one, such as /tmp"
        )


def concurrency(config: SearchConfig, resources: dict[str, float]) -> int:
    """How many trials may be pending or running at once, at least 1.

    A joined cluster is asked for twice what it has now, and at least for the random trials that
    the sampler starts with, so that its autoscaler sees demand, from nothing too. Not for all:
    settings are drawn when a trial becomes pending, and TPE should know some results by then.
    """
    fits = resources.get("CPU", 0) / config.cpus_per_trial
    if config.gpus_per_trial > 0:
        fits = min(fits, resources.get("GPU", 0) / config.gpus_per_trial)
    at_once = max(1, int(fits + 1e-9))
    if config.address:
        at_once = max(2 * at_once, config.startup_trials)
    return min(config.trials, at_once)
