from types import SimpleNamespace

import numpy as np
import pytest

from detox_tune.data.lexicon import Lexicon
from detox_tune.evaluation.evidence import Evidence, Labelled, Occurrence

LEXICON = Lexicon({"en": ("idiot", "stupid", "moron", "out of order")})
LABELLED = Labelled(
    ["you idiot", "what nonsense", "nonsense again"],
    ["what a fine table", "the weather is kind", "order a table"],
    SimpleNamespace(neutral_probability=lambda texts: np.full(len(texts), 0.5)),
)


def last_of_lexicon(evidence: Evidence, words: list[str]) -> list[float]:
    """The last feature of each word before those of its context: its likeness."""
    rows = evidence.word_rows([Occurrence(word, "", "") for word in words])
    return rows[:, [rows.shape[1] - (1 << 17) - 1]].toarray()[:, 0].tolist()


def test_words_spelt_like_the_lexicon_are_told_from_those_of_neutral_texts() -> None:
    inflected, compound, unlike, known = last_of_lexicon(
        Evidence("en", LEXICON, labelled=LABELLED), ["idiotic", "stupidhead", "tables", "moron"]
    )
    assert min(inflected, compound) > 0 > unlike
    assert known == 0  # one that the lexicon knows is marked as such


@pytest.mark.parametrize(
    ("lexicon", "neutral"),
    [(Lexicon({"en": ()}), LABELLED.neutral), (Lexicon({"en": ("out of order",)}), ["fine"]),
     (LEXICON, ["idiot"])],
)  # fmt: skip
def test_nothing_to_compare_spellings_with(lexicon: Lexicon, neutral: list[str]) -> None:
    labelled = Labelled(LABELLED.toxic, neutral, LABELLED.classifier)
    evidence = Evidence("en", lexicon, labelled=labelled)
    columns = evidence.word_rows([Occurrence("idiotic", "", "")]).shape[1]
    full = Evidence("en", LEXICON, labelled=LABELLED)
    assert columns == full.word_rows([Occurrence("idiotic", "", "")]).shape[1] - 1
    assert evidence.ngram_log_odds is not None
    assert np.isfinite(evidence.ngram_log_odds).all()


def test_log_odds_belong_to_the_columns_of_the_counts() -> None:
    evidence = Evidence("en", LEXICON, labelled=LABELLED)
    odds = evidence.ngram_log_odds
    assert odds is not None
    _, phrases = evidence.ngram_counts(["Nonsense!", "table"])
    toxic, neutral = (odds[-phrases.shape[1] :][row.indices] for row in phrases)
    assert toxic.tolist() == pytest.approx([np.log(3)])  # in two toxic texts, in no neutral one
    assert neutral.tolist() == pytest.approx([-np.log(3)])
    assert Evidence("en", LEXICON).ngram_log_odds is None
