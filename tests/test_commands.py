"""All commands by their names, what completes and checks them, and the wheel that brings them."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import detox_tune.__main__ as commands
from detox_tune import schema
from detox_tune.command_line import next_command, program
from detox_tune.errors import UserError
from detox_tune.search import SPACES, chosen, parser
from detox_tune.tuning.space_file import load_space, parse_assignments

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(SPACES.glob("*.yaml"))


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        commands.main([name, "--help"])
    assert f".{name} " in capsys.readouterr().out


def test_what_follows_a_command_is_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["detox-tune", "search", "pocket"])
    assert commands.main(["search", "pocket", "--trials", "3", "seed=7", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "trials: 3" in printed
    assert "seed: 7" in printed
    assert sys.argv == ["detox-tune", "pocket", "--trials", "3", "seed=7", "--dry-run"]


def test_a_wrong_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        commands.main(["serch"])
    assert capsys.readouterr().err.startswith("error: argument command: invalid choice: 'serch'")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_flags(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in commands.COMMANDS)
    assert "--gpus-per-trial" in script


def test_completion_in_bash(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "detox_tune", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "completion.bash").write_text(made.stdout)
    asked = (
        "source completion.bash; COMP_WORDS=(detox-tune search --dr); COMP_CWORD=2;"
        " $(complete -p detox-tune | sed 's/.*-F \\([^ ]*\\).*/\\1/') detox-tune --dr search;"
        ' echo "${COMPREPLY[@]}"'
    )
    shown = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.split() == ["--dry-run"]


def test_a_command_is_named_as_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "detox-tune"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("report") == "detox-tune report"
    assert next_command("report", "a b") == "detox-tune report 'a b'"
    monkeypatch.chdir("/")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next_command("report", Path("run")) == "detox-tune report run"
    monkeypatch.setattr(sys, "argv", ["search.py"])
    assert next_command("report", "run").endswith("python -m detox_tune.report run")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.stem))
def test_the_schema_takes_the_shipped_spaces(file: Path) -> None:
    jsonschema.validate(yaml.safe_load(file.read_text("utf-8")), schema.space_schema())


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        ({"trails": 3}, "trails"),
        ({"trials": "many"}, "many"),
        ({"trial": {"gama": 1.0}}, "gama"),
        ({"trial": {"gamma": {"rnge": [0, 1]}}}, "rnge"),
        ({"trial": {"mask_strategy": "toxic"}}, "toxic"),
    ],
)
def test_the_schema_finds_what_is_wrong(space: dict[str, Any], wrong: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=wrong):
        jsonschema.validate(space, schema.space_schema())


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed["properties"]["trial"]["properties"]["gamma"]["default"] == 0.0


def options(*words: str) -> Any:
    return parser().parse_intermixed_args(words)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.stem))
def test_a_shipped_space_is_found_by_its_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, settings = chosen(options(file.stem))
    assert found.samefile(file)
    assert settings["name"].startswith(f"{file.stem}-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["poket"], "poket is neither a file nor a shipped space; did you mean 'pocket'"),
        (["pocket", "mt5_base"], "pocket mt5_base: give one space"),
        (["trials=3", "--trials", "4"], "--trials and trials=…: give one of the two"),
        (["gama=3"], "gama=3: 'gama' is not a setting; did you mean 'gamma'"),
        (["gamma=3", "gamma=4"], "gamma=4: gamma is given twice"),
        (["gamma={"], "gamma={: it is not valid YAML"),
        (["trial=on"], "'trial' is not a setting; did you mean 'trials'"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(options(*words))


def test_settings_of_the_command_line_win(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("trials: 5\ntrial:\n  gamma: 2.0\n  lora: {choice: [first, second]}\n")
    words = ["trials=7", "gamma=1e-1", "task_prefix=", "learning_rate={range: [1.0e-4, 1.0e-3]}"]
    config, space = load_space(file, parse_assignments(words))
    assert config.trials == 7
    assert space.describe() == {
        "gamma": 0.1,
        "task_prefix": "",
        "learning_rate": {"range": (1e-4, 1e-3)},
        "lora": {"choice": ["first", "second"]},
    }


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("mask_strategy=none", {"mask_strategy": "none"}),
        (
            "mask_strategy={choice: [none, toxic_only]}",
            {
                "mask_strategy": {"choice": ["none", "toxic_only"]},
                "masked_weight": {"range": (0.1, 0.4), "when": {"mask_strategy": ["toxic_only"]}},
            },
        ),
    ],
)
def test_what_waits_for_values_that_are_taken_away_goes(
    given: str, left: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "trial:\n"
        "  mask_strategy: {choice: [none, toxic_only, toxic_context]}\n"
        "  masked_weight: {range: [0.1, 0.4], when: {mask_strategy: [toxic_only, toxic_context]}}\n"
        "  context_window: {range: [1, 3], when: {mask_strategy: toxic_context}}\n"
    )
    _, space = load_space(file, parse_assignments([given]))
    assert space.describe() == left


def test_the_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = tmp_path / "source"
    source.mkdir()
    for folder in ("detox_tune", "search_spaces"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert f"detox_tune/search_spaces/{SHIPPED[0].name}" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    ran = subprocess.run(
        [sys.executable, "-m", "detox_tune", "search", "pocket", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
    )
    assert "pocket_steps" in ran.stdout, ran.stderr
    for file in ROOT.glob("detox_tune/**/*"):
        if file.suffix in {".yaml", ".html", ".css", ".js", ".pyi"}:
            assert (installed / file.relative_to(ROOT)).is_file(), file
