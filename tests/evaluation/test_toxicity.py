"""The classifier fitted on labelled texts: what it learns, measures, and refuses."""

import importlib.util
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from detox_tune.evaluation.toxicity import (
    HELD_OUT_SHARE,
    MIN_LABELLED,
    HeldOut,
    ToxicityClassifier,
    calibration_error,
    fit_toxicity,
)
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.errors import UserError

ENGLISH = (
    ["my boss", "the driver", "that player", "our teacher", "the man next door"],
    ["stupid", "dumb", "useless", "pathetic", "a damn fool"],
    ["friendly", "late", "careless", "unlucky", "tired"],
    ["again", "as always", "and nobody cares", "today"],
)
UKRAINIAN = (
    ["мій начальник", "водій", "той гравець", "наш учитель", "сусід"],
    ["дурний", "тупий", "нікчемний", "жалюгідний", "ідіот"],
    ["привітний", "пізній", "необережний", "невдаха", "стомлений"],
    ["знову", "як завжди", "і нікого це не цікавить", "сьогодні"],
)
Data = tuple[list[str], list[bool], list[str]]


def sentences(material: tuple[list[str], ...], language: str) -> Data:
    who, bad, good, ends = material
    rows = [(" ".join(parts), parts[1] in bad) for parts in product(who, [*bad, *good], ends)]
    return [text for text, _ in rows], [toxic for _, toxic in rows], [language] * len(rows)


def both() -> Data:
    left, right = sentences(ENGLISH, "en"), sentences(UKRAINIAN, "uk")
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


@pytest.fixture(scope="module")
def fitted() -> tuple[ToxicityClassifier, list[HeldOut]]:
    return fit_toxicity(*both(), seed=0)


def test_tells_unseen_sentences_of_both_languages_apart(
    fitted: tuple[ToxicityClassifier, list[HeldOut]],
) -> None:
    texts = ["her cousin is DUMB!", "моя сестра тупий", "her cousin is late", "моя сестра пізній"]
    probabilities = fitted[0].neutral_probability(texts)
    assert probabilities.shape == (4,)
    assert (probabilities[:2] < 0.3).all()
    assert (probabilities[2:] > 0.7).all()
    assert fitted[0].languages == ("en", "uk")


def test_a_text_goes_to_the_model_of_its_language() -> None:
    # "chat" is an insult in the one language and harmless in the other.
    english = [f"the weather and the {word} {n}" for word in ("chat", "talk") for n in range(100)]
    french = [f"avec nous les {word} {n}" for word in ("chat", "chien") for n in range(100)]
    labels = [True] * 100 + [False] * 100 + [False] * 100 + [True] * 100
    classifier, _ = fit_toxicity(english + french, labels, ["en"] * 200 + ["fr"] * 200, seed=0)
    texts = ["the weather and the chat", "avec nous les chat"]
    assert list(classifier.neutral_probability(texts) > 0.5) == [False, True]
    # The order of a batch and its other texts change nothing.
    assert classifier.neutral_probability(texts[::-1]) == pytest.approx(
        [classifier.neutral_probability([text])[0] for text in texts[::-1]], abs=1e-12
    )


def test_held_out_figures_are_those_of_a_fifth_of_each_language(
    fitted: tuple[ToxicityClassifier, list[HeldOut]],
) -> None:
    assert [(held.language, held.n) for held in fitted[1]] == [
        ("en", 200 * HELD_OUT_SHARE),
        ("uk", 200 * HELD_OUT_SHARE),
    ]
    assert all(held.auc > 0.95 and held.f1 > 0.9 and held.ece < 0.2 for held in fitted[1])


def test_held_out_figures_do_not_see_the_labels_that_were_fitted() -> None:
    # Labels drawn by lot: a model that is measured on what it was fitted on would look perfect.
    texts = [f"sentence {number:x} of {number * 7919 % 1000}" for number in range(600)]
    labels = np.random.default_rng(0).random(600) < 0.5
    _, [held] = fit_toxicity(texts, list(labels), ["en"] * 600, seed=0)
    assert 0.3 < held.auc < 0.7


def test_other_spellings_of_a_text_lie_on_one_side() -> None:
    # The same, with every text three times: without merging, a spelling of nearly every held-out
    # text would be among the fitted ones, with its label.
    texts = [f"sentence {number:x} of {number * 7919 % 1000}" for number in range(600)]
    labels = list(np.random.default_rng(0).random(600) < 0.5)
    spelled = [*texts, *(f"{text.upper()} !" for text in texts), *(f"  {text}." for text in texts)]
    _, [held] = fit_toxicity(spelled, labels * 3, ["en"] * 1800, seed=0)
    assert held.n == 120
    assert 0.3 < held.auc < 0.7


