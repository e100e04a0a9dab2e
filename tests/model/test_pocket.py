"""The pocket base: built once, cached by content, with mT5's layout and an untied head."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from detox_tune.data.embedded import embedded_sentences
from detox_tune.errors import UserError
from detox_tune.model.pocket import cache_folder, new_model, pocket_base

SENTENCES = embedded_sentences()[:1500]


def build(cache: Path, **settings: int) -> tuple[Path, list[int]]:
    steps_done: list[int] = []
    wanted = {"vocabulary": 300, "steps": 2, "seed": 0, **settings}
    folder = pocket_base(SENTENCES, **wanted, cache=cache, progress=steps_done.append)
    return folder, steps_done


def test_it_is_built_on_first_use_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    folder, steps = build(tmp_path)
    assert steps == [1, 2]
    again, no_steps = build(tmp_path)
    assert (again, no_steps) == (folder, [])
    others = [build(tmp_path, seed=1), build(tmp_path, vocabulary=310), build(tmp_path, steps=1)]
    assert len({folder, *(other for other, _ in others)}) == 4


def test_an_interrupted_build_leaves_no_base_behind(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pocket_base(SENTENCES, vocabulary=300, steps=2, seed=0, cache=tmp_path, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    folder, steps = build(tmp_path)
    assert steps == [1, 2]
    assert AutoModelForSeq2SeqLM.from_pretrained(folder)


def test_others_may_read_it_and_use_a_cache_that_they_cannot_write(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder, _ = build(tmp_path)
    finally:
        os.umask(before)
    for path in (folder, *folder.iterdir()):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
    folder.with_name(f"{folder.name}.lock").unlink()
    assert build(tmp_path) == (folder, [])
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # nothing is written there


def test_what_a_killed_build_left_goes_with_the_next(tmp_path: Path) -> None:
    folder, _ = build(tmp_path)
    left = folder.with_name(f"building-{folder.name}")
    folder.rename(left)
    (left / "half a file").write_text("x")
    assert build(tmp_path) == (folder, [1, 2])
    assert not left.exists()
    assert not (folder / "half a file").exists()


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    weights = [
        AutoModelForSeq2SeqLM.from_pretrained(build(tmp_path / name, seed=seed)[0]).state_dict()
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_tokenizer_has_mt5s_layout_and_loses_nothing(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build(tmp_path)[0])
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert len(tokenizer) == 300
    for sentence in SENTENCES[:200]:
        ids = tokenizer(sentence).input_ids
        assert ids[-1] == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == sentence


def test_heads_start_out_looking_back() -> None:
    model: Any = new_model(50)
    plain = model.encoder.block[0].layer[0].SelfAttention.compute_bias(8, 8)[0]
    for head, distance in ((0, 1), (1, 2), (2, 3)):
        assert plain[head, 6].argmax().item() == 6 - distance
    decoder = model.decoder.block[0].layer[0].SelfAttention.compute_bias(8, 8)[0]
    for head, distance in ((0, 1), (1, 2)):
        assert decoder[head, 6, :7].argmax().item() == 6 - distance
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()


def test_too_little_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs at least 64 sentences"):
        pocket_base(SENTENCES[:40], vocabulary=120, steps=1, seed=0, cache=tmp_path)
    with pytest.raises(UserError, match="pocket_vocabulary=9000 does not fit 1500 sentences"):
        build(tmp_path, vocabulary=9000)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETOX_TUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    code = (
        "from detox_tune.data.embedded import embedded_sentences as e\n"
        "from detox_tune.model.pocket import pocket_base\n"
        "steps = []\n"
        "pocket_base(e()[:1500], vocabulary=300, steps=2, seed=0, progress=steps.append)\n"
        "print(len(steps))\n"
    )
    environment = {**os.environ, "DETOX_TUNE_CACHE": str(tmp_path)}
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    assert sorted(builder.communicate()[0].strip() for builder in builders) == ["0", "2"]
