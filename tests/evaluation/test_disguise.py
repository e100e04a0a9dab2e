import pytest

from detox_tune.evaluation.disguise import undisguised

SOURCE = "you fucking idiot, what a stupid shit show"


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("f**king", "fucking"),
        ("f***ing idi*t", "fucking idiot"),
        ("*diot", "idiot"),
        ("s***", "shit"),
        ("sh!t", "shit"),
        ("st@pid", "stupid"),
        ("s.h.i.t", "shit"),
        ("s h i t", "shit"),
        ("a s h i t b", "a shit b"),
        ("s-t-u-p-i-d", "stupid"),
        ("shiiiit", "shit"),
        ("sstupiid", "stupid"),
        ("stpuid", "stupid"),
        ("idiots", "idiot"),
        ("shot", "shit"),
        ("so", "so"),
        ("well-known f**l", "well-known f**l"),
        ("my-sh*t", "my-shit"),
        ("a b c", "a b c"),
        ("****", "****"),
        ("show", "show"),
    ],
)
def test_words_of_the_source_are_written_out_and_no_others(disguised: str, plain: str) -> None:
    assert undisguised(disguised, "en", known=SOURCE) == plain


def test_words_of_a_reference_are_left_alone() -> None:
    assert undisguised("a good god", "en", known="oh god", innocent=["oh good"]) == "a good god"
    assert undisguised("what a shot", "en", known=SOURCE, innocent=["a shot"]) == "what a shot"


def test_masks_stand_for_the_words_that_are_missing_in_their_order() -> None:
    assert undisguised("t*t and t*t", "en", known="tit and tat") == "tit and tat"
    assert undisguised("tit and t*t", "en", known="tit and tat") == "tit and tat"


@pytest.mark.parametrize(
    ("language", "source", "disguised"),
    [
        ("ru", "какой же ты дурак", "какой же ты д***к"),
        ("hi", "तुम एक मूर्ख आदमी हो", "तुम एक म*ख आदमी हो"),
        ("am", "አንተ ደደብ ሰው ነህ", "አንተ ደ ደ ብ ሰው ነህ"),
        ("de", "so ein Großmaul hier", "so ein Gro***ul hier"),
    ],
)
def test_other_scripts(language: str, source: str, disguised: str) -> None:
    assert undisguised(disguised, language, known=source).casefold() == source.casefold().replace(
        "ß", "ss"
    )
