import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detox_tune.evaluation.fitted import (
    FEW_FOLDS,
    FOLDS,
    MIN_PAIRS,
    MOST_PAIRS,
    FittedScorers,
    cross_fitted,
    enough_to_cross_fit,
    fitted_on_pairs,
    fitted_on_texts,
)
from detox_tune.evaluation.stacked import StackedClassifier
from detox_tune.evaluation.systems import baselines, score_system

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.data.text import sentence_key
from detox_tune.data.toxicity import ToxicityData, load_toxicity_data
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier

PAIRS = embedded_pairs()[:60] + embedded_pairs()[-60:]
LEXICONS = dict.fromkeys(("en", "es"), embedded_lexicon())


def cross_fit(pairs: Sequence[Pair], **options: Any) -> FittedScorers:
    return cross_fitted(pairs, lexicons=LEXICONS, seed=0, **options)


def seen_by_fits(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Sets that fill up with the texts of each classifier fitted from now on."""
    seen: list[set[str]] = []
    fit = NeutralityClassifier.fit

    def spy(toxic: list[str], neutral: list[str], *, seed: int) -> NeutralityClassifier:
        seen.append({*toxic, *neutral})
        return fit(toxic, neutral, seed=seed)

    monkeypatch.setattr(NeutralityClassifier, "fit", spy)
    return seen


def test_no_text_is_scored_by_a_classifier_that_has_seen_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first two share a reference; spelt another way it is still the same text.
    shared = Pair(PAIRS[1].source, (PAIRS[0].references[0].upper(),), "en")
    pairs = [PAIRS[0], shared, *PAIRS[2:]]
    seen: list[set[str]] = []
    fit = StackedClassifier.fit

    def spy(fitted_on: Sequence[Pair], *arguments: Any, **options: Any) -> StackedClassifier:
        seen.append({sentence_key(t) for p in fitted_on for t in (p.source, *p.references)})
        return fit(fitted_on, *arguments, **options)

    monkeypatch.setattr(StackedClassifier, "fit", spy)
    parts = cross_fit(pairs).parts
    assert sorted(place for places, _ in parts for place in places) == list(range(len(pairs)))
    assert len(parts) == len(seen) == 2 * FOLDS
    for (places, _), texts in zip(parts, seen, strict=True):
        here = [pairs[place] for place in places]
        assert len(here) == 6
        assert len({pair.language for pair in here}) == 1
        assert not texts & {sentence_key(t) for p in here for t in (p.source, *p.references)}


def test_cross_fitting_is_repeatable_and_tells_toxic_from_neutral() -> None:
    first, second = cross_fit(PAIRS), cross_fit(PAIRS)
    assert first.held_out == second.held_out
    assert [row["language"] for row in first.held_out] == ["en", "es"]
    for row in first.held_out:
        assert row["auc"] > 0.85
        assert row["log_loss"] < 0.5  # always saying one half has .69
        assert row["n"] == sum(
            1 + len(p.references) for p in PAIRS if p.language == row["language"]
        )
    for (places, scorers), (_, again) in zip(first.parts, second.parts, strict=True):
        sources = [PAIRS[i].source for i in places]
        assert scorers.neutral(sources).tolist() == again.neutral(sources).tolist()
    assert first.fitted_on == "fitted on the other folds of the references, the lexicon"


def test_what_is_held_out_does_not_look_better_than_it_is() -> None:
    # Sources and references drawn by lot from the same words: nothing can be learned.
    generator = np.random.default_rng(0)
    drawn = [" ".join(generator.choice(list("abcdefgh"), 6)) for _ in range(200)]
    pairs = [Pair(s, (r,), "en") for s, r in zip(drawn[::2], drawn[1::2], strict=True)]
    [row] = cross_fit(pairs).held_out
    assert 0.35 < row["auc"] < 0.65
    assert row["log_loss"] > 0.65


def test_annotated_and_labelled_texts_help_unless_they_are_scored(tmp_path: Path) -> None:
    pairs = embedded_pairs()[:40]
    others = embedded_pairs()[100:160]
    spans = tmp_path / "en.jsonl"
    rows = [
        {
            "Sentence": p.source,
            "spans": [p.source[a:b] for a, b in LEXICONS["en"].spans(p.source, "en")],
        }
        for p in [*others, *pairs]
    ]
    spans.write_text("".join(json.dumps(row) + "\n" for row in rows if row["spans"]))
    texts = [text for p in [*others, *pairs[:1]] for text in (p.source, p.references[0])]
    labelled = ToxicityData(texts, [True, False] * 61, ["en"] * 122, (), 122)
    plain = cross_fitted(pairs, lexicons={"en": Lexicon({"en": ()})}, seed=0)
    fitted = cross_fitted(
        pairs, lexicons={"en": Lexicon({"en": ()})}, spans=str(spans), labelled=labelled, seed=0
    )
    annotated = sum(bool(row["spans"]) for row in rows[:60])
    scored = {sentence_key(text) for p in pairs for text in (p.source, *p.references)}
    left = sum(sentence_key(text) not in scored for text in texts)
    assert left < len(texts)
    assert fitted.fitted_on == (
        f"fitted on the other folds of the references, {annotated} annotated sentences, "
        f"{left} labelled texts"
    )
    assert fitted.held_out[0]["log_loss"] < plain.held_out[0]["log_loss"]


def test_a_large_language_has_fewer_folds_and_fits_on_some_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def count(fitted_on: Sequence[Pair], *_: Any, **__: Any) -> Any:
        sizes.append(len(fitted_on))
        fake = types.SimpleNamespace(neutral_probability=lambda texts: np.full(len(texts), 0.5))
        return fake

    monkeypatch.setattr(StackedClassifier, "fit", count)
    pairs = [Pair(f"bad {n}", (f"good {n}",), "en") for n in range(2 * MOST_PAIRS)]
    assert len(cross_fit(pairs).parts) == FEW_FOLDS
    assert sizes == [MOST_PAIRS] * FEW_FOLDS
    assert len(cross_fit(pairs[:MOST_PAIRS]).parts) == FOLDS


def test_too_few_references() -> None:
    few = [*PAIRS[: MIN_PAIRS - 1], *PAIRS[-MIN_PAIRS:]]
    assert not enough_to_cross_fit(few)
    with pytest.raises(
        UserError, match=r"^19 references in language 'en': .* at least 20; give --t"
    ):
        cross_fit(few)
    enough = PAIRS[:MIN_PAIRS]
    assert enough_to_cross_fit(enough)
    assert len(cross_fit(enough).parts) == FOLDS


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
    scorers = fitted_on_texts(load_toxicity_data(path), scored, seed=0)
    keys = {sentence_key(text) for pair in scored for text in (pair.source, *pair.references)}
    kept = sum(sentence_key(text) not in keys for text, _ in rows)
    assert kept < len(rows)
    assert scorers.fitted_on.startswith(f"{kept} labelled texts; {len(rows) - kept} left out")
    assert [row["language"] for row in scorers.held_out] == ["en"]
    assert {"auc", "f1"} <= set(scorers.held_out[0])
    [(places, embedded)] = scorers.parts
    assert list(places) == [0, 1, 2, 3]
    assert embedded.neutral(["what a fine day"]).shape == (1,)


def test_on_real_pairs_copies_score_near_zero_and_the_reference_highest(shared_data: Path) -> None:
    folder = shared_data / "multilingual_paradetox"
    pairs = load_pairs(str(folder), languages=["en"], allow_bad_rows=True).pairs
    lexicon = Lexicon.load(shared_data / "multilingual_toxic_lexicon", ["en"])
    fitted = cross_fitted(pairs, lexicons={"en": lexicon}, seed=0)
    [row] = fitted.held_out
    assert row["auc"] > 0.96
    assert row["ece"] < 0.06
    j = {
        name: score_system(system, pairs, lexicons={"en": lexicon}, parts=fitted.parts)[:, 0].mean()
        for name, system in baselines(pairs, {"en": lexicon}).items()
    }
    assert j["duplicate"] < 0.1 < j["delete"] < j["reference"]
