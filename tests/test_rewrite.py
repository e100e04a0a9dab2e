"""python -m detox_tune.rewrite, from arguments or stdin to lines."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from detox_tune import rewrite
from detox_tune.cli import run_command
from detox_tune.config import TrialConfig

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
