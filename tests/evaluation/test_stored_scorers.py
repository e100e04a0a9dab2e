"""scorers.json: what a run was scored with, written and read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.adapter_files import SCORERS_FILE
from detox_tune.evaluation.official import OfficialScorers
from detox_tune.evaluation.scorers import load_scorers
from detox_tune.evaluation.stored_scorers import read_scorers, write_scorers

ALL = embedded_pairs()
PAIRS = [*ALL[:40], *ALL[-40:]]  # English and Spanish


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best")
    scorers = load_scorers("embedded", PAIRS, embedded_lexicon(), seed=0, device="cpu")
    write_scorers(folder / SCORERS_FILE, scorers, embedded_lexicon())
    return folder


def test_probabilities_are_the_same_to_the_bit(folder: Path) -> None:
    others = [*ALL[40:140], *ALL[-140:-40]]
    texts = [text for pair in others for text in (pair.source, pair.references[0])]
    pairs = [pair for pair in others for _ in range(2)]
    fitted = load_scorers("embedded", PAIRS, embedded_lexicon(), seed=0, device="cpu")
    stored = read_scorers(folder)
    assert stored is not None
    read = stored.scorers(device="cpu").neutral(texts, pairs)
    assert (read == fitted.neutral(texts, pairs)).all()
    assert stored.languages == ("en", "es")
    for language in stored.languages:
        assert stored.lexicon().entries(language) == embedded_lexicon().entries(language)


def test_a_folder_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_scorers(tmp_path) is None


def test_official_scorers_are_named_and_not_stored(tmp_path: Path) -> None:
    official = OfficialScorers.__new__(OfficialScorers)  # loads nothing
    write_scorers(tmp_path / SCORERS_FILE, official, embedded_lexicon())
    stored = read_scorers(tmp_path)
    assert stored is not None
    assert (stored.name, stored.classifiers) == ("official", {})
    assert stored.languages == ("en", "es")


def change(*keys: str, by: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def changed(content: dict[str, Any]) -> None:
        *outer, last = keys
        for key in outer:
            content = content[key]
        content[last] = by(content[last])

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("classifiers", "en", "weights", by=lambda w: w[1:]), "as many as terms"),
        (
            change("classifiers", "en", "words", "idf", by=lambda w: w[1:]),
            "one idf for each",
        ),
        (
            change("classifiers", "en", "words", "terms", by=lambda t: [t[1], *t[1:]]),
            "terms must be different",
        ),
        (change("classifiers", "en", "means", by=lambda m: m[:2]), "means: list should have"),
        (change("classifiers", "en", "spreads", by=lambda _: [1, 0, 1]), "greater than 0"),
        (change("classifiers", "es", "intercept", by=lambda _: 1e999), "finite number"),
        (change("entries", by=lambda e: {"en": e["en"]}), "languages of the classifiers"),
        (change("name", by=lambda _: "other"), "'embedded' or 'official'"),
    ],
)
def test_a_damaged_file_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = json.loads((folder / SCORERS_FILE).read_text())
    damage(content)
    (tmp_path / SCORERS_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{SCORERS_FILE}.*{message}"):
        read_scorers(tmp_path)


def test_a_language_that_was_not_fitted_is_refused(folder: Path) -> None:
    stored = read_scorers(folder)
    assert stored is not None
    with pytest.raises(UserError, match=r"language 'fr'.*pairs in en, es only"):
        stored.scorers(device="cpu").neutral(["bonjour"], [Pair("salut", (), "fr")])