def test_probabilities_are_calibrated_where_labels_are_noisy() -> None:
    # Three of ten labels are wrong, so no honest probability is far from .3 or .7.
    texts, labels, _ = sentences(ENGLISH, "en")
    texts = [f"{text} {number}" for number in range(5) for text in texts]
    flipped = np.random.default_rng(0).random(len(texts)) < 0.3
    noisy = list(np.array(labels * 5) ^ flipped)
    classifier, [held] = fit_toxicity(texts, noisy, ["en"] * len(texts), seed=0)
    assert held.ece < 0.12
    probabilities = classifier.neutral_probability(["the boss is stupid", "the boss is friendly"])
    assert probabilities == pytest.approx([0.3, 0.7], abs=0.15)


def test_same_seed_same_numbers_also_after_pickling(
    fitted: tuple[ToxicityClassifier, list[HeldOut]],
) -> None:
    again, held_out = fit_toxicity(*both(), seed=0)
    texts = ["he is dumb", "he is late", "він тупий", "nothing known here", "", "!!!"]
    expected = fitted[0].neutral_probability(texts)
    assert held_out == fitted[1]
    assert np.array_equal(again.neutral_probability(texts), expected)
    copied = pickle.loads(pickle.dumps(again))
    assert np.array_equal(copied.neutral_probability(texts), expected)
    assert ((expected >= 0) & (expected <= 1)).all()
    assert fitted[0].neutral_probability([]).shape == (0,)


def test_chinese_alone_in_numbers() -> None:
    # 1,200 sentences without spaces, none of them twice: no whole one may be needed as a word.
    subjects, objects = "你我他她它谁", "山水火木金土日月人天"
    toxic = [f"{a}{b}笨{c}" for a, b, c in product(subjects, objects, objects)]
    neutral = [f"{a}{b}好{c}" for a, b, c in product(subjects, objects, objects)]
    classifier, [held] = fit_toxicity(
        toxic + neutral, [True] * 600 + [False] * 600, ["zh"] * 1200, seed=0
    )
    assert held.auc > 0.99
    assert list(classifier.neutral_probability(["老师笨", "老师好"]) > 0.5) == [False, True]


def test_too_few_texts_of_a_class() -> None:
    texts, labels, languages = sentences(ENGLISH, "en")
    few = [f"слово {number}" for number in range(MIN_LABELLED + 9)]
    with pytest.raises(UserError, match=r"^language 'uk': 9 toxic texts: .* at least 50 different"):
        fit_toxicity(
            texts + few,
            labels + [True] * 9 + [False] * MIN_LABELLED,
            languages + ["uk"] * len(few),
            seed=0,
        )
    with pytest.raises(UserError, match=r"^language 'en': 0 neutral texts"):
        fit_toxicity(texts, [True] * len(texts), languages, seed=0)
    # A hundred rows, but one text.
    with pytest.raises(UserError, match=r"^language 'tt': 1 toxic texts"):
        fit_toxicity(["same"] * 100, [True] * 100, ["tt"] * 100, seed=0)
    with pytest.raises(UserError, match=r"^no labelled texts"):
        fit_toxicity([], [], [], seed=0)


samples = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@given(samples, st.integers(1, 12))
def test_calibration_error_equals_its_definition(
    drawn: list[tuple[bool, float]], bins: int
) -> None:
    expected = 0.0
    for number in range(bins):
        inside = [
            (label, p)
            for label, p in drawn
            if int(p * bins) == number or (p == 1 and number == bins - 1)
        ]
        if inside:
            share = sum(label for label, _ in inside) / len(inside)
            mean = sum(p for _, p in inside) / len(inside)
            expected += len(inside) / len(drawn) * abs(mean - share)
    labels, probabilities = zip(*drawn, strict=True)
    error = calibration_error(labels, np.array(probabilities), bins=bins)
    assert error == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_known_cases() -> None:
    assert calibration_error([True, False], np.array([1.0, 0.0])) == 0
    assert calibration_error([False, True], np.array([1.0, 0.0])) == 1
    assert calibration_error([True, False], np.array([0.55, 0.55])) == pytest.approx(0.05)


def test_the_benchmark_writes_the_figures_without_the_place_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "toxicity.py"
    spec = importlib.util.spec_from_file_location("toxicity_benchmark", file)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    texts, labels, _ = sentences(ENGLISH, "en")
    lines = [f"{text}\t{int(label)}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "en.tsv").write_text("\n".join(["text\ttoxic", *lines, "no label\t"]))
    out = tmp_path / "table.md"

    assert benchmark.main([str(tmp_path / "en.tsv"), "--out", str(out)]) == 0
    _, [held] = fit_toxicity(texts, labels, ["en"] * len(texts), seed=0)
    written = out.read_text()
    assert f"| en | 40 | {held.auc:.3f} | {held.f1:.3f} | {held.ece:.3f} |" in written
    assert "`python benchmarks/toxicity.py en.tsv --seed 0`, commit " in written
    assert "201 rows, 200 texts, 1 rows dropped" in written
    assert "**not** the\nofficial classifier" in written
    assert str(tmp_path) not in written
    assert "missing label 1" in capsys.readouterr().out
