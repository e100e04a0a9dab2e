"""What the page says, and that texts of data stay texts."""

import base64
import gzip
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from detox_tune import report
from detox_tune.errors import UserError
from detox_tune.tuning.report import findings, page
from detox_tune.tuning.report.run_data import read_run, shown
from detox_tune.tuning.study import read_study

HOSTILE = "</script><b onclick=alert(1)>&amp;\u202e\x1b[2J\x00\ud800<!--"


def written(folder: Path) -> str:
    return page.write_report(folder).read_text(encoding="utf-8")


def packed(text: str) -> dict[str, Any]:
    [found] = re.findall(r'class="outputs">([^<]*)<', text)
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found)))
    return content


class Elements(html.parser.HTMLParser):
    """The names of elements, and all the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("outside", ["http", "src=", "@import"])
def test_nothing_is_loaded_from_outside(make_run: Callable[..., Path], outside: str) -> None:
    text = re.sub(r'<script type="module">.*?</script>', "", written(make_run()), flags=re.DOTALL)
    assert outside not in text.replace("http-equiv", "")


def test_the_page_says_what_was_found(make_run: Callable[..., Path]) -> None:
    text = Elements(written(make_run())).text
    for said in (
        "finished, 8 trials",
        "trial_001 (winner)",
        "The winner's j, 0.580 to 0.620, lies above that of plain deletion.",
        "Its copy rate may be above max_copy_rate=0.1: the interval ends at 0.120.",
        "An estimate: comparing trials (ASHA) stopped 2 trials and so saved about 300 steps",
        "An estimate: the collapse rule stopped 2 trials",
        "Only 8 trials for 5 settings: read this as a hint.",
        "stopped early: it copied its input (because others did better)",
        "python -m detox_tune.search pocket --name made",
    ):
        assert said in text, said


def test_with_beams_a_trial_in_the_shaded_part_may_win(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert "it copies more than max_copy_rate and cannot win." in written(folder)
    record = json.loads((folder / "search.json").read_text())
    record["search"]["beams"] = 8
    (folder / "search.json").write_text(json.dumps(record))
    assert "with beams it may copy less, and win." in written(folder)


@pytest.mark.parametrize(
    ("j", "said"),
    [
        (0.61, "scores higher: j 0.610 against 0.600; the intervals overlap."),
        (0.9, "scores higher: j 0.900 against 0.600."),
        (0.59, "The intervals of the winner and of plain deletion overlap."),
    ],
)
def test_how_the_winner_stands_beside_deletion(
    make_run: Callable[..., Path], j: float, said: str
) -> None:
    file = make_run() / "best" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["test"]["delete"]["j"] = j
    metrics["intervals"]["delete"]["j"] = [j - 0.02, j + 0.02]
    file.write_text(json.dumps(metrics))
    [line, *_] = findings.trust(read_run(file.parents[1]))
    assert line.endswith(said)


def test_a_run_without_a_winner_says_why(make_run: Callable[..., Path]) -> None:
    text = Elements(written(make_run(winner=False))).text
    assert "no adapter exported: no trial has a validation copy rate of 0.1" in text


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_a_search_that_has_just_begun(make_run: Callable[..., Path], trials: int) -> None:
    text = Elements(written(make_run(trials=trials, winner=False))).text
    assert "need at least four trials" in text
    assert ("No trial has begun." in text) == (trials == 0)


def test_a_run_without_its_study_is_refused(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "study.db").unlink()
    with pytest.raises(UserError, match=r"has no study\.db"):
        page.write_report(folder)


def test_hostile_texts_stay_texts(make_run: Callable[..., Path]) -> None:
    harmless = Elements(written(make_run("harmless")))
    folder = make_run("hostile", prefix=HOSTILE[:-5], source=HOSTILE, reason=HOSTILE)
    text = written(folder)
    hostile = Elements(text)
    assert hostile.names == harmless.names
    assert not re.search("[\x00\x1b\u202e\ud800]", text)
    escaped = "</script><b onclick=alert(1)>&amp;\\u202e\\x1b[2J\\x00\\ud800<!--"
    assert escaped in hostile.text
    assert packed(text)["pairs"][0][1].startswith(escaped)


def test_what_is_shown_is_json() -> None:
    value = {"a\x07": [float("nan"), float("-inf"), 1, None, True, Path("/x")], "b": "two\nlines"}
    wanted = {"a\\x07": [None, None, 1, None, True, "/x"], "b": "two\nlines"}
    assert shown(value) == wanted


def test_outputs_of_each_trial_are_in_the_page(make_run: Callable[..., Path]) -> None:
    content = packed(written(make_run(trials=4, sentences=5)))
    assert list(content["trials"]) == [f"0/trial_{n:03d}" for n in range(1, 5)]
    rows = content["trials"]["0/trial_001"]
    assert [row[0] for row in rows] == list(range(len(rows)))
    assert {row[2] for row in rows} == {"rewritten"}


def test_a_page_that_would_be_too_large_says_what_it_leaves_out(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(trials=8, sentences=200)
    whole = written(folder)
    limit = len(whole.encode()) - 3000
    monkeypatch.setattr(page, "MAX_BYTES", limit)
    text = written(folder)
    assert len(text.encode()) <= limit + 200  # the line that says so
    assert "worst trials are left out" in text
    assert "0/trial_001" in packed(text)["trials"]  # the winner's


def test_importances_find_what_decides(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(trials=40))
    found = findings.importances(run)
    shares = [row["share"] for row in found if row["score"] == "j"]
    assert sum(shares) == pytest.approx(1)
    assert "context_window" not in {row["setting"] for row in found}
    assert findings.importances(run) == found


def test_runs_side_by_side(make_run: Callable[..., Path], capsys: Any) -> None:
    folders = [make_run("one"), make_run("two", trials=5, sentences=30)]
    assert report.main(list(map(str, folders))) == 0
    assert capsys.readouterr().out == f"{folders[0] / 'comparison.html'}\n"
    text = Elements((folders[0] / "comparison.html").read_text(encoding="utf-8")).text
    assert "two has other validation pairs than one: their scores do not compare." in text
    assert "Runs side by side" in text


def test_runs_with_other_scorers_are_refused(make_run: Callable[..., Path]) -> None:
    folders = [make_run("one"), make_run("two", scorers="official")]
    with pytest.raises(UserError, match="their scores do not compare, so write a page for each"):
        report.main(list(map(str, folders)))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no search\.json"):
        report.main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_page(make_run: Callable[..., Path], capsys: Any) -> None:
    folder = make_run()
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").stat().st_size < page.MAX_BYTES


def test_reading_a_run_changes_nothing(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    read_run(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    study = read_study(folder)
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        study.ask()
    assert "readonly database" in str(caught.value.__cause__)
