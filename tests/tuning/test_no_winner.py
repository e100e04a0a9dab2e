"""Why nothing was exported, in one line."""

from typing import Any

import pytest

from detox_tune.config import TrialConfig
from detox_tune.tuning.results import Candidate
from detox_tune.tuning.run import no_winner
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
