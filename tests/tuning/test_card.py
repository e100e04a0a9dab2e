"""The card of an exported adapter: its metadata, and that its commands and its code run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from detox_tune.config import SearchConfig
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.adapter_files import Metrics
from detox_tune.evaluation.adapters import load_adapter
from detox_tune.evaluation.collapse import without_specials
from detox_tune.model.base import Quantization
from detox_tune.tuning.card import EXAMPLE, model_card, public_name, usage, with_usage
from tests.exported_run import exported_run

ROOT = Path(__file__).resolve().parents[2]


def run_in(folder: Path, *arguments: str) -> str:
    """What Python prints."""
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_commands_and_code_of_a_card_run_where_it_is(
    quantization: Quantization, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    best = exported_run(tmp_path / "run", tiny_base, quantization=quantization)
    card = ModelCard.load(best / "README.md")
    [python] = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    [line] = re.findall(r"^detox-tune (.+)$", card.text, re.MULTILINE)
    from_shell = run_in(best, "-m", "detox_tune", *shlex.split(line))
    [expected] = load_adapter(best).rewrite([EXAMPLE])
    assert from_shell == f"{expected.text}\n"
    from_python = without_specials(run_in(best, "-c", python))
    # in 4 bits, other kernels may round a random model to another token
    assert from_python == expected.text if quantization == "none" else from_python


def card_of(best: Path, **settings: str) -> ModelCard:
    metrics = json.loads((best / "metrics.json").read_text())
    metrics["base_model"] = public_name(settings.get("base_model", "pocket"))
    pairs = [Pair("a", ("b",), language) for language in ("es", "en", "es")]
    return model_card(metrics, SearchConfig(name="small", **settings), pairs)


@pytest.fixture(scope="module")
def best(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_run(tmp_path_factory.mktemp("runs") / "run", tiny_base)


def test_the_metadata_name_what_the_hub_has(best: Path) -> None:
    named = {"base_model": "google/mt5-base", "data": "textdetox/multilingual_paradetox"}
    card = card_of(best, **named)
    metadata = ModelCard(str(card)).data.to_dict()
    [index] = metadata.pop("model-index")
    assert metadata == {
        "base_model": "google/mt5-base",
        "datasets": ["textdetox/multilingual_paradetox"],
        "language": ["en", "es"],
        "library_name": "peft",
        "metrics": ["chrf"],
        "tags": ["text-detoxification", "lora", "detox_tune"],
    }
    [results] = index["results"]
    assert results["dataset"] == {
        "type": "textdetox/multilingual_paradetox",
        "name": "textdetox/multilingual_paradetox, test split of the search (3 sentences)",
    }
    measured = {metric["type"]: metric["value"] for metric in results["metrics"]}
    assert measured == dict.fromkeys(("j", "sta", "sim", "fl", "copy_rate"), 0.1235)
    assert 'base = "google/mt5-base"' in card.text


def test_what_only_this_machine_has_is_in_no_metadata(best: Path) -> None:
    card = card_of(best, data=str(best), base_model=str(best))
    metadata = card.data.to_dict()
    assert not {"base_model", "datasets", "license"} & metadata.keys()
    assert str(best.parent) not in str(card_of(best, data=str(best)))
    assert "best (local), test split" in str(card)
    assert "detox_tune's embedded corpus, test split" in str(card_of(best))


def test_usage_is_replaced_where_it_stands_or_added() -> None:
    metrics = Metrics.model_validate(
        {"settings": {"task_prefix": ""}, "quantization": "none", "max_tokens": 9}
    )
    here, there = usage("a/b", metrics), usage("a/b", metrics, "me/detox")
    assert "Decode greedily, at most 9 tokens" in here
    assert "task prefix" not in here
    card = f"# Title\n\n{here}## Scores\n\ngood\n"
    assert with_usage(card, there) == f"# Title\n\n{there}## Scores\n\ngood\n"
    assert with_usage("# Title\n", there) == f"# Title\n\n{there}"
