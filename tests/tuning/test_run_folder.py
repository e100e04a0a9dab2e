"""Which runs can go on: what is refused is one line, exit code 2, and the run stays as it is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from detox_tune import search
from detox_tune.cli import run_command
from detox_tune.files import write_json
from detox_tune.tuning.corpus import load_corpus
from detox_tune.tuning.run_folder import claimed, describe_search, stopped_run
from detox_tune.tuning.space_file import load_space

SPACE = """
data: pairs.jsonl
base_model: base
trials: 2
steps: 4
eval_every: 2
grace_steps: 2
trial:
  gamma: {zero_or: [0.1, 1.0], log: true}
  mask_strategy: {choice: [none, toxic_context]}
  context_window: {range: [1, 3], when: {mask_strategy: toxic_context}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, pairs_file: Path) -> Path:
    """The folder of a run that died before its first trial, as a relative path."""
    monkeypatch.chdir(tmp_path)
    Path("base").symlink_to(tiny_base)
    Path("pairs.jsonl").write_bytes(pairs_file.read_bytes())
    Path("space.yaml").write_text(SPACE, encoding="utf-8")
    config, space = load_space(Path("space.yaml"), {"name": "run", "address": "auto", "hours": 1.0})
    write_json(Path("run/search.json"), describe_search(config, space, load_corpus(config)))
    return Path("run")


def test_a_run_has_the_settings_that_it_began_with(run: Path) -> None:
    config, space = load_space(Path("space.yaml"), {"name": "run"})
    found = stopped_run(run, {"trials": 5})
    # address and hours are of one command
    assert found.config == config.model_copy(update={"trials": 5})
    assert found.space.describe() == space.describe()


def nothing(run: Path) -> None:
    """For what lies in the flags alone."""


def record(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the content of search.json."""

    def make(run: Path) -> None:
        content = json.loads((run / "search.json").read_bytes())
        write_json(run / "search.json", change(content) or content)

    return make


def update(name: str, value: Mapping[str, Any] | None) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({name: {**content[name], **(value or {})}})


def truncated(run: Path) -> None:
    path = run / "search.json"
    path.write_bytes(path.read_bytes()[:100])


def other_pairs(run: Path) -> None:
    lines = Path("pairs.jsonl").read_text(encoding="utf-8").splitlines()
    Path("pairs.jsonl").write_text("\n".join(lines[1:]), encoding="utf-8")


def no_database(run: Path) -> None:
    (run / "ray").mkdir()
    (run / "study.db").write_bytes(b"trials" * 1000)


MISTAKES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "another setting": (nothing, "--steps 9", "--steps: a search that goes on has the settings"),
    "several": (nothing, "--seed 1 --dry-run", "--seed, --dry-run: a search that goes on"),
    "a space": (nothing, "space.yaml", "space.yaml: a search that goes on has the settings of"),
    "fewer trials": (nothing, "--trials 1", "trials=1 is less than the 2 that the search has"),
    "no trials": (nothing, "--trials 0", "trials=0: input should be greater"),
    "no hours": (nothing, "--hours 0", "hours=0.0: input should be greater"),
    "no such folder": (lambda run: run.rename(run.with_name("x")), "", "/run is no folder, so"),
    "no record": (lambda run: (run / "search.json").unlink(), "", "/run has no search.json, so"),
    "half a record": (truncated, "", "search.json is damaged"),
    "a list": (record(lambda content: [content]), "", "search.json is damaged"),
    "no space": (record(lambda content: content.pop("space") and None), "", "object with space"),
    "a setting of no search": (
        record(update("search", {"stepz": 1})),
        "",
        "search.json: 'stepz' is not a setting here; did you mean 'steps'?",
    ),
    "another version": (
        record(update("versions", {"detox_tune": "9.1"})),
        "",
        "the search is one of detox_tune 9.1, and this is",
    ),
    "all done": (
        record(lambda content: content.update(finished="today")),
        "",
        "has nothing left to do: its 2 trials ended. Give --trials",
    ),
    "trials without a study": (lambda run: (run / "ray").mkdir(), "", "has no study.db"),
    "a damaged study": (no_database, "", "study.db is damaged (file is not a database)"),
    "other pairs": (other_pairs, "", "pairs (pairs.jsonl) changed since the search in"),
    "another lexicon": (
        record(lambda content: content.update(lexicon_sha256="0")),
        "",
        "the lexicon (pairs.jsonl) changed since the search in",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_go_on_is_one_line(
    mistake: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, flags, message = MISTAKES[mistake]
    make(run)
    check_refusal(run, flags, message, capsys)


def test_a_run_that_is_running_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(run):
        check_refusal(run, "", "a search is running in", capsys)


def test_a_new_search_tells_of_resume(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(lambda: search.main(["space.yaml", "--out", ".", "--name", "run"]))
    assert f"go on with that search (--resume {run.absolute()})" in capsys.readouterr().err


def check_refusal(run: Path, flags: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main([*flags.split(), "--resume", str(run)]))
    lines = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2, lines
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:]
    assert message in errors[0]
    assert contents(run) == before


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
