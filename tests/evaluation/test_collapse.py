import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.collapse import (
    OutputLabel,
    comparable,
    is_copy,
    is_exact_copy,
    label_output,
    without_specials,
)

LEXICON = Lexicon(
    {
        "en": ["idiot", "idiots", "stupid", "crap", "damn", "piece of crap"],
        "de": ["blödsinn", "großmaul"],
        "es": ["idiota", "imbécil"],
        "ru": ["дурак", "ёлки"],
        "uk": ["дурень"],
        "hi": ["मूर्ख"],
        "am": ["ደደብ"],
        "ar": ["غبي"],
        "he": ["טיפש"],
        "zh": ["笨蛋", "傻瓜"],
        "ja": ["バカ", "馬鹿"],
        "none": [],
    }
)

# A toxic source in each language, with the word that makes it so.
TOXIC = {
    "en": ("Don't be such an idiot, you well-known fool!", "idiot"),
    "de": ("Der Großmaul erzählt nur, was er möchte.", "Großmaul"),
    "es": ("¿Por qué siempre llega tarde ese imbécil de tu vecino?", "imbécil"),
    "ru": ("Какой же ты дурак, мой дорогой друг", "дурак"),
    "uk": ("Цей дурень знову з'їв п'ять яблук", "дурень"),
    "hi": ("तुम एक मूर्ख आदमी हो और कुछ नहीं।", "मूर्ख"),
    "am": ("አንተ ደደብ ሰው ነህ።", "ደደብ"),
    "ar": ("أنت رجل غبي جدا يا صديقي", "غبي"),
    "he": ("אתה פשוט טיפש גדול היום", "טיפש"),
    "zh": ("你真是一个笨蛋，快点回家吧。", "笨蛋"),
    "ja": ("あなたは本当にバカですね、早く帰りなさい。", "バカ"),
}


def pair(
    source: str,
    *references: str,
    language: str = "en",
    spans: tuple[tuple[int, int], ...] = (),
) -> Pair:
    return Pair(source, references or ("something else entirely",), language, spans)


def toxic_pair(language: str) -> Pair:
    return pair(TOXIC[language][0], "a wholly different reference", language=language)


# --- comparable ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("<extra_id_0> you <extra_id_13>idiot</s><pad>", "you idiot"),
        ("a<unk>b", "a b"),
        ("  I'm \t fine\u00a0\n", "im fine"),
        ("I\u2019m fine", "im fine"),
        ("well-known", "well known"),
        ("ＩＤＩＯＴ！", "idiot"),
        ("Straße", "strasse"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("zero\u200bwidth so\u00adft", "zerowidth soft"),
        ("$5 + 5", "5 5"),
        ("你 好 ， 吗", "你好吗"),
        ("see iPhone 手机 now", "see iphone手机now"),
        ("तुम मूर्ख हो।", "तुम मूर्ख हो"),
        ("fine 🙂", "fine 🙂"),
        ("...", ""),
        ("<extra_id_0>", ""),
        ("", ""),
    ],
)
def test_comparable(text: str, expected: str) -> None:
    assert comparable(text) == expected


@given(st.text())
def test_comparable_twice_changes_nothing(text: str) -> None:
    assert comparable(comparable(text)) == comparable(text)


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["P"])))
def test_punctuation_alone_leaves_nothing(text: str) -> None:
    assert comparable(text) == ""


def test_without_specials_keeps_everything_else() -> None:
    assert without_specials("<extra_id_0>Hi,  You!<extra_id_1></s>") == "Hi, You!"
    assert without_specials("a < b <extra_id_x>") == "a < b <extra_id_x>"


# --- a copy stays a copy ---------------------------------------------------------------------


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def punctuation_out(text: str) -> str:
    return "".join(c for c in text if not unicodedata.category(c).startswith("P"))


CHANGES: list[Callable[[str], str]] = [
    str.upper,
    str.lower,
    str.title,
    str.swapcase,
    full_width,
    lambda text: unicodedata.normalize("NFC", text),
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: unicodedata.normalize("NFKD", text),
    punctuation_out,
    lambda text: text.replace("'", "\u2019").replace("-", " "),
    lambda text: text + " !!!",
    lambda text: "\u201c" + text.replace(" ", ", ") + "\u201d",
    lambda text: text.replace(" ", "  \t"),
    lambda text: "\u00a0" + text.replace(",", " ,").replace(".", " ."),
    lambda text: text.replace(" ", " \u200b"),
]
FRONTS = ["", "<extra_id_0>", "<extra_id_0> ", "<pad><extra_id_7>. ", "<extra_id_0><extra_id_1>"]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(TOXIC)),
    st.lists(st.sampled_from(CHANGES), max_size=4),
    st.sampled_from(FRONTS),
    st.sampled_from(["", "</s>", " <extra_id_1>"]),
)
def test_a_copy_in_other_clothes_is_a_copy(
    language: str, changes: list[Callable[[str], str]], front: str, back: str
) -> None:
    source = toxic_pair(language)
    output = source.source
    for change in changes:
        output = change(output)
    output = front + output + back
    assert is_exact_copy(output, source.source)
    assert is_copy(output, source, LEXICON)
    assert label_output(output, source, LEXICON) is OutputLabel.COPIED


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_spaces_between_characters_make_no_difference(language: str) -> None:
    source = toxic_pair(language)
    assert is_exact_copy(" ".join(source.source), source.source)


