from pathlib import Path

import numpy as np
import pytest

from detox_tune.data.embedded import embedded_pairs
from detox_tune.data.pairs import Pair
from detox_tune.data.text import sentence_key
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.fitted import cross_fitted, fitted_on_pairs, fitted_on_texts

PAIRS = embedded_pairs()[:60] + embedded_pairs()[-60:]


def seen_by_fits(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Sets that fill up with the texts of each classifier fitted from now on."""
    seen: list[set[str]] = []
    fit = NeutralityClassifier.fit

    def spy(toxic: list[str], neutral: list[str], *, seed: int) -> NeutralityClassifier:
        seen.append({*toxic, *neutral})
        return fit(toxic, neutral, seed=seed)

    monkeypatch.setattr(NeutralityClassifier, "fit", spy)
    return seen


def test_no_pair_is_scored_by_a_classifier_that_has_seen_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = seen_by_fits(monkeypatch)
    scorers = cross_fitted(PAIRS, seed=0)
    places = [list(part) for part, _ in scorers.parts]
    assert sorted(place for part in places for place in part) == list(range(len(PAIRS)))
    assert len({len(part) for part in places}) == 1
    for part, texts in zip(places, seen, strict=True):
        assert not texts & {PAIRS[i].source for i in part}
        languages = [PAIRS[i].language for i in part]
        assert languages.count("en") == languages.count("es") == 20
    assert "3-fold" in scorers.fitted_on


def test_cross_fitting_is_repeatable_and_tells_toxic_from_neutral() -> None:
    first, second = cross_fitted(PAIRS, seed=0), cross_fitted(PAIRS, seed=0)
    differences = []
    for (places, scorers), (_, again) in zip(first.parts, second.parts, strict=True):
        sources = [PAIRS[i].source for i in places]
        assert scorers.neutral(sources).tolist() == again.neutral(sources).tolist()
        references = [PAIRS[i].references[0] for i in places]
        differences += list(scorers.neutral(references) - scorers.neutral(sources))
    assert np.mean(differences) > 0.2


def test_too_few_references() -> None:
    with pytest.raises(UserError, match=r"^19 references: .* at least 20; give --toxicity-data or"):
        cross_fitted(PAIRS[:19], seed=0)
    assert len(cross_fitted(PAIRS[:20], seed=0).parts) == 3


def test_training_pairs_that_are_scored_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_by_fits(monkeypatch)
    shouted = [Pair(f"{PAIRS[0].source.upper()} !", ("fine",), "en")]
    scorers = fitted_on_pairs([*PAIRS[1:40], *shouted], PAIRS[:5], seed=0)
    [texts] = seen
    assert PAIRS[5].source in texts
    keys = {sentence_key(pair.source) for pair in PAIRS[:5]}
    assert not keys & set(map(sentence_key, texts))
    assert scorers.fitted_on == "35 pairs; 5 left out, as they are scored here"


def test_labelled_texts_that_are_scored_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "en.tsv"
    rows = [(pair.source, 1) for pair in PAIRS[:60]]
    rows += [(text, 0) for pair in PAIRS[:60] for text in pair.references]
    path.write_text("text\ttoxic\n" + "".join(f"{text}\t{toxic}\n" for text, toxic in rows))
    scored = PAIRS[:4]
    scorers = fitted_on_texts(path, scored, seed=0)
    keys = {sentence_key(text) for pair in scored for text in (pair.source, *pair.references)}
    kept = sum(sentence_key(text) not in keys for text, _ in rows)
    assert kept < len(rows)
    assert scorers.fitted_on.startswith(f"{kept} labelled texts; {len(rows) - kept} left out")
    assert [row["language"] for row in scorers.held_out] == ["en"]
    assert {"auc", "f1"} <= set(scorers.held_out[0])
    [(places, embedded)] = scorers.parts
    assert list(places) == [0, 1, 2, 3]
    assert embedded.neutral(["what a fine day"]).shape == (1,)
