"""python -m detox_tune.rewrite: from arguments, stdin or a file to lines or a table."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detox_tune import rewrite
from detox_tune.cli import run_command
from detox_tune.config import TrialConfig
from detox_tune.errors import UserError

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained adapters, as another tool writes them, on a base that babbles."""
    from detox_tune.model.base import load_base
    from detox_tune.model.lora import add_lora

    folder = str(tmp_path_factory.mktemp("adapter"))
    base, _ = load_base(str(tiny_base), quantization="none")
    add_lora(base, TrialConfig(lora="first"), seed=0).save_pretrained(folder)
    return folder


def ran(arguments: list[str], stdin: bytes | None, monkeypatch: pytest.MonkeyPatch) -> object:
    """The command's exit code; whatever encoding the locale gives stdin must not matter."""
    given = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", given)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: rewrite.main(arguments))
    return exit_.value.code


def test_options_stand_anywhere_and_each_text_is_a_line(
    adapter: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran([adapter, "1", "--device", "cpu", "2"], None, monkeypatch) == 0
    out, err = capsys.readouterr()
    assert out == "1\n2\n"
    assert err.count("\n") == 1
    assert "has no metrics.json: task prefix '' (--task-prefix), at most 96 tokens" in err


@pytest.mark.parametrize(
    ("stdin", "lines"),
    [
        (b"\xef\xbb\xbf1\r\n\r\n...\r\n", ["1", "", "..."]),
        (b"\n\n", ["", ""]),
        ("🤬\x1b[3".encode() + b"?", ["🤬\x1b[3?"]),
        (b"it is\n2", [None, "2"]),
    ],
)
def test_one_line_comes_out_for_each_that_goes_in(
    adapter: str,
    stdin: bytes,
    lines: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ran([adapter], stdin, monkeypatch) == 0
    out = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert len(out) == len(lines)
    assert all(line in (kept, None) for line, kept in zip(lines, out, strict=True))


def test_what_is_cut_off_is_said_with_its_line(
    adapter: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(adapter) / "metrics.json").write_text(
        json.dumps({"quantization": "none", "settings": {"task_prefix": ""}, "max_tokens": 2})
    )
    assert ran([adapter], b"1\nthe bus was late again.\n", monkeypatch) == 0
    (Path(adapter) / "metrics.json").unlink()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("line 2: 1 answers were cut off at 2 tokens")


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"fine\nthat caf\xe9\n", "stdin:2: byte 9 (0xe9) is not UTF-8"),
        (b"", "there is no text to rewrite"),
        (None, "there is no text to rewrite"),
    ],
)
def test_stdin_that_cannot_be_read_is_one_line(
    stdin: bytes | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ran(["adapter"], stdin, monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_messages_are_one_line_and_steer_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["a\nb\x1b[2J", "text"], ["adapter", "text", "--what\n\x1b[2J"]):
        assert ran(arguments, None, monkeypatch) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "\\x1b[2J" in line


@pytest.mark.parametrize("name", ["latin1_stdin.txt", "empty_lines_stdin.txt"])
def test_the_cases_that_came_out_wrong(
    name: str, adapter: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not CASES.is_dir():
        pytest.skip("needs the small inputs in ../shared/cases, which are not part of the tree")
    code = ran([adapter], (CASES / name).read_bytes(), monkeypatch)
    out, err = capsys.readouterr()
    if name.startswith("latin1"):
        assert (code, out) == (2, "")
        assert err.startswith("error: stdin:1: byte 9")
    else:
        assert (code, out.split("\n")[1:]) == (0, ["...", "", ""])


def test_a_reader_that_goes_away_is_no_traceback(adapter: str) -> None:
    command = [sys.executable, "-m", "detox_tune.rewrite", adapter]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.close()
        process.stdin.write(b"1\n" * 5)
        process.stdin.close()
        assert "Traceback" not in process.stderr.read().decode()
        assert process.wait() == 141


@pytest.fixture(scope="module")
def exported(adapter: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with what a search writes beside it: its scorers, for English."""
    from detox_tune.data.embedded import embedded_pairs
    from detox_tune.data.lexicon import Lexicon
    from detox_tune.evaluation.scorers import load_scorers
    from detox_tune.evaluation.stored_scorers import write_scorers

    folder = tmp_path_factory.mktemp("run") / "best"
    shutil.copytree(adapter, folder)
    lexicon = Lexicon({"en": ["damn", "idiot"]})
    scorers = load_scorers("embedded", embedded_pairs()[:30], lexicon, seed=0, device="cpu")
    write_scorers(folder / "scorers.json", scorers, lexicon)
    return str(folder)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is its source without `damn`, `idiot` for `fool`; a candidate is one word."""
    from detox_tune.evaluation.adapters import TunedModel
    from detox_tune.evaluation.rewriting import Answer

    def answers(self: TunedModel, sources: list[str], progress: object = None) -> list[Answer]:
        texts = [s.replace("damn ", "").replace("fool", "idiot") for s in sources]
        return [Answer(text, False) for text in texts]

    def candidates(self: TunedModel, sources: list[str], count: int) -> list[list[Answer]]:
        given = zip(answers(self, sources), sources, strict=True)
        return [[Answer(s, False), a, *[Answer("no", False)] * (count - 2)] for a, s in given]

    monkeypatch.setattr(TunedModel, "answers", answers)
    monkeypatch.setattr(TunedModel, "candidates", candidates)


ROWS = ["the damn bus was late.", "it is fine.", "", "you fool, that bus was late."]
TABLE = "id\ttoxic_sentence\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(ROWS))


@pytest.mark.usefixtures("parrot")
def test_a_table_comes_out_with_outputs_and_flags(
    exported: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.tsv").write_text(TABLE)
    arguments = [exported, "--input", f"{tmp_path}/in.tsv", "--output", f"{tmp_path}/out.tsv"]
    assert ran([*arguments, "--flags"], None, monkeypatch) == 0
    assert (tmp_path / "out.tsv").read_text().splitlines() == [
        "id\ttoxic_sentence\tneutral_sentence\tstill_copy\tstill_toxic",
        f"0\t{ROWS[0]}\tthe bus was late.\tfalse\tfalse",
        f"1\t{ROWS[1]}\tit is fine.\ttrue\tfalse",
        "2\t\t\t\t",
        f"3\t{ROWS[3]}\tyou idiot, that bus was late.\tfalse\ttrue",
    ]
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 4 rows have no text: their outputs are empty, too\n" in err
    assert "\n1 of 3 outputs are still a copy, 1 still hold a toxic word\n" in err


@pytest.mark.usefixtures("parrot")
def test_what_is_written_can_be_scored(
    exported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detox_tune.evaluation.references import load_references
    from detox_tune.evaluation.submission import load_outputs

    (tmp_path / "in.jsonl").write_text('{"id": "7", "text": "the damn bus"}\n')
    (tmp_path / "en.jsonl").write_text('{"id": "7", "toxic": "the damn bus", "neutral": "a bus"}')
    references = load_references(f"{tmp_path}/en.jsonl")
    for name in ("in.jsonl", "en.jsonl"):
        for suffix in ("tsv", "csv", "jsonl"):
            out = tmp_path / f"out.{suffix}"
            arguments = [exported, "--input", str(tmp_path / name), "--output", str(out)]
            assert ran(arguments, None, monkeypatch) == 0
            assert load_outputs(out, references) == {("en", "the damn bus"): "the bus"}


@pytest.mark.usefixtures("parrot")
def test_a_table_can_come_out_as_lines(
    exported: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.tsv").write_text(TABLE)
    expected = "the bus was late.\nit is fine.\n\nyou idiot, that bus was late.\n"
    assert ran([exported, "--input", f"{tmp_path}/in.tsv"], None, monkeypatch) == 0
    assert capsys.readouterr().out == expected
    arguments = [exported, *ROWS, "--output", f"{tmp_path}/out.txt"]
    assert ran(arguments, None, monkeypatch) == 0
    assert (tmp_path / "out.txt").read_text() == expected


@pytest.mark.usefixtures("parrot")
def test_candidates_are_chosen_by_the_search_s_scorers(
    exported: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ran([exported, *ROWS[:3], "--candidates", "3"], None, monkeypatch) == 0
    # to the second all answers but `no` are copies
    assert capsys.readouterr().out.splitlines() == ["the bus was late.", "no", ""]


def test_real_candidates_are_as_many_outputs_as_texts(
    exported: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = b"the bus was late. it was full.\n\n...\n"
    assert ran([exported, "--candidates", "3"], stdin, monkeypatch) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:] == ["", "...", ""]
    assert lines[0]


@pytest.mark.usefixtures("parrot")
def test_what_is_not_known_of_toxic_words_is_said(
    adapter: str,
    exported: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ran([adapter, "oh damn"], None, monkeypatch) == 0
    assert capsys.readouterr().err.splitlines()[-1] == (
        "1 of 1 outputs are still a copy; 1 were not searched for toxic words: "
        f"{adapter} has no scorers.json, which a search writes"
    )
    assert ran([exported, "oh damn", "--language", "fr"], None, monkeypatch) == 0
    assert "1 were not searched for toxic words: the run's lexicon" in capsys.readouterr().err


@pytest.mark.parametrize("texts", [3, 9])
def test_losses_are_said_of_five_texts_and_counted_after_that(
    texts: int, exported: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from detox_tune.evaluation.adapters import TunedModel
    from detox_tune.evaluation.rewriting import Answer

    monkeypatch.setattr(TunedModel, "answers", lambda _, asked: [Answer("", False) for _ in asked])
    assert ran([exported, *["hello"] * texts], None, monkeypatch) == 0
    err = capsys.readouterr().err
    assert err.count("answers are empty: rewrite") == min(texts, 5)
    assert ("4 more texts have answers" in err) == (texts == 9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["hi", "--candidates", "0"], r"--candidates 0: give 1 \(greedy\) to 64"),
        (["hi", "--candidates", "3"], r"has no scorers.json.*or leave --candidates out"),
        (["hi", "--flags"], r"--flags adds columns.*give --output FILE, a .tsv"),
        (["hi", "--input", "x.txt"], r"--input x.txt and texts as arguments: give one"),
        (["hi", "--source-column", "x"], r"names a column of --input FILE: give both"),
        (["--input", "x.txt"], r"x.txt: no such file or folder"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(
    adapter: str, flags: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rewrite.main([adapter, *flags])


def test_candidates_need_a_language_that_the_search_had(exported: str, tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("toxic\tlang\nhello\ten\nbonjour\tfr\n")
    arguments = [exported, "--input", f"{tmp_path}/in.tsv", "--candidates", "2"]
    with pytest.raises(UserError, match=r"line 3 is in 'fr'.*classifier for en: leave such texts"):
        rewrite.main(arguments)


def test_an_empty_file_has_no_text_to_rewrite(adapter: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    with pytest.raises(UserError, match=r"no text to rewrite in .*in.txt: give sentences"):
        rewrite.main([adapter, "--input", f"{tmp_path}/in.txt"])
