"""Adapters on disk: wherever their run was moved, whoever wrote them, and if damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

from detox_tune.config import TrialConfig
from detox_tune.errors import UserError
from detox_tune.evaluation.adapters import load_adapter
from detox_tune.model.base import load_base
from detox_tune.model.lora import add_lora
from tests.tiny_models import tiny_base as another_base

METRICS = {"quantization": "none", "settings": {"task_prefix": "detoxify: "}, "max_tokens": 24}


@pytest.fixture
def run(tmp_path: Path, tiny_base: Path) -> Path:
    """A run as a search leaves it: base/ and best/, which names ../base."""
    run = tmp_path / "run"
    shutil.copytree(tiny_base, run / "base")
    base, _ = load_base(str(run / "base"), quantization="none")
    add_lora(base, TrialConfig(lora="first"), seed=0).save_pretrained(str(run / "best"))
    (run / "best" / "metrics.json").write_text(json.dumps(METRICS))
    change(run / "best" / "adapter_config.json", base_model_name_or_path="../base")
    return run


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("named", ["../base", "/where/it/was/built/base"])
def test_a_run_can_be_moved_as_a_whole(
    run: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(run / "best" / "adapter_config.json", base_model_name_or_path=named)
    expected = load_adapter(run / "best").rewrite(["the bus was late."])
    moved = run.rename(run.with_name("mit räum [x]"))
    assert load_adapter(moved / "best").rewrite(["the bus was late."]) == expected
    monkeypatch.chdir(moved / "best")
    assert load_adapter(Path()).rewrite(["the bus was late."]) == expected
    base = AutoModelForSeq2SeqLM.from_pretrained("../base")
    assert PeftModel.from_pretrained(base, ".")


def test_an_adapter_that_no_search_wrote(run: Path, tmp_path: Path) -> None:
    (run / "best" / "metrics.json").unlink()
    assert load_adapter(run / "best").task_prefix == ""
    assert load_adapter(run / "best", task_prefix="x: ").task_prefix == "x: "
    change(run / "best" / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(UserError, match="does not name the adapter's base: give it with --base-mo"):
        load_adapter(run / "best")
    assert load_adapter(run / "best", base_model=str(run / "base"))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content)


def set_in(name: str, **values: Any) -> Callable[[Path], object]:
    return lambda run: change(run / name, **values)


def remove(*names: str) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        for name in names:
            (run / name).unlink()

    return make


def weights_as_a_pickle(run: Path) -> None:
    (run / "best/adapter_model.safetensors").rename(run / "best/adapter_model.bin")


TOKENIZER = ("base/tokenizer.json", "base/tokenizer_config.json", "base/spiece.model")
CONFIG = "best/adapter_config.json"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "metrics: a list": (
        write("best/metrics.json", b"[]"),
        r"metrics\.json: input should be an obj",
    ),
    "metrics: empty": (write("best/metrics.json", b""), r"metrics\.json: invalid JSON: EOF"),
    "metrics: lacks keys": (write("best/metrics.json", b"{}"), r"settings: field required"),
    "metrics: wrong type": (set_in("best/metrics.json", max_tokens="x"), r"max_tokens: input shou"),
    "adapter: not LoRA": (set_in(CONFIG, peft_type="IA3"), r"peft_type: input should be 'LORA'"),
    "adapter: wrong type": (set_in(CONFIG, r="x"), r"adapter_config\.json: r: input should"),
    "adapter: unknown bias": (
        set_in(CONFIG, bias="some"),
        r"adapter_config\.json: bias: input should",
    ),
    "adapter: a pickle": (weights_as_a_pickle, r"has no adapter_model\.safetensors"),
    "adapter: damaged": (write("best/adapter_model.safetensors", b"x" * 99), r"is damaged: copy"),
    "adapter: other shapes": (set_in(CONFIG, r=3), r"was made for another base than .*base: give"),
    "adapter: other layers": (set_in(CONFIG, target_modules=["no"]), r"was made for another base"),
    "base: a list": (write("base/config.json", b"[]"), r"base/config\.json is damaged: it must be"),
    "base: cut short": (write("base/tokenizer.json", b'{"a'), r"tokenizer\.json is damaged"),
    "base: lacks keys": (write("base/config.json", b"{}"), r"must be the whole folder .*model_typ"),
    "base: wrong type": (
        set_in("base/config.json", d_model="x"),
        r"must be the whole folder .*d_m",
    ),
    "base: other shapes": (
        set_in("base/config.json", d_ff=8),
        r"weights have other shapes than it",
    ),
    "base: no weights": (remove("base/model.safetensors"), r"must be the whole folder .*no file"),
    "base: no tokenizer": (remove(*TOKENIZER), r"is no checkpoint: .* a tokenizer"),
    "base: gone": (lambda run: shutil.rmtree(run / "base"), r"neither at .*: give its folder with"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_or_does_not_fit_is_named(run: Path, damage: str) -> None:
    make, message = DAMAGE[damage]
    make(run)
    with pytest.raises(UserError, match=message):
        load_adapter(run / "best")


def test_an_adapter_for_another_base(run: Path, tmp_path: Path, tiny_base: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "other")
    another_base().save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"was made for another base than .*other"):
        load_adapter(run / "best", base_model=str(tmp_path / "other"))


def test_what_the_adapter_brings_is_not_given_again(run: Path) -> None:
    with pytest.raises(UserError, match="brings its own, 'detoxify: ': leave --task-prefix out"):
        load_adapter(run / "best", task_prefix="x: ")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:1", ""])
def test_a_device_that_is_not_there_is_said_before_anything_is_read(
    device: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"device '.*': this machine has cpu"):
        load_adapter(tmp_path / "nothing", device=device)
