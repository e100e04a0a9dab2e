"""Fixtures that several rooms' tests share."""

import dataclasses
import json
from pathlib import Path

import pytest

from detox_tune.cli import quiet_environment
from detox_tune.data.pairs import Pair

# Commands set Ray's mode for their process; here all tests share one, so it is set before a room's
# conftest imports Ray.
quiet_environment()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data beside the repository, or a skip that says what is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the public data sets in ../shared/data, which are not part of the tree")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pocket base that is hardly trained: a real checkpoint with a real tokenizer, in seconds."""
    from detox_tune.data.embedded import embedded_sentences
    from detox_tune.model.pocket import pocket_base

    cache = tmp_path_factory.mktemp("bases")
    return pocket_base(embedded_sentences()[:1500], vocabulary=400, steps=3, seed=0, cache=cache)


@pytest.fixture(scope="session")
def english_pairs() -> list[Pair]:
    """Eighty pairs whose references hold no toxic word, and that belong to no split yet."""
    from detox_tune.data.embedded import embedded_lexicon, embedded_pairs

    lexicon = embedded_lexicon()
    english = (pair for pair in embedded_pairs() if pair.language == "en")
    clean = [pair for pair in english if not lexicon.spans(pair.references[0], "en")]
    return [
        dataclasses.replace(pair, references=pair.references[:1], split=None) for pair in clean[:80]
    ]


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory, english_pairs: list[Pair]) -> Path:
    """The same as a file."""
    lines = [
        json.dumps({"toxic": p.source, "neutral": p.references[0], "lang": p.language})
        for p in english_pairs
    ]
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
