"""The command that checks a search: its table, its exit code, and the remedies that it names."""

from pathlib import Path
from typing import Any

import pytest

from detox_tune import checks, load_base
from detox_tune.cli import run_command
from detox_tune.data.embedded import embedded_lexicon

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
min_purity: 0.7
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
    code, output, said = run(capsys)
    assert code == 0, output
    assert "decoding with the untouched base training steps: none" in said  # there is no terminal
    for name in ("sentences en", "lexicon en", "labels", "penalty", "head", "base", "estimate"):
        assert f" {name} " in output
    for mask in ("none", "toxic_only answers", "toxic_context answers 2"):
        assert f"pass mask {mask} " in output
        assert f"pass trainer {mask} " in output
    assert "[[" in output  # examples with the trained tokens marked
    assert " 0 fail" in output
    assert sorted(folder.rglob("*")) == before


def test_what_cannot_work_fails_with_its_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One mistake for each kind of check: reading, quick ones, those that load the base."""
    write("en.txt", "")
    write("space.yaml", SPACE + "trial: {mask_strategy: toxic_only, mask_anchor: labels}\n")
    model: Any
    model, tokenizer = load_base("base", quantization="none")
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight
    model.save_pretrained("tied")
    tokenizer.save_pretrained("tied")
    code, output, errors = run(capsys, "--base-model", "tied")
    assert code == 1, errors
    assert "the file is empty" in output
    assert "remedy: give a --lexicon with toxic words of en" in output
    assert "all labels are masked" in output
    assert "or leave this mask out of the space" in output
    assert "lm_head shares the embedding's storage (tied)" in output
    assert "remedy: take the original checkpoint" in output
    assert "Traceback" not in output + errors


def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, errors = run(capsys, "--lexicon", "none.txt")
    assert (code, output) == (2, "")
    assert errors.startswith("error: none.txt: no such file")
