"""The command that checks a search: its table, its exit code, and the remedies that it names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detox_tune import checks
from detox_tune.cli import run_command
from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.model.base import load_base

SPACE = """
data: pairs.jsonl
lexicon: en.txt
base_model: base
quantization: none
max_tokens: 64
trials: 2
steps: 8
eval_every: 4
grace_steps: 8
validation_share: 0.2
validation_pairs: 6
"""
TRIAL = """
trial:
  mask_strategy: {choice: [none, toxic_only, toxic_context]}
  gamma: {zero_or: [0.1, 1.0]}
  batch_size: 4
"""
LABELS_ALONE = "trial: {mask_strategy: toxic_only, mask_anchor: labels}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> Path:
    """A working directory in which `checks space.yaml` passes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lexicon = embedded_lexicon()
    english = [pair for pair in embedded_pairs() if pair.language == "en"][:80]
    pairs = [pair for pair in english if not lexicon.spans(pair.references[0], "en")][:60]
    lines = [
        json.dumps({"toxic": p.source, "neutral": p.references[0], "lang": "en"}) for p in pairs
    ]
    write("pairs.jsonl", "\n".join(lines))
    write("en.txt", "\n".join(lexicon.entries("en")))
    write("space.yaml", SPACE + TRIAL)
    (tmp_path / "base").symlink_to(tiny_base)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    """Exit code, and the two outputs with their line breaks folded."""
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: checks.main(["space.yaml", *flags]))
    printed = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, " ".join(printed.out.split()), " ".join(printed.err.split())


def test_a_sound_space_passes_and_shows_what_it_saw(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    code, output, _ = run(capsys)
    assert code == 0, output
    for name in ("sentences en", "lexicon en", "labels", "penalty", "head", "base", "estimate"):
        assert f" {name} " in output
    for mask in ("none", "toxic_only edits", "toxic_context edits 2"):
        assert f"pass mask {mask} " in output
        assert f"pass trainer {mask} " in output
    assert "[[" in output  # examples with the trained tokens marked
    assert " 0 fail" in output
    assert sorted(folder.rglob("*")) == before


def saved_base(change: Callable[[Any, Any], None]) -> None:
    """Replace the base by one that is broken."""
    model, tokenizer = load_base("base", quantization="none")
    change(model, tokenizer)
    model.save_pretrained("broken")
    tokenizer.save_pretrained("broken")
    Path("base").unlink()
    Path("broken").rename("base")


def tie(model: Any, tokenizer: Any) -> None:
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight


def emit_sentinels(model: Any, tokenizer: Any) -> None:
    first, second = (tokenizer.get_vocab()[f"<extra_id_{i}>"] for i in (0, 1))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[first] = 1.0
        model.lm_head.weight[second] = -1.0


def spanish() -> str:
    return "\n".join(embedded_lexicon().entries("es"))


FAILURES: dict[str, tuple[Callable[[], None], str, str]] = {
    "an empty lexicon": (
        lambda: write("en.txt", ""),
        "the file is empty",
        "remedy: give a --lexicon with toxic words of en",
    ),
    "no lexicon": (
        lambda: write("space.yaml", SPACE.replace("lexicon: en.txt\n", "") + TRIAL),
        "the lexicon is empty, and toxic_only, toxic_context, gamma cannot work",
        "remedy: give a --lexicon with toxic words of en",
    ),
    "a lexicon of another language": (
        lambda: write("en.txt", spanish()),
        "looks like one of another language",
        "remedy: give a --lexicon with toxic words of en",
    ),
    "labels all masked": (
        lambda: write("space.yaml", SPACE + LABELS_ALONE),
        "all labels are masked",
        "or leave this mask out of the space",
    ),
    "a tied head": (
        lambda: saved_base(tie),
        "lm_head shares the embedding's storage (tied)",
        "remedy: take the original checkpoint",
    ),
    "a base that only emits sentinels": (
        lambda: saved_base(emit_sentinels),
        "the base only emits sentinels",
        "remedy: use a base that was pre-trained to copy",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_work_fails_with_its_remedy(
    failure: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, seen, remedy = FAILURES[failure]
    make()
    code, output, errors = run(capsys)
    assert code == 1, errors
    assert seen in output
    assert remedy in output
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "none.tsv"], "error: none.tsv"),
        (["--lexicon", "none.txt"], "error: none.txt"),
        (["--trails", "3"], "unrecognized arguments: --trails"),
        (["--base-model", "empty"], "base_model='empty'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = run(capsys, *flags)
    assert code == 2
    assert message in errors
