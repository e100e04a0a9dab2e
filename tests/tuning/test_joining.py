"""A search on a cluster that it joins: two raylets with a token, checkpoints in a bucket."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.tuning.cluster import check_ray, check_shared, concurrency, connected, room
from tests.tuning.small_search import SPACE, read, rows, wait_until
from tests.tuning.test_storage import below

CLUSTER = "detox_tune.tuning.cluster"
ON_ONE_CPU = SPACE.replace(f"cpus_per_trial: {os.cpu_count()}", "cpus_per_trial: 1")

_NODE = "ray start --block --num-cpus 1 --disable-usage-stats --node-ip-address 127.0.0.1"
RAY_START = _NODE.split()


class RayCluster(NamedTuple):
    address: str
    environment: dict[str, str]
    """Of processes that know the token."""

    def start_node(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, *RAY_START, "--address", self.address],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def stop(node: "subprocess.Popen[str]") -> None:
    """With all its processes: `ray start` leaves some behind when it is terminated."""
    processes = psutil.Process(node.pid).children(recursive=True)
    node.kill()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.communicate(timeout=60)


@pytest.fixture(scope="module")
def cluster(s3: str) -> Iterator[RayCluster]:
    """One node; what starts there has the keys to the bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RAY_AUTH_MODE": "token"}
    environment |= {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    address = f"127.0.0.1:{port}"
    head = subprocess.Popen(
        [*RAY_START, "--head", "--port", str(port), "--include-dashboard=false"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def answers() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, head)
    yield RayCluster(address, environment)
    stop(head)


def search(
    folder: Path, environment: dict[str, str], *flags: str
) -> "subprocess.CompletedProcess[str]":
    (folder / "one.yaml").write_text(ON_ONE_CPU, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "detox_tune.search", "one.yaml", "--out", "runs", *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_two_raylets_with_a_token_and_a_bucket(folder: Path, cluster: RayCluster, s3: str) -> None:
    second = cluster.start_node()
    uri = below(s3, "joined")
    # as `ray job submit` says where the cluster is
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    done = search(folder, environment, "--name", "joined", "--storage", uri)
    stop(second)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "joined"
    assert [row["ended"] for row in rows(run)] == ["finished"] * 2
    assert not (run / "ray").exists()
    server, root = fs.FileSystem.from_uri(uri)
    for name in ("best/metrics.json", "search.json", "study.db", "trials.csv"):
        with server.open_input_file(f"{root}/joined/{name}") as file:
            assert file.read() == (run / name).read_bytes()
    assert "secret" not in (run / "search.json").read_text()
    assert read(run / "search.json")["search"]["address"] == cluster.address


@pytest.mark.slow
def test_a_raylet_that_is_killed_is_one_line(folder: Path, cluster: RayCluster) -> None:
    second = cluster.start_node()
    (folder / "one.yaml").write_text(ON_ONE_CPU, encoding="utf-8")
    driver = subprocess.Popen(
        [sys.executable, "-m", "detox_tune.search", "one.yaml", "--out", "runs", "--name", "lost"],
        cwd=folder,
        env={**cluster.environment, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def its_trials() -> list[int]:
        """Processes on the second node that have reported."""
        found = (folder / "runs" / "lost").glob("ray/session_1/*/result.json")
        last = [json.loads(lines[-1]) for file in found if (lines := file.read_text().splitlines())]
        there = {process.pid for process in psutil.Process(second.pid).children(recursive=True)}
        return [report["pid"] for report in last if report["pid"] in there]

    wait_until(lambda: bool(its_trials()), driver)
    raylet = psutil.Process(its_trials()[0]).parent()
    assert raylet
    raylet.kill()
    output, _ = driver.communicate(timeout=300)
    stop(second)
    assert driver.returncode == 0, output
    assert "and starts again: its process died 1 time: killed, out of memory, or lost" in output
    assert "raylet" not in output.lower()
    assert [row["ended"] for row in rows(folder / "runs" / "lost")] == ["finished"] * 2


@pytest.mark.slow
def test_with_another_token_a_search_is_refused_in_one_line(
    folder: Path, cluster: RayCluster
) -> None:
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}
    refused = search(folder, environment, "--address", cluster.address, "--name", "wrong")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()  # nothing is read or built first
    message = f"address='{cluster.address}': no Ray cluster there lets this machine in"
    assert line.startswith(f"error: {message}")
    assert cluster.environment["RAY_AUTH_TOKEN"] not in refused.stderr


@pytest.mark.slow
def test_a_folder_that_a_node_does_not_see(folder: Path, cluster: RayCluster) -> None:
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    hidden = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*hidden, "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    elsewhere = cluster.start_node(
        *hidden, "sh", "-c", f'mount -t tmpfs none "{runs}" && exec "$@"', "sh"
    )
    try:
        found = ""
        while "ray stop" not in found:  # the last line when it has joined
            assert elsewhere.stdout
            found = elsewhere.stdout.readline()
            assert elsewhere.poll() is None
        refused = search(
            folder, cluster.environment, "--address", cluster.address, "--name", "local"
        )
    finally:
        stop(elsewhere)
    assert refused.returncode == 2, refused.stderr
    line = refused.stderr.splitlines()[-1]
    assert f"{runs}/local is not seen by the node" in line
    assert "or --storage a URI" in line


def test_a_ray_that_does_not_start_here_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", "{")
    with (
        pytest.raises(UserError, match=r"Ray did not start .*JSONDecodeError.*session_latest/logs"),
        connected(SearchConfig(name="x")),
    ):
        pass


@pytest.mark.slow
def test_a_node_that_is_lost_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"Alive": True, "NodeID": "a" * 56, "NodeManagerAddress": "192.0.2.1"}
    with connected(SearchConfig(name="x")):
        here = ray.nodes()
        monkeypatch.setattr(ray, "nodes", lambda: [lost, *here])
        check_shared(tmp_path)
        with pytest.raises(UserError, match="nowhere is not seen by the node"):
            check_shared(tmp_path / "nowhere" / "file")


SHARES = st.sampled_from([0.0, 0.1, 0.15, 0.25, 0.3, 0.5, 1.0, 2.0, 3.0])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=3),
    st.sampled_from([0.5, 1.0, 2.0]),
    SHARES,
)
def test_room_is_what_fits_when_trials_are_placed_one_by_one(
    nodes: list[tuple[int, int]], cpus: float, gpus: float
) -> None:
    placed = 0
    for n_cpus, n_gpus in nodes:
        free, devices = float(n_cpus), [1.0] * n_gpus
        while free >= cpus - 1e-9:
            wanted = min(gpus, 1.0)
            fitting = [i for i, left in enumerate(devices) if left >= wanted - 1e-9]
            count = int(gpus) if gpus > 1 else 1
            if gpus and len(fitting) < count:
                break
            for i in fitting[:count] if gpus else []:
                devices[i] -= wanted
            free -= cpus
            placed += 1
    resources = [{"CPU": float(c), "GPU": float(g)} for c, g in nodes]
    assert room(resources, cpus, gpus) == placed


def test_a_joined_cluster_is_asked_for_more_than_it_has() -> None:
    here, joined = (SearchConfig(name="a", address=a, trials=20) for a in (None, "auto"))
    for slots, config in product((0, 1, 3, 50), (here, joined)):
        expected = slots if config is here else max(2 * slots, config.startup_trials)
        assert concurrency(config, slots) == max(1, min(20, expected))


def test_auto_where_the_last_ray_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try for minutes. Other tests' Rays are kept out of sight."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    file = tmp_path / "ray_current_cluster"
    file.write_text(address)
    monkeypatch.setattr(f"{CLUSTER}.find_gcs_addresses", set)
    monkeypatch.setattr(f"{CLUSTER}.get_ray_address_file", lambda _: str(file))
    with pytest.raises(UserError, match=f"'auto': nothing answers at {address}, where one was"):
        check_ray(SearchConfig(name="x", address="auto"))
    file.unlink()  # then Ray is asked, which says at once that there is none
    asked: list[str] = []
    monkeypatch.setattr(f"{CLUSTER}._join", lambda address, _: asked.append(address))
    check_ray(SearchConfig(name="x", address="auto"))
    assert asked == ["auto"]
