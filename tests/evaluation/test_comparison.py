"""Systems side by side: baselines, means per language, the table; labels of dressed-up copies."""

import io
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.comparison import (
    BASELINES,
    comparison_table,
    paired_differences,
    score_baselines,
    summarise,
)
from detox_tune.evaluation.scorers import EmbeddedScorers
from detox_tune.evaluation.scores import SCORES, score_outputs


class LengthClassifier:
    """Short texts are neutral: made up, but different for every text."""

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([1 / (1 + len(text)) for text in texts])


CLASSIFIERS: Any = dict.fromkeys(("en", "de", "ru", "hi", "zh"), LengthClassifier())
SCORERS = EmbeddedScorers(CLASSIFIERS)
LEXICON = Lexicon({"en": ["idiot", "stupid"], "de": ()})
PAIRS = [
    Pair("you are an idiot today", ("you are not clever today", "you are wrong today"), "en"),
    Pair("du bist ein Depp, wirklich", ("du irrst dich",), "de"),
    Pair("what a stupid idea", ("what a poor idea",), "en"),
]
OUTPUTS = ["You are an idiot, today!", "<extra_id_0>", "what an idea"]
LANGUAGES = [pair.language for pair in PAIRS]


@pytest.fixture(scope="module")
def scored() -> dict[str, pd.DataFrame]:
    system = score_outputs(OUTPUTS, PAIRS, lexicon=LEXICON, scorers=SCORERS)
    return {"system": system, **score_baselines(PAIRS, lexicon=LEXICON, scorers=SCORERS)}


def test_baselines_delete_only_where_there_are_words(scored: dict[str, pd.DataFrame]) -> None:
    assert tuple(scored) == ("system", *BASELINES)
    assert list(scored["delete"].index) == [0, 2]
    deleted = score_outputs(
        ["you are an today", "what a idea"],
        [PAIRS[0], PAIRS[2]],
        lexicon=LEXICON,
        scorers=SCORERS,
    )
    assert scored["delete"]["j"].tolist() == deleted["j"].tolist()
    nothing = Lexicon({"en": (), "de": ()})
    assert list(score_baselines(PAIRS, lexicon=nothing, scorers=SCORERS)) == [
        "duplicate",
        "reference",
    ]


def test_a_duplicate_is_worth_little_in_2024_and_much_in_2025(
    scored: dict[str, pd.DataFrame],
) -> None:
    duplicate, reference = scored["duplicate"], scored["reference"]
    assert (duplicate["copy_rate"] == 1).all()
    assert (duplicate["edit_recall"] == 0).all()
    assert (reference["edit_recall"] == 1).all()
    assert (reference["fl"] == 1).all()
    assert (duplicate["j_2025"] > duplicate["j"]).all()


def test_summary_is_the_mean_over_samples_and_per_language(
    scored: dict[str, pd.DataFrame],
) -> None:
    frame = scored["system"]
    summary = summarise(frame, LANGUAGES, seed=0)
    assert list(summary["languages"]) == ["de", "en"]
    assert (summary["overall"]["n"], summary["languages"]["en"]["n"]) == (3, 2)
    assert set(summary["overall"]) == {"n", *SCORES}
    for name in SCORES:
        overall = summary["overall"][name]
        assert overall["value"] == pytest.approx(np.nanmean(frame[name]))
        assert overall["low"] <= overall["value"] <= overall["high"]
        english = summary["languages"]["en"][name]["value"]
        assert english == pytest.approx(np.mean(frame[name][[0, 2]]))
    # the mean of languages weighs German, with its one sentence, as much as English
    of_languages = [summary["languages"][code]["j"]["value"] for code in ("de", "en")]
    assert summary["mean_of_languages"]["j"] == pytest.approx(np.mean(of_languages))
    assert summary["mean_of_languages"]["j"] != pytest.approx(summary["overall"]["j"]["value"])
    nothing = {"value": None, "low": None, "high": None}
    assert summary["languages"]["de"]["toxic_retention"] == nothing


def test_a_system_without_some_languages_has_no_overall(scored: dict[str, pd.DataFrame]) -> None:
    summary = summarise(scored["delete"], LANGUAGES, seed=0)
    assert set(summary) == {"languages"}
    assert list(summary["languages"]) == ["en"]


def test_table(scored: dict[str, pd.DataFrame]) -> None:
    scored["system"]["j_2025"] = np.nan  # as where a set of scorers has no such model
    summaries = {name: summarise(frame, LANGUAGES, seed=0) for name, frame in scored.items()}
    output = io.StringIO()
    Console(file=output, width=160).print(comparison_table(summaries, "embedded"))
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert "embedded scorers" in output.getvalue()
    assert lines[1][:5] == ["language", "system", "n", "j", "STA"]
    rows = [line[1:] if line[0] in ("de", "en", "all") else line for line in lines[2:]]
    assert [row[0] for row in rows] == [
        *("system", "duplicate", "reference"),
        *("system", "duplicate", "delete", "reference"),
        *("system", "duplicate", "reference"),
    ]
    assert rows[4][1] == "2"
    assert rows[4][-4:] == ["1.000", ".342-1.000", "1.000", ".342-1.000"]  # Wilson's, of 2
    assert "-" in rows[0]


