"""cluster.yaml against Ray's own schema, and against the house's rules on open ports and tokens."""

import copy
import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts

from detox_tune import search

ROOT = Path(__file__).resolve().parents[1]


WRITTEN: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def resolved() -> dict[str, Any]:
    """The file as `ray up` completes it: what it leaves out comes from Ray's defaults for AWS."""
    config: dict[str, Any] = prepare_config(copy.deepcopy(WRITTEN))
    return config


def ray_start(commands: list[str]) -> tuple[str, dict[str, Any]]:
    """The one `ray start` among commands: what precedes it, and its options as Ray reads them."""
    (command,) = [command for command in commands if "ray start" in command]
    before, after = command.split("ray start", maxsplit=1)
    return before, scripts.start.make_context("start", shlex.split(after)).params


def test_follows_rays_schema(resolved: dict[str, Any]) -> None:
    schema_file = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    jsonschema.validate(WRITTEN, json.loads(schema_file.read_text(encoding="utf-8")))
    validate_config(resolved)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):  # Ray does look
        validate_config({**resolved, "max_worker": 4})


def test_spot_instances_are_a_comment_away() -> None:
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    spot = yaml.safe_load(text.replace("# InstanceMarketOptions", "InstanceMarketOptions"))
    validate_config(prepare_config(copy.deepcopy(spot)))
    worker = spot["available_node_types"]["gpu_worker"]["node_config"]
    assert worker.pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot == WRITTEN


def test_opens_nothing_to_the_world(resolved: dict[str, Any]) -> None:
    assert not re.search(r"0\.0\.0\.0|::/0", yaml.safe_dump(resolved))


def test_every_node_has_a_security_group_of_the_users(resolved: dict[str, Any]) -> None:
    # Without one, Ray makes a group and opens SSH in it to 0.0.0.0/0; rules given under
    # provider.security_group are added to that rule and do not replace it.
    assert "security_group" not in resolved["provider"]
    for node_type in resolved["available_node_types"].values():
        groups = node_type["node_config"]["SecurityGroupIds"]
        assert groups
        assert all(group.startswith("sg-") for group in groups)


def test_ray_and_shells_authenticate_with_a_token_that_is_not_written_down(
    resolved: dict[str, Any],
) -> None:
    for role in ("head", "worker"):
        environment, _ = ray_start(resolved[f"{role}_start_ray_commands"])
        assert environment.split(";")[-1].split() == ["RAY_AUTH_MODE=token"]
    assert any(
        "export RAY_AUTH_MODE=token" in command and ">> ~/.bashrc" in command
        for command in resolved["setup_commands"]
    )
    assert resolved["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_TOKEN" not in yaml.safe_dump(resolved)


def test_the_dashboard_stays_on_the_head_and_workers_join_its_port(
    resolved: dict[str, Any],
) -> None:
    _, head = ray_start(resolved["head_start_ray_commands"])
    _, worker = ray_start(resolved["worker_start_ray_commands"])
    assert head["head"] is True
    assert head["dashboard_host"] == "127.0.0.1"
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"


def test_one_head_without_gpus_and_gpu_workers_from_zero(resolved: dict[str, Any]) -> None:
    node_types = resolved["available_node_types"]
    head = node_types.pop(resolved["head_node_type"])
    assert head["max_workers"] == 0
    assert head["resources"] == {"CPU": 0}, "a trial without a GPU could run on the head"
    assert node_types
    for worker in node_types.values():
        assert worker["min_workers"] == 0
        assert 1 <= worker["max_workers"] <= resolved["max_workers"]
        assert worker["resources"]["GPU"] >= 1


def test_all_nodes_install_one_ray_that_the_package_allows(resolved: dict[str, Any]) -> None:
    assert resolved["head_setup_commands"] == resolved["worker_setup_commands"]
    pins = [
        Requirement(word)
        for command in resolved["head_setup_commands"]
        for word in shlex.split(command)
        if word.startswith("ray[")
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (allowed,) = [Requirement(text) for text in project["dependencies"] if text.startswith("ray[")]
    assert len(pins) == 1
    pin = re.fullmatch(r"==([\d.]+)", str(pins[0].specifier))
    assert pin is not None, "an open range gives nodes that start on different days two Rays"
    assert pin[1] in allowed.specifier
    assert pins[0].extras >= {"default", "tune"}


def test_what_is_copied_exists(resolved: dict[str, Any]) -> None:
    local_paths = [path for path in resolved["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in local_paths if not (ROOT / path).exists()] == []
    assert "./detox_tune" in local_paths


def test_commands_are_valid_bash(resolved: dict[str, Any]) -> None:
    lists = {name: value for name, value in resolved.items() if name.endswith("_commands")}
    assert {"setup_commands", "head_start_ray_commands", "worker_start_ray_commands"} <= set(lists)
    for command in chain.from_iterable(lists.values()):
        parsed = subprocess.run(
            ["bash", "-n", "-c", command], capture_output=True, text=True, check=False
        )
        assert parsed.returncode == 0, parsed.stderr


def test_a_job_on_kubernetes_keeps_to_the_same_rules() -> None:
    text = (ROOT / "docs" / "rayjob.yaml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["spec"]
    cluster = job["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert "auth_token" not in text
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == 0
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert cluster["rayVersion"] == version("ray")
    command, name, *flags = shlex.split(job["entrypoint"])
    assert (command, name) == ("detox-tune", "search")
    assert search.parser().parse_intermixed_args(flags).storage.startswith("s3://")
