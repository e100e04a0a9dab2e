"""The Ray that a search runs on: started here, or a cluster that is joined."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.machine import cores

_CONNECT_SECONDS = 10


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
    where = {"address": config.address} if config.address else {"num_cpus": cores()}
    try:
        _reach(config.address)
        ray.init(
            **where,
            include_dashboard=None if config.address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"address={config.address!r}: no Ray cluster answers there: start one with `ray start "
            f"--head` or `ray up cluster.yaml`, or leave --address out ({reason})"
        ) from error
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


def _reach(address: str | None) -> None:
    """Fail at once where nobody listens; Ray itself tries for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


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
