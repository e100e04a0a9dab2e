"""What rewriting left undone: copies and toxic words."""

import pytest

from detox_tune.data.lexicon import Lexicon
from detox_tune.evaluation.collapse import is_whole_copy
from detox_tune.evaluation.leftovers import leftovers

SOURCE = "You're a damn idiot, so go away."


@pytest.mark.parametrize(
    ("output", "copied"),
    [
        (SOURCE, True),
        ("you're a DAMN idiot so go away", True),
        ("<extra_id_0> you're a damn idiot, so go away", True),
        ("detoxify: You're a damn idiot, so go away.", True),
        ("well, you're a damn idiot, so go away, yes", True),
        ("You're a d*mn idiot, so go away.", True),
        ("You're a damn idiot.", False),
        ("You're a person, so go away.", False),
        ("", False),
        ("detoxify: ", False),
    ],
)
def test_a_whole_copy_needs_no_reference(output: str, copied: bool) -> None:
    assert is_whole_copy(output, SOURCE, "en", task_prefix="detoxify: ") is copied


def test_each_text_is_looked_at_in_its_language() -> None:
    lexicon = Lexicon({"en": ["damn"], "de": ["blöd"], "es": []})
    rows = [
        ("the bus was late", "the damn bus was late", "en", False, False),
        ("the d*mn bus came", "the damn bus was late", "en", False, True),
        ("der blöde Bus", "der blöd gute Bus", "en", False, False),
        ("der blöd Bus", "der blöd gute Bus", "de", False, True),
        ("es malo", "es malo", "es", True, None),  # no entries
        ("c'est damn", "c'est nul", "fr", False, None),  # not in the lexicon
        ("damn", "what", None, False, None),
        ("...", "...", "en", None, None),
        ("", None, "en", None, None),
    ]
    outputs, texts, languages, copies, toxic = (list(column) for column in zip(*rows, strict=True))
    left = leftovers(outputs, texts, languages, lexicon, task_prefix="")
    assert left.still_copy == copies
    assert left.still_toxic == toxic


def test_without_a_lexicon_nothing_is_said_of_words() -> None:
    left = leftovers(["damn", "damn"], ["damn", "d*mn"], ["en", None], None, task_prefix="")
    assert left == ([True, True], [None, None])
