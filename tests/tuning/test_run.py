"""What a search says at its end."""

import io
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import TrialConfig
from detox_tune.plain_console import PlainConsole
from detox_tune.tuning.results import Candidate
from detox_tune.tuning.run import no_winner, show_result
from detox_tune.tuning.winner import Finalist

FAILED: dict[str, Any] = {"j": None, "copy_rate": None}
COPIES: dict[str, Any] = {"j": 0.5, "copy_rate": 0.3}
BABBLES: dict[str, Any] = {"j": 0.01, "copy_rate": 0.05}
LOST: dict[str, Any] = {"trial": "trial_007", "j": 0.4, "copy_rate": 0.05}
FINALIST = Finalist(Candidate("trial_001", TrialConfig(), {}, ()), 1, {}, -1.2)


@pytest.mark.parametrize(
    ("rows", "finalists", "text"),
    [
        ([FAILED], [], "copy rate of at most 0.1, none reported"),
        ([FAILED, COPIES], [], "copy rate of at most 0.1, the lowest is 0.30"),
        ([COPIES, BABBLES], [], "copy little (1) have a j of at most 0.010, that of the untouched"),
        ([COPIES, BABBLES, LOST], [], "no whole checkpoint is left of the trials that might have"),
        (
            [COPIES, LOST],
            [FINALIST],
            "on the whole validation split (search.json) none of the best",
        ),
    ],
)
def test_the_reason_is_the_one_that_holds(
    rows: list[dict[str, Any]], finalists: list[Finalist], text: str
) -> None:
    line = no_winner(rows, finalists, 0.1, 0.02)
    assert line.startswith("no adapter exported: ")
    assert text in line
    assert "\n" not in line


def test_a_log_has_one_line_for_each_text(tmp_path: Path) -> None:
    source, output, settings = "a damn long sentence " * 9, "a long sentence " * 9, {"gamma": 20.0}
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "samples.tsv").write_text(
        f"source\toutput\tlabel\n{source}\t{output}\trewritten\nx\tx\tcopy\n", encoding="utf-8"
    )
    scores = dict.fromkeys(("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate"), 0.5)
    metrics = {"trial": "trial_003", "settings": settings, "test": {"tuned": scores}}
    log = io.StringIO()
    show_result(metrics, tmp_path, 60.0, PlainConsole(file=log, width=40))
    lines = log.getvalue().splitlines()
    assert f"  {source}" in lines
    assert f"  -> {output}" in lines
    assert "winner: trial_003 (gamma=20)" in lines
    assert not any("x" in line.split() for line in lines)
