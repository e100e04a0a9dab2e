"""The command that checks a search: its table, its exit code, and the remedies that it names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detox_tune import checks, load_base
from detox_tune.cli import run_command
from detox_tune.data.embedded import embedded_lexicon
from detox_tune.tuning.base import load_cut_base

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


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, pairs_file: Path
) -> Path:
    """A working directory in which `checks space.yaml` passes."""
    load_cut_base.cache_clear()  # a command is a new process, and here bases change their weights
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "base").symlink_to(tiny_base)
    (tmp_path / "pairs.jsonl").symlink_to(pairs_file)
    write("en.txt", "\n".join(embedded_lexicon().entries("en")))
    write("space.yaml", SPACE + TRIAL)
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


def save_base(model: Any, tokenizer: Any) -> None:
    """Replace the base by one that is broken."""
    model.save_pretrained("broken")
    tokenizer.save_pretrained("broken")
    Path("base").unlink()
    Path("broken").rename("base")


def test_a_lexicon_of_another_language_and_a_tied_head_fail_with_their_remedies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("en.txt", "\n".join(embedded_lexicon().entries("es")))
    write("space.yaml", SPACE + "trial: {mask_strategy: toxic_only, mask_anchor: labels}\n")
    model: Any
    model, tokenizer = load_base("base", quantization="none")
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight
    save_base(model, tokenizer)
    code, output, errors = run(capsys)
    assert code == 1, errors
    assert "looks like one of another language" in output
    assert "remedy: give a --lexicon with toxic words of en" in output
    assert "all labels are masked" in output
    assert "or leave this mask out of the space" in output
    assert "lm_head shares the embedding's storage (tied)" in output
    assert "remedy: take the original checkpoint" in output
    assert "Traceback" not in output + errors


def test_an_empty_lexicon_and_a_base_that_only_emits_sentinels_fail_with_their_remedies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("en.txt", "")
    write("space.yaml", SPACE)
    model: Any
    model, tokenizer = load_base("base", quantization="none")
    first, second = (tokenizer.get_vocab()[f"<extra_id_{i}>"] for i in (0, 1))
    with torch.no_grad():  # a head that makes a sentinel the arg-max whatever the hidden state is
        model.lm_head.weight.zero_()
        model.lm_head.weight[first] = 1.0
        model.lm_head.weight[second] = -1.0
    save_base(model, tokenizer)
    code, output, errors = run(capsys)
    assert code == 1, errors
    assert "the file is empty" in output
    assert "remedy: give a --lexicon with toxic words of en" in output
    assert "the base only emits sentinels" in output
    assert "remedy: use a base that was pre-trained to copy" in output
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lexicon", "none.txt"], "error: none.txt"),
        (["--trails", "3"], "unrecognized arguments: --trails"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = run(capsys, *flags)
    assert code == 2
    assert message in errors
