"""benchmarks/search.py: a finished search as tables."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from detox_tune.errors import UserError

SCORES = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")


@pytest.fixture(scope="module")
def command() -> Any:
    file = Path(__file__).parents[1] / "benchmarks" / "search.py"
    spec = importlib.util.spec_from_file_location("benchmark_search", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder: Path) -> None:
    record = {
        "command": ["python", "-m", "detox_tune.search", "space.yaml", "--trials", "1"],
        "search": {"name": "small"},
        "started": "2026-01-02T03:04:05+00:00",
        "wall_seconds": 12.3,
        "versions": {"torch": "2.13.0"},
        "finalists": [
            {
                "trial": "trial_001",
                "step": 90,
                "averaged": 3,
                "whole": {"j": 0.45, "copy_rate": 0.06},
            }
        ],
    }
    bounds = {"j": [0.4, 0.6], "copy_rate": [0.0, 0.1]}
    scores = {name: place / 10 for place, name in enumerate(SCORES)}
    metrics = {
        "trial": "trial_001",
        "scorers": "embedded",
        "test": {"tuned": {**scores, "n": 7.0}, "copy": {**scores, "copy_rate": 1.0, "n": 7.0}},
        "intervals": {"tuned": bounds, "copy": bounds},
    }
    (folder / "best").mkdir()
    (folder / "search.json").write_text(json.dumps(record))
    (folder / "best" / "metrics.json").write_text(json.dumps(metrics))
    (folder / "trials.csv").write_text(
        "trial,ended,steps,seconds,lora,lora_r,mask_strategy,masked_weight,context_window,gamma,"
        "learning_rate,task_prefix,j,copy_rate\n"
        "trial_001,finished,90,4.6,second,,toxic_context,0.25,4,0.0,0.005,detoxify: ,0.5,0.04\n"
    )


def test_the_page_holds_the_command_the_commit_and_the_numbers(
    command: Any, tmp_path: Path
) -> None:
    write_run(tmp_path)
    out = tmp_path / "page.md"
    assert command.main([str(tmp_path), "--commit", "abc1234", "--out", str(out)]) == 0
    page = out.read_text()
    assert "`python -m detox_tune.search space.yaml --trials 1`" in page
    assert "Commit abc1234, started 2026-01-02T03:04:05+00:00, 12 s in all (torch 2.13.0)" in page
    assert (
        "| tuned | 0.000 | 0.100 | 0.200 | 0.300 | 0.400 | 0.500 | 0.400-0.600 | 0.000-0.100 |"
        in page
    )
    assert "| copy | 0.000 | 0.100 | 0.200 | 0.300 | 1.000 | 0.500 |" in page
    assert "| trial_001 | 90 | 3 | 0.450 | 0.060 |" in page
    row = "| trial_001 | finished | 90 | 5 | second | - | toxic_context | 0.25 | 4 | 0 | 0.005 "
    assert row + "| `detoxify: ` | 0.500 | 0.040 |" in page


def test_a_folder_without_a_winner_is_refused(command: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder of a search that has a winner"):
        command.main([str(tmp_path), "--commit", "abc1234", "--out", str(tmp_path / "page.md")])


def test_a_page_that_cannot_be_written_is_refused_at_once(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["no such run", "--commit", "abc1234", "--out", str(tmp_path)])
    assert "cannot be written (it is a folder): choose another --out" in capsys.readouterr().err
