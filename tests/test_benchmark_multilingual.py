"""benchmarks/multilingual.py: the page on small data."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.errors import UserError


@pytest.fixture(scope="module")
def command() -> Any:
    file = Path(__file__).parents[1] / "benchmarks" / "multilingual.py"
    spec = importlib.util.spec_from_file_location("benchmark_multilingual", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_every_system_and_language_without_the_place_of_the_data(
    command: Any, tmp_path: Path
) -> None:
    rows = [
        {"toxic_sentence": p.source, "neutral_sentence": list(p.references), "lang": p.language}
        for p in embedded_pairs()[:25] + embedded_pairs()[-25:]
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "words").mkdir()
    for language in ("en", "es"):
        entries = "\n".join(sorted(embedded_lexicon().entries(language)))
        (tmp_path / "words" / f"{language}.txt").write_text(entries, encoding="utf-8")
    out = tmp_path / "page.md"
    arguments = [str(tmp_path / "pairs.jsonl"), "--lexicon", str(tmp_path / "words")]
    assert command.main([*arguments, "--out", str(out)]) == 0
    page = out.read_text()
    assert "`python benchmarks/multilingual.py pairs.jsonl --lexicon words --seed 0`" in page
    assert str(tmp_path) not in page
    for name in ("duplicate", "delete", "reference"):
        assert len(re.findall(rf"\| {name} \| (en|es) \| 25 \| \d\.\d{{3}} \| ", page)) == 2
        assert f"| {name} | **mean** | 50 | **" in page
    assert "**What it is not:** the official classifier" in page
    with pytest.raises(UserError, match="no such file"):
        command.main([str(tmp_path / "gone.tsv"), "--lexicon", str(tmp_path / "words")])
