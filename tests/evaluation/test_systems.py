import io
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from detox_tune.evaluation.systems import (
    SCORES,
    System,
    baselines,
    score_system,
    summarise,
    systems_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.collapse import OutputLabel
from detox_tune.evaluation.edits import edit_recall, toxic_retention
from detox_tune.evaluation.pan import EmbeddedPanScorers, pan_scores


class LengthClassifier:
    """Short texts are neutral: made up, but different for every text."""

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([1 / (1 + len(text)) for text in texts])


SCORERS = EmbeddedPanScorers(LengthClassifier())
LEXICONS = {"en": Lexicon({"en": ["idiot", "stupid"]}), "de": Lexicon({"de": ()})}
PAIRS = [
    Pair("you are an idiot today", ("you are not clever today", "you are wrong today"), "en"),
    Pair("du bist ein Depp, wirklich", ("du irrst dich",), "de"),
    Pair("what a stupid idea", ("what a poor idea",), "en"),
]
OUTPUTS = ["You are an idiot, today!", "<extra_id_0>", "what an idea"]


def scored(system: System, pairs: Sequence[Pair] = PAIRS) -> dict[str, NDArray[np.float64]]:
    parts = [(range(len(pairs)), SCORERS)]
    values_nk = score_system(system, pairs, lexicons=LEXICONS, parts=parts)
    return dict(zip(SCORES, values_nk.T, strict=True))


def test_scores_of_every_sample() -> None:
    values = scored(System(OUTPUTS, range(3)))
    expected = pan_scores(
        OUTPUTS, [p.source for p in PAIRS], [p.references for p in PAIRS], SCORERS
    )
    for name in ("j", "sta", "sim", "fl", "j_2025"):
        assert values[name].tolist() == getattr(expected, name).tolist()
    assert values["copy_rate"].tolist() == values["copied"].tolist() == [1, 0, 0]
    assert values["exact_copy_rate"].tolist() == [1, 0, 0]
    assert values["sentinel"].tolist() == [0, 1, 0]
    assert values["rewritten"].tolist() == [0, 0, 1]
    for i, (output, pair) in enumerate(zip(OUTPUTS, PAIRS, strict=True)):
        assert values["edit_recall"][i] == edit_recall(output, pair)
        retention = toxic_retention(output, pair, LEXICONS[pair.language])
        assert values["toxic_retention"][i] == pytest.approx(retention, nan_ok=True)


def test_parts_have_their_own_scorers_and_keep_the_order() -> None:
    other = EmbeddedPanScorers(NeutralForAll())
    parts = [([2, 0], SCORERS), ([1], other)]
    system = System(["a b", "c", "d e f"], range(3))
    values_nk = score_system(system, PAIRS, lexicons=LEXICONS, parts=parts)
    sta = values_nk[:, SCORES.index("sta")]
    assert sta.tolist() == [1 / 4, 1.0, 1 / 6]


class NeutralForAll:
    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.ones(len(texts))


def test_baselines_delete_only_where_there_are_words() -> None:
    systems = baselines(PAIRS, LEXICONS)
    assert list(systems) == ["duplicate", "delete", "reference"]
    assert list(systems["duplicate"].outputs) == [pair.source for pair in PAIRS]
    assert list(systems["delete"].outputs) == ["you are an today", "what a idea"]
    assert list(systems["delete"].places) == [0, 2]
    assert list(systems["reference"].outputs) == [pair.references[0] for pair in PAIRS]
    empty = {code: Lexicon({code: ()}) for code in ("en", "de")}
    assert list(baselines(PAIRS, empty)) == ["duplicate", "reference"]


def test_a_duplicate_is_worth_little_in_2024_and_much_in_2025() -> None:
    systems = baselines(PAIRS, LEXICONS)
    duplicate = scored(systems["duplicate"])
    assert duplicate["copy_rate"].tolist() == [1, 1, 1]
    assert (duplicate["edit_recall"] == 0).all()
    reference = scored(systems["reference"])
    assert (reference["edit_recall"] == 1).all()
    assert (reference["fl"] == 1).all()
    assert (duplicate["j_2025"] > duplicate["j"]).all()


# --- summaries -------------------------------------------------------------------------------


def summary_of(system: System) -> dict[str, Any]:
    values_nk = score_system(system, PAIRS, lexicons=LEXICONS, parts=[(range(len(PAIRS)), SCORERS)])
    return summarise(values_nk, [pair.language for pair in PAIRS], seed=0)


def test_summary_is_the_mean_over_samples_and_per_language() -> None:
    summary = summary_of(System(OUTPUTS, range(3)))
    values = scored(System(OUTPUTS, range(3)))
    assert list(summary["languages"]) == ["de", "en"]
    assert summary["overall"]["n"] == 3
    assert summary["languages"]["en"]["n"] == 2
    assert set(summary["overall"]) == {"n", *SCORES}
    for name in SCORES:
        overall = summary["overall"][name]
        assert overall["value"] == pytest.approx(np.nanmean(values[name]))
        assert overall["low"] <= overall["value"] <= overall["high"]
        english = summary["languages"]["en"][name]["value"]
        assert english == pytest.approx(np.mean(values[name][[0, 2]]))
    # the mean of languages weighs German, with its one sentence, as much as English
    of_languages = [summary["languages"][code]["j"]["value"] for code in ("de", "en")]
    assert summary["mean_of_languages"]["j"] == pytest.approx(np.mean(of_languages))
    assert summary["mean_of_languages"]["j"] != pytest.approx(summary["overall"]["j"]["value"])


def test_what_no_sample_has_is_none() -> None:
    summary = summary_of(System(OUTPUTS, range(3)))
    nothing = {"value": None, "low": None, "high": None}
    assert summary["languages"]["de"]["toxic_retention"] == nothing


def test_a_system_without_some_languages_has_no_overall() -> None:
    summary = summary_of(baselines(PAIRS, LEXICONS)["delete"])
    assert set(summary) == {"languages"}
    assert list(summary["languages"]) == ["en"]


def test_table() -> None:
    systems = {"system": System(OUTPUTS, range(3)), **baselines(PAIRS, LEXICONS)}
    summaries = {name: summary_of(system) for name, system in systems.items()}
    output = io.StringIO()
    Console(file=output, width=160).print(systems_table(summaries, "embedded"))
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
    assert rows[4][-4:] == ["1.000", "1.000-1.000", "1.000", "1.000-1.000"]


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


def labels_of(output: str, pair: Pair, lexicon: Lexicon) -> dict[str, float]:
    values_nk = score_system(
        System([output], [0]),
        [pair],
        lexicons={pair.language: lexicon},
        parts=[([0], SCORERS)],
    )
    return dict(zip(SCORES, values_nk[0].tolist(), strict=True))


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
    assert labels["copied"] == labels["copy_rate"] == labels["exact_copy_rate"] == 1
    assert labels["edit_recall"] == 0
    assert knowledge == "neither" or labels["toxic_retention"] == 1


@each_knowledge
@each_language
@settings(deadline=None, max_examples=40)
@given(CLOTHES, FRONTS)
def test_deleting_the_toxic_word_makes_no_copy(
    knowledge: str, language: str, clothes: list[Any], front: str
) -> None:
    pair, lexicon = known_by(knowledge, language)
    output = " ".join(pair.source.replace(MIDDLE[language][1], "").split())
    for change in clothes:
        output = change(output)
    labels = labels_of(front + output, pair, lexicon)
    assert labels["copy_rate"] == labels["exact_copy_rate"] == 0
    assert labels["rewritten"] == 1
    retention = labels["toxic_retention"]
    assert math.isnan(retention) if knowledge == "neither" else retention == 0


OUTPUT = st.text(max_size=30) | st.sampled_from(
    ["", "<extra_id_0>", "no " * 9, "I think that this idiot", MIDDLE["en"][0], REFERENCE, "..."]
)


@each_knowledge
@settings(deadline=None)
@given(st.lists(OUTPUT, min_size=1, max_size=6))
def test_the_labels_shares_add_up_to_one(knowledge: str, outputs: list[str]) -> None:
    pair, lexicon = known_by(knowledge, "en")
    pairs = [pair] * len(outputs)
    values_nk = score_system(
        System(outputs, range(len(outputs))),
        pairs,
        lexicons={"en": lexicon},
        parts=[(range(len(outputs)), SCORERS)],
    )
    overall = summarise(values_nk, ["en"] * len(outputs), seed=0)["overall"]
    assert sum(overall[str(label)]["value"] for label in OutputLabel) == pytest.approx(1)
    assert overall["copy_rate"] == overall["copied"]
