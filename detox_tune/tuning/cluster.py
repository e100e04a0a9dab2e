"""The Ray that a search runs on: started here, or a cluster that is joined."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import ray
from ray._common.utils import (
    get_default_ray_temp_dir,
    get_ray_address_file,
    try_to_create_directory,
)
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import find_gcs_addresses
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.machine import cores

Loudness = Literal["quiet", "normal", "verbose"]
_CONNECT_SECONDS = 10
_LONGEST_SOCKET_PATH = 107  # bytes; a rule of Linux
_START = "start one with `ray start --head` or `ray up cluster.yaml`"
_TOKEN = "put the cluster's token into ~/.ray/auth_token"


@contextmanager
def connected(config: SearchConfig, loudness: Loudness = "normal") -> Iterator[int]:
    """Ray, started here or joined at `address`; yields how many trials have room at once.

    With loudness `verbose` it shows its own log and what trials print.

    Raises:
        UserError: if Ray can't be started or joined, or this machine has too little for one trial.
    """
    quiet: Any = {"logging_level": logging.ERROR, "log_to_driver": False}
    if loudness == "verbose":
        quiet = {}
    if config.address:
        _join(config.address, quiet)
    else:
        _start(quiet)
    try:
        if not config.address:
            _check_room(config, ray.cluster_resources())
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield room(nodes, config.cpus_per_trial, config.gpus_per_trial)
    finally:
        ray.shutdown()


def _check_room(config: SearchConfig, resources: Mapping[str, float]) -> None:
    """What is started here is all there will be; a joined cluster may still scale up."""
    needs = {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
    for kind, needed in needs.items():
        if needed > resources.get(kind, 0):
            raise UserError(
                f"{kind.lower()}s_per_trial={needed:g}, but this machine has "
                f"{resources.get(kind, 0):g} {kind}s: lower it, or join a cluster (--address)"
            )


def _start(quiet: dict[str, Any]) -> None:
    try:
        # `local`, or Ray joins one that runs on this machine already
        ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises a plain one where its processes don't answer in time
        ray.shutdown()
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"Ray did not start on this machine ({reason}): try again when the machine does less, "
            f"or read why in {get_default_ray_temp_dir()}/session_latest/logs"
        ) from error


def _join(address: str, quiet: dict[str, Any]) -> None:
    # Ray does so itself for `auto` only; a cluster without tokens does not mind.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        with _silent_stderr():  # Ray's C++ part says there, each second, that it still tries
            ray.init(address=address, **quiet)
    except ray.exceptions.AuthenticationError as error:
        raise UserError(
            f"{_named(address)}: RAY_AUTH_MODE=token is set, and there is no token: {_TOKEN}"
        ) from error
    except ConnectionError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{_named(address)}: no Ray cluster there lets this machine in ({reason}): "
            f"{_START}, {_TOKEN} if it has one, or {_otherwise(address)}"
        ) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _named(address: str) -> str:
    given = address == os.environ.get("RAY_ADDRESS")
    return f"address={address!r}{' (from RAY_ADDRESS)' if given else ''}"


def _otherwise(address: str) -> str:
    given = address == os.environ.get("RAY_ADDRESS")
    return "unset RAY_ADDRESS" if given else "leave --address out"


def check_ray(config: SearchConfig) -> None:
    """Find out, before anything is loaded, whether Ray can be started here, or joined.

    Raises:
        UserError: if not, with the reason.
    """
    if config.address is None:
        _check_temporary_folder()
        return
    _check_form(config.address)
    address = config.address if ":" in config.address else _recorded_address()
    host, _, port = address.rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:  # Ray itself tries for minutes where nobody listens
        where = "there" if address == config.address else f"at {address}, where one was started"
        raise UserError(
            f"{_named(config.address)}: nothing answers {where} ({error}): {_START}, or "
            f"{_otherwise(config.address)}"
        ) from error
    _join(config.address, {"logging_level": logging.ERROR, "log_to_driver": False})
    ray.shutdown()


def _recorded_address() -> str:
    """Where `auto` looks for a Ray when none runs on this machine: where the last was started."""
    file = Path(get_ray_address_file(None))
    if find_gcs_addresses() or not file.is_file():
        return ""
    return file.read_text(encoding="utf-8").strip()


def _check_form(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"{_named(address)} is a Ray client, which would run the search out of sight on the "
            "cluster: start the command on the cluster's head, with --address auto, or submit it "
            "as a job"
        )
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"{_named(address)} is a dashboard: submit the command there (`ray job submit`), or "
            f"{_otherwise(address)}"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdecimal()):
        raise UserError(f"{_named(address)} must be `auto` or host:port, such as 10.0.0.1:6379")


def _check_temporary_folder() -> None:
    """Refuse one that can't be written, or whose path is too long for the sockets of Ray."""
    folder = get_default_ray_temp_dir()
    try:
        try_to_create_directory(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"the temporary folder {folder}, which Ray needs, cannot be written "
            f"({error.strerror}): set RAY_TMPDIR to one that can"
        ) from error
    session = "session_2026-01-01_00-00-00_000000_4194304"  # its name: a time, and the process
    over = len(os.fsencode(f"{folder}/{session}/sockets/plasma_store")) - _LONGEST_SOCKET_PATH
    if over > 0:
        raise UserError(
            f"the temporary folder {folder} is {over} bytes too long for the sockets that Ray "
            "makes there: set RAY_TMPDIR to a shorter one, such as /tmp"
        )


def check_shared(file: Path) -> None:
    """Refuse to leave checkpoints on a file system that a node of the cluster does not see.

    A node that is lost meanwhile is passed over: no trial will run there.

    Args:
        file: that this process has just written.

    Raises:
        UserError: with the node's address.
    """
    sees = ray.remote(num_cpus=0)(os.path.exists)
    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = sees.options(scheduling_strategy=there).remote(str(file))
            asked.append((node["NodeManagerAddress"], answer))
    for address, answer in asked:
        with suppress(ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            if not ray.get(answer):
                raise UserError(
                    f"{file.parent} is not seen by the node {address}, where trials would leave "
                    "checkpoints: give --out a folder that all nodes share, or --storage a URI"
                )


def room(nodes: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """How many trials fit on nodes at once.

    A trial needs its CPUs and GPUs on one node. A share of a GPU is one of a single GPU: of 8 GPUs,
    48 trials can have .15 each, not 53.

    Args:
        nodes: of each node that is up, its resources, as `CPU` and `GPU`.
        cpus: of a trial.
        gpus: of a trial: a share of one, or a whole number.
    """

    def fits(have: float, needed: float) -> int:
        return math.floor(have / needed + 1e-9)

    def on_node(node: Mapping[str, float]) -> int:
        by_cpus, devices = fits(node.get("CPU", 0), cpus), node.get("GPU", 0)
        if gpus == 0:
            return by_cpus
        by_gpus = int(devices) * fits(1, gpus) if gpus < 1 else fits(devices, gpus)
        return min(by_cpus, by_gpus)

    return sum(map(on_node, nodes))


def concurrency(config: SearchConfig, slots: int) -> int:
    """How many trials may be pending or running at once, at least 1.

    A joined cluster is asked for twice what it has now, and at least for the random trials that
    the sampler starts with, so that its autoscaler sees demand, from nothing too. Not for all:
    settings are drawn when a trial becomes pending, and TPE should know some results by then.

    Args:
        config: of the search.
        slots: trials that have room now (`room`).
    """
    at_once = max(2 * slots, config.startup_trials) if config.address else slots
    return max(1, min(config.trials, at_once))