@pytest.mark.parametrize("language", sorted(TOXIC))
def test_a_sentinel_and_a_truncated_copy_with_the_toxic_word_is_a_copy(language: str) -> None:
    text, word = TOXIC[language]
    source = toxic_pair(language)
    output = "<extra_id_0> " + text[: text.index(word) + len(word)]
    assert is_copy(output, source, LEXICON)
    assert not is_exact_copy(output, source.source)
    cut_from_the_front = "<extra_id_0>" + text[text.index(word) :]
    assert is_copy(cut_from_the_front, source, LEXICON)


@pytest.mark.parametrize("language", sorted(TOXIC))
def test_deleting_the_toxic_word_makes_no_copy(language: str) -> None:
    source = toxic_pair(language)
    output = LEXICON.delete(source.source, language)
    assert output
    assert not is_copy(output, source, LEXICON)
    assert label_output(output, source, LEXICON) is OutputLabel.REWRITTEN
    assert is_copy(f"<extra_id_0> {output}", source, LEXICON)  # but not behind a sentinel


EN_WORDS = ["you", "are", "a", "of", "piece", "idiot", "stupid", "crap", "damn", "car", "it's"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EN_WORDS), min_size=1, max_size=14).map(" ".join))
def test_deleting_every_toxic_word_makes_no_copy_of_any_sentence(text: str) -> None:
    if LEXICON.spans(text, "en"):
        output = LEXICON.delete(text, "en")
        assert not is_copy(output, pair(text), LEXICON)


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("</s><pad>", "empty"),
        ("...!", "empty"),
        ("<extra_id_0>", "sentinel"),
        ("<extra_id_0> . <extra_id_1></s>", "sentinel"),
        ("<extra_id_0> you idiot", "copied"),
        ("look at this you idiot", "copied"),
        ("look at this", "rewritten"),
        ("<extra_id_0> please look here", "rewritten"),
        ("<extra_id_0> look at this", "copied"),
        ("detoxify: look at this, you idiot", "copied"),
        ("detoxify:", "empty"),
        ("🙂", "rewritten"),
        ("no no no no no", "repeated"),
        ("please look please look please look", "repeated"),
        ("look at the car look at the car look at the car look at", "repeated"),
        ("lookylookylookylooky", "repeated"),
        ("看看看看看看", "repeated"),
        ("you idiot you idiot you idiot you idiot", "repeated"),
        ("no no no", "rewritten"),
        ("no no no no, that is not what I said at all to you", "rewritten"),
        ("look at the car, look at the car", "rewritten"),
    ],
)
def test_labels(output: str, expected: str) -> None:
    subject = pair("look at this, you idiot", "please look at it")
    assert label_output(output, subject, LEXICON, task_prefix="detoxify: ") == expected


def test_a_loop_of_the_source_or_of_a_reference_is_not_degenerate() -> None:
    laughing = pair("hahahahahaha you idiot", "hahahahahaha you", "no no no no no")
    assert label_output("hahahahahaha friend", laughing, LEXICON) is OutputLabel.REWRITTEN
    assert label_output("no no no no no!", laughing, LEXICON) is OutputLabel.REWRITTEN
    assert label_output("hahahahahaha " * 2, laughing, LEXICON) is OutputLabel.REPEATED


def test_a_copy_of_a_looping_source_is_a_copy() -> None:
    looping = pair("damn damn damn damn damn")
    assert label_output("Damn damn damn damn damn", looping, LEXICON) is OutputLabel.COPIED


OUTPUTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [*EN_WORDS, "<extra_id_0>", "<extra_id_9>", "</s>", "...", "<unk>", "笨", "no", "🙂"]
        ),
        max_size=12,
    ).map(" ".join),
)


@settings(max_examples=250, deadline=None)
@given(OUTPUTS, OUTPUTS, OUTPUTS)
def test_labels_are_a_partition(output: str, source: str, reference: str) -> None:
    subject = pair(source, reference)
    label = label_output(output, subject, LEXICON)
    assert isinstance(label, OutputLabel)
    assert (label is OutputLabel.COPIED) == is_copy(output, subject, LEXICON)
    nothing_left = comparable(output) == ""
    assert (label in (OutputLabel.EMPTY, OutputLabel.SENTINEL)) == nothing_left
    if is_copy(output, subject, LEXICON):
        assert not nothing_left