# --- copies and their labels, with a lexicon, with spans, with neither -----------------------

MIDDLE = {
    "en": ("I think that this idiot should go home", "idiot"),
    "ru": ("Мне кажется этот дурак должен идти домой", "дурак"),
    "hi": ("मुझे लगता है यह मूर्ख घर जाए", "मूर्ख"),
    "zh": ("我觉得这个笨蛋应该回家", "笨蛋"),
}
REFERENCE = "something else entirely"


def known_by(knowledge: str, language: str) -> tuple[Pair, Lexicon]:
    """The sentence of a language, its toxic word known to the lexicon, by a span, or to nobody."""
    source, toxic = MIDDLE[language]
    start = source.index(toxic)
    spans = ((start, start + len(toxic)),) if knowledge == "spans" else ()
    entries = [toxic] if knowledge == "lexicon" else []
    return Pair(source, (REFERENCE,), language, spans), Lexicon({language: entries})


def labels_of(output: str, pair: Pair, lexicon: Lexicon) -> dict[str, Any]:
    frame = score_outputs([output], [pair], lexicon=lexicon, scorers=SCORERS)
    row: dict[str, Any] = frame.loc[0].to_dict()
    return row


CLOTHES = st.lists(
    st.sampled_from(
        [
            str.upper,
            str.title,
            lambda text: "  ".join(text.split(" ")) + " ",
            lambda text: text.replace(" ", ", ", 1) + "!",
            lambda text: f"«{text}»…",
            lambda text: unicodedata.normalize("NFD", text),
            lambda text: unicodedata.normalize("NFKC", text),
            lambda text: text[:3] + "\u200b" + text[3:],
        ]
    ),
    max_size=5,
)
FRONTS = st.sampled_from(["", "<extra_id_0>", "<EXTRA_ID_0> ", "<pad><extra_id_7>. "])
each_knowledge = pytest.mark.parametrize("knowledge", ["lexicon", "spans", "neither"])
each_language = pytest.mark.parametrize("language", MIDDLE)


@each_knowledge
@each_language
@settings(deadline=None, max_examples=40)
@given(CLOTHES, FRONTS)
def test_a_copy_in_other_clothes_stays_a_copy(
    knowledge: str, language: str, clothes: list[Any], front: str
) -> None:
    pair, lexicon = known_by(knowledge, language)
    output = pair.source
    for change in clothes:
        output = change(output)
    labels = labels_of(front + output, pair, lexicon)
    assert labels["label"] == "copied"
    assert labels["copy_rate"] == labels["exact_copy_rate"] == 1
    assert labels["edit_recall"] == 0
    assert knowledge == "neither" or labels["toxic_retention"] == 1


@each_knowledge
@each_language
@settings(deadline=None, max_examples=40)
@given(CLOTHES)
def test_deleting_the_toxic_word_makes_no_copy(
    knowledge: str, language: str, clothes: list[Any]
) -> None:
    pair, lexicon = known_by(knowledge, language)
    output = " ".join(pair.source.replace(MIDDLE[language][1], "").split())
    for change in clothes:
        output = change(output)
    labels = labels_of(output, pair, lexicon)
    assert labels["copy_rate"] == labels["exact_copy_rate"] == 0
    assert labels["rewritten"] == 1
    retention = labels["toxic_retention"]
    assert math.isnan(retention) if knowledge == "neither" else retention == 0


def test_paired_differences_against_a_slow_bootstrap() -> None:
    generator = np.random.default_rng(0)
    first = pd.DataFrame({"j": generator.uniform(size=40)})
    second = pd.DataFrame({"j": first["j"] + generator.normal(0.05, 0.05, 40)})
    (found,) = paired_differences({"a": first, "b": second}, seed=0)
    drawn = [generator.integers(40, size=40) for _ in range(4000)]
    means = [second["j"][places].mean() - first["j"][places].mean() for places in drawn]
    low, high = np.quantile(means, (0.025, 0.975))
    assert (found["system"], found["than"]) == ("b", "a")
    assert found["value"] == pytest.approx(second["j"].mean() - first["j"].mean())
    assert found["low"] == pytest.approx(low, abs=4e-3)
    assert found["high"] == pytest.approx(high, abs=4e-3)
    # drawn apart, the sentences themselves would make the interval several times as wide
    apart = [second["j"].sample(40, replace=True, random_state=n).mean() for n in range(400)]
    assert np.std(apart) > 3 * (found["high"] - found["low"]) / 4
