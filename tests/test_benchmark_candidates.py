"""benchmarks/candidates.py: the page on a tiny run."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError


@pytest.fixture(scope="module")
def command() -> Any:
    file = Path(__file__).parents[1] / "benchmarks" / "candidates.py"
    spec = importlib.util.spec_from_file_location("benchmark_candidates", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder: Path, base_folder: Path, data: Path) -> None:
    """What a search leaves, with an untrained adapter and without scorers."""
    from detox_tune.model.base import load_base
    from detox_tune.model.lora import add_lora

    base, _ = load_base(str(base_folder), quantization="none")
    add_lora(base, TrialConfig(lora="first"), seed=0).save_pretrained(str(folder / "best"))
    metrics = {
        "quantization": "none",
        "settings": {"task_prefix": ""},
        "max_tokens": 8,
        "beams": 2,
    }
    (folder / "best" / "metrics.json").write_text(json.dumps(metrics))
    config = SearchConfig(name="tiny", data=str(data), base_model=str(base_folder))
    record = {"search": config.model_dump(), "space": {}, "versions": {}, "data": {}}
    (folder / "search.json").write_text(json.dumps(record))


def test_the_page_has_a_row_for_each_count(
    command: Any, tmp_path: Path, tiny_base: Path, pairs_file: Path
) -> None:
    from detox_tune.data.lexicon import Lexicon
    from detox_tune.data.pairs import load_pairs
    from detox_tune.evaluation.scorers import load_scorers
    from detox_tune.evaluation.stored_scorers import write_scorers

    run, page = tmp_path / "tiny-run", tmp_path / "page.md"
    write_run(run, tiny_base, pairs_file)
    arguments = [str(run), "--counts", "2", "3", "--out", str(page)]
    with pytest.raises(UserError, match=r"no best/scorers.json: give the folder of a newer search"):
        command.main(arguments)
    lexicon = Lexicon({"en": ["damn"]})
    pairs = load_pairs(str(pairs_file)).pairs
    scorers = load_scorers("embedded", pairs, lexicon, seed=0, device="cpu")
    write_scorers(run / "best" / "scorers.json", scorers, lexicon)
    assert command.main(arguments) == 0
    text = page.read_text()
    assert "`python benchmarks/candidates.py tiny-run --counts 2 3`" in text
    assert str(tmp_path) not in text
    row = r" \| (0\.\d{3} \| ){5}0\.\d{3}-0\.\d{3} \| \d+\.\d \| \d+\.\d \|"
    for name in ("greedy", "as the run: 2 beams", "best of 2", "best of 3"):
        assert len(re.findall(rf"\| {name}{row}", text)) == 1
