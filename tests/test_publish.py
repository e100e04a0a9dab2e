"""Publishing to a stand-in of the hub: what arrives there, and that it can be used from there."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from detox_tune.errors import UserError
from detox_tune.publish import main
from detox_tune.tuning.card import EXAMPLE
from tests.exported_run import exported_run
from tests.stand_in_hub import TOKEN, StandIn, stand_in_hub

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with stand_in_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; nobody changes it."""
    return exported_run(tmp_path_factory.mktemp("runs") / "run", tiny_base).parent


@pytest.fixture
def best(tiny_base: Path, tmp_path: Path) -> Path:
    """The adapter of a run that a test may change."""
    return exported_run(tmp_path / "run", tiny_base)


def with_hub(hub: StandIn | None, home: Path, **variables: str) -> dict[str, str]:
    """The environment of a user of that hub, or of one who has no connection."""
    nowhere = "http://127.0.0.1:9"  # the port "discard", where nothing listens
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.endpoint if hub else nowhere,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # the hub's own protocol for uploads, which the stand-in lacks
        "NO_PROXY": "127.0.0.1",
        **variables,
    }


def publish(
    environment: dict[str, str], run: Path, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "detox_tune", "publish", str(run), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_a_published_adapter_is_used_as_its_card_says(
    hub: StandIn, run: Path, tmp_path: Path
) -> None:
    environment = with_hub(hub, tmp_path)
    said = publish(environment, run, "me/detox", "--license", "apache-2.0")
    assert said.returncode == 0, said.stderr
    assert said.stdout.endswith(f"published: {hub.endpoint}/me/detox\n")
    assert "scorers.json stays here: it holds the lexicon and pieces of training" in said.stdout
    assert TOKEN not in said.stdout + said.stderr
    model = hub.models["me/detox"]
    assert not model.private
    best = {"README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"}
    base = {f"base/{file.name}" for file in (run / "base").iterdir()}
    assert model.files.keys() == best | {"samples.tsv"} | base
    for name in model.files.keys() - {"README.md", "adapter_config.json"}:
        here = run / name if name.startswith("base/") else run / "best" / name
        assert model.files[name] == here.read_bytes()
    assert json.loads(model.files["adapter_config.json"])["base_model_name_or_path"] == "./base"
    assert str(run).encode() not in b"".join(model.files.values())

    card = ModelCard(model.files["README.md"].decode())
    assert card.data.to_dict()["license"] == "apache-2.0"
    assert card.data.to_dict()["model-index"][0]["name"] == "detox"
    [python] = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    from_python = subprocess.run(
        [sys.executable, "-c", python], capture_output=True, text=True, env=environment, check=True
    )
    [shell] = re.findall(r"```\n(hf .*?)```", card.text, re.DOTALL)
    tools = {
        "hf": [str(Path(sys.executable).with_name("hf"))],
        "detox-tune": [sys.executable, "-m", "detox_tune"],
    }
    for line in shell.splitlines():
        tool, *rest = shlex.split(line)
        from_shell = subprocess.run(
            [*tools[tool], *rest],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=True,
        )
    assert rest[-1] == EXAMPLE
    assert from_python.stdout.split() == from_shell.stdout.split()


def test_what_was_sent_and_is_not_wanted_any_more_goes(
    hub: StandIn, run: Path, tmp_path: Path
) -> None:
    environment = with_hub(hub, tmp_path)
    arguments = ("me/twice", "--license", "openrail++")
    said = publish(environment, run, *arguments, "--private", "--with-scorers")
    assert said.returncode == 0, said.stderr
    assert "scorers.json holds the lexicon and pieces of training sentences" in said.stdout
    model = hub.models["me/twice"]
    assert model.private
    assert "scorers.json" in model.files
    said = publish(environment, run, *arguments)
    assert "removing scorers.json, which the history of me/twice keeps" in said.stdout
    assert "scorers.json" not in model.files
    model.private = False
    said = publish(environment, run, *arguments, "--private")
    assert said.returncode == 2
    assert (
        "error: me/twice is there and is public, so --private cannot hold: make it" in said.stderr
    )


@pytest.mark.parametrize(
    ("variables", "repo_id", "license", "line"),
    [
        (
            {"HF_TOKEN": "wrong"},
            "me/refused",
            "apache-2.0",
            "the hub answers 401 (Invalid username or password.): it does not know the token: "
            "`hf auth login`, or set HF_TOKEN to another",
        ),
        (
            {},
            "other/refused",
            "apache-2.0",
            "the hub answers 403 (You don't have the rights to create a model under this "
            "namespace): the token may not write to other/refused: take one that may, or name a "
            "repository of your own",
        ),
        (
            {},
            "me/refused",
            "mine",
            'the hub does not take the metadata of README.md ("license" must be one of these): '
            "correct it, or --license",
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    variables: dict[str, str],
    repo_id: str,
    license: str,
    line: str,
    hub: StandIn,
    run: Path,
    tmp_path: Path,
) -> None:
    environment = with_hub(hub, tmp_path, **variables)
    said = publish(environment, run, repo_id, "--license", license)
    assert said.returncode == 2
    assert said.stderr == f"error: {line}\n"
    assert repo_id not in hub.models


def test_without_a_connection_there_is_one_line(run: Path, tmp_path: Path) -> None:
    environment = with_hub(None, tmp_path)
    said = publish(environment, run, "me/detox", "--license", "apache-2.0")
    assert said.returncode == 2
    assert re.fullmatch(
        r"error: http://127.0.0.1:9 cannot be reached \(.*\): check the connection, and "
        "HF_ENDPOINT if it is set\n",
        said.stderr,
    )


def test_a_connection_that_is_lost_on_the_way_is_one_line(
    hub: StandIn, run: Path, tmp_path: Path
) -> None:
    environment = with_hub(
        hub, tmp_path, HF_HUB_DISABLE_XET="0", HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="1"
    )
    said = publish(environment, run, "me/lost", "--license", "apache-2.0")
    assert said.returncode == 2
    *_, line = said.stderr.splitlines()
    assert line.startswith(f"error: {hub.endpoint} cannot be reached (")
    assert "Traceback" not in said.stderr
    assert hub.models["me/lost"].files == {}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, so nothing can be published: unset it"),
        ({"HF_TOKEN": ""}, "there is no token for the hub: log in with `hf auth login`, or set"),
    ],
)
def test_what_keeps_from_the_hub_is_said_first(
    variables: dict[str, str], line: str, tmp_path: Path
) -> None:
    said = publish(with_hub(None, tmp_path, **variables), tmp_path / "no run", "me/detox")
    assert said.returncode == 2
    assert said.stderr.startswith(f"error: {line}")


def test_a_dry_run_needs_no_hub(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = run / "best"
    arguments = [str(best), "me/detox", "--license", "openrail++", "--private", "--dry-run"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    sent = [*best.iterdir(), *(run / "base").iterdir()]
    assert re.fullmatch(rf"me/detox, private: {len(sent) - 1} files, \d.* [kM]B", printed[0])
    assert any(re.fullmatch(r"  base/model.safetensors +\d.* [kM]B", line) for line in printed)
    assert "  ---" in printed
    assert (
        printed[-1] == "nothing was sent to https://huggingface.co: leave --dry-run out to publish"
    )


@pytest.mark.parametrize("repo_id", ["detox", "a/b/c", "a b/c", "a/b--c", "", "/detox"])
def test_a_malformed_name_is_refused(repo_id: str) -> None:
    with pytest.raises(UserError, match=r"the repository '.*' must be OWNER/NAME, each of letters"):
        main(["nothing", repo_id, "--dry-run"])


def test_wrong_folders_are_refused(best: Path) -> None:
    def dry_run() -> int:
        return main([str(best), "me/detox", "--license", "apache-2.0", "--dry-run"])

    with pytest.raises(UserError, match=r"README.md states no licence: give one with --license"):
        main([str(best), "me/detox", "--dry-run"])
    (best / "README.md").write_text("---\n- a list\n---\n")
    with pytest.raises(UserError, match=r"README.md: its metadata, .*should be a dict\): correct"):
        dry_run()
    (best / "README.md").unlink()
    with pytest.raises(UserError, match=r"README.md is not there: write the card that the hub"):
        dry_run()
    (best / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no adapter_model.safetensors: give a folder that"):
        dry_run()
    (best / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"is no adapter: the file adapter_config.json must be"):
        dry_run()


def test_a_base_that_is_a_folder_here_is_named_on_the_hub(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = exported_run(tmp_path / "run", tiny_base, pocket=False)
    arguments = [str(best), "me/detox", "--license", "apache-2.0", "--dry-run"]
    with pytest.raises(UserError, match="others do not have: name it on the hub with --base-model"):
        main(arguments)
    with pytest.raises(UserError, match=r"--base-model .* is a folder here: give its name on the"):
        main([*arguments, "--base-model", str(tiny_base)])
    with pytest.raises(UserError, match="--base-model 'mt5' must be OWNER/NAME"):
        main([*arguments, "--base-model", "mt5"])
    assert main([*arguments, "--base-model", "google/mt5-base"]) == 0
    printed = capsys.readouterr().out
    assert "  base_model: google/mt5-base\n" in printed
    assert "base/" not in printed
    with (best / "README.md").open("a") as card:
        card.write(f"It was made from {tmp_path / 'run' / 'base'}.\n")
    with pytest.raises(UserError, match=r"names .*base, which is a folder of this machine: take"):
        main([*arguments, "--base-model", "google/mt5-base"])
