"""Masks: hand-made pairs, and properties that a slow definition gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detox_tune.config import MASK_STRATEGIES, MaskStrategy
from detox_tune.training.masking import (
    MaskStatistics,
    answering_positions,
    marked,
    mask_statistics,
    toxic_positions,
    trained_positions,
)

END = 1


def ids(words: str) -> list[int]:
    """One id for each word (a word always gets the same one), and the end token."""
    return [2 + int.from_bytes(word.encode()) for word in words.split()] + [END]


def answers(source: str, toxic: str, label: str) -> str:
    """The label's words, answering ones in upper case; `toxic` words of the source are toxic."""
    flags = [word in toxic.split() for word in source.split()] + [False]
    found = answering_positions(ids(source), ids(label), flags)
    words = [*label.split(), "end"]
    return " ".join(w.upper() if f else w for w, f in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("source", "toxic", "label", "expected"),
    [
        # replaced, by one and by several tokens
        ("you stupid man", "stupid", "you unwise man", "you UNWISE man end"),
        ("you stupid man", "stupid", "you not wise man", "you NOT WISE man end"),
        # deleted: the next kept token, which may be the end token
        ("you stupid man", "stupid", "you man", "you MAN end"),
        ("go away idiot", "idiot", "go away", "go away END"),
        ("shit go away", "shit", "go away", "GO away end"),
        # a multi-token span counts when an edit touches a part of it
        ("a piece of shit here", "piece of shit", "a bad thing here", "a BAD THING here end"),
        # difflib splits the span where the reference keeps a piece of it
        ("a b1 keep b2 z", "b1 keep b2", "a c1 keep c2 z", "a C1 keep C2 z end"),
        # other edits of a pair with toxic words are not answers
        ("hi you stupid man", "stupid", "hello you man", "hello you MAN end"),
        ("you stupid man", "stupid", "now you wise man", "now you WISE man end"),
        # a toxic word that the reference keeps is no edit
        ("you stupid man", "stupid", "you stupid man", "you stupid man end"),
        ("you stupid man", "stupid", "you stupid fellow", "you stupid fellow end"),
        # a deletion with words put in at the same place is a replacement: all of them
        ("you damn fool run", "damn fool", "you dear friend run", "you DEAR FRIEND run end"),
        # words put in elsewhere are not, next to a kept toxic word neither
        ("you shit run shit", "shit", "you shit run far", "you shit run FAR end"),
        ("shit happens", "shit", "oh shit happens", "oh shit happens end"),
        # no toxic word known: every edit counts
        ("a x b y c", "", "a b z c new", "a B Z c NEW end"),
        ("same words", "", "same words", "same words end"),
    ],
)
def test_answers_by_hand(source: str, toxic: str, label: str, expected: str) -> None:
    assert answers(source, toxic, label) == expected


@pytest.mark.parametrize(
    ("source", "toxic", "label", "expected"),
    [
        # "a _ idea" can keep either "_": a copying model goes wrong only after the kept one
        ("a _ dumb _ idea", "dumb", "a _ idea", "a _ IDEA end"),
        ("shit _ shit _ no", "shit", "shit _ no", "shit _ NO end"),
        ("a _ idea", "", "a _ nice _ idea", "a _ NICE _ idea end"),
        ("u v _ idea w", "", "u v _ nice _ idea w", "u v _ NICE _ idea w end"),
    ],
)
def test_an_answer_stands_where_copying_goes_wrong(
    source: str, toxic: str, label: str, expected: str
) -> None:
    assert answers(source, toxic, label) == expected


tokens = st.lists(st.integers(2, 5), max_size=12).map(lambda some: [*some, END])


@given(tokens, tokens)
def test_the_first_wrong_copy_is_the_first_answer(source: list[int], label: list[int]) -> None:
    found = answering_positions(source, label, [False] * len(source))
    if source == label:
        assert not any(found)
    else:
        wrong = next(i for i, (a, b) in enumerate(zip(source, label, strict=False)) if a != b)
        assert found.index(True) == wrong


@settings(max_examples=60)
@given(st.data(), tokens, tokens)
def test_toxic_spans_pick_among_all_edits(
    data: st.DataObject, source: list[int], label: list[int]
) -> None:
    size = len(source)
    toxic = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    every_edit = answering_positions(source, label, [False] * size)
    found = answering_positions(source, label, toxic)
    assert len(found) == len(label)
    assert all(edit for edit, flag in zip(every_edit, found, strict=True) if flag)
    # with every source token toxic only pure insertions are left out, so a label that is no
    # longer than its source and differs from it is answered
    everything = answering_positions(source, label, [True] * size)
    if source != label and len(label) <= size:
        assert any(everything)


def test_an_end_token_inside_a_text_does_no_harm() -> None:
    assert answering_positions([5, END, 7, END], [5, END], [False, False, True, False]) == [
        False,
        True,
    ]


def test_anchor_labels_ignores_the_source() -> None:
    source, label = ids("you stupid damn man"), ids("you unwise damn man")
    source_toxic = [False, True, True, False, False]
    label_toxic = [False, False, True, False, False]
    by_labels = toxic_positions(source, label, source_toxic, label_toxic, mask_anchor="labels")
    answers = toxic_positions(source, label, source_toxic, label_toxic, mask_anchor="answers")
    assert by_labels == label_toxic
    assert answers == [False, True, True, False, False]


def test_anchor_edits_takes_every_edit() -> None:
    source, label = ids("you stupid man , listen"), ids("dear man , please listen")
    flags = [False, True, False, False, False, False]
    answers = toxic_positions(source, label, flags, [False] * 6, mask_anchor="answers")
    edits = toxic_positions(source, label, flags, [False] * 6, mask_anchor="edits")
    assert answers == [True, False, False, False, False, False]
    assert edits == [True, False, False, True, False, False]


@given(
    st.sampled_from(MASK_STRATEGIES),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_strategies_against_their_definitions(
    mask_strategy: MaskStrategy, flags: list[tuple[bool, bool]], window: int
) -> None:
    toxic = [a or b for a, b in flags]
    label_toxic = [b for _, b in flags]
    trained = trained_positions(
        mask_strategy,
        toxic=toxic,
        label_toxic=label_toxic,
        context_window=window if mask_strategy == "toxic_context" else None,
    )
    for position, flag in enumerate(trained):
        distances = [abs(position - other) for other, is_toxic in enumerate(toxic) if is_toxic]
        nearest = min(distances, default=len(flags) + window)
        expected = {
            "none": True,
            "toxic_only": nearest == 0,
            "toxic_context": nearest <= window,
            "inverse_toxic": not label_toxic[position],
        }
        assert flag == expected[mask_strategy]


def test_statistics() -> None:
    off, on = False, True
    examples = [
        # two words of the reference are toxic (one of two tokens), one position answers an edit
        ([on, on, off, on, on], [on, on, off, on, off], [on, on, off, on, on]),
        ([off, off], [off, off], [off, off]),
    ]
    statistics = mask_statistics(examples)
    assert statistics == MaskStatistics(
        examples=2, covered=1, dropped=1, positions=7, trained=4, toxic_words=2, answers=1
    )
    assert statistics.share == pytest.approx(4 / 7)
    assert str(statistics) == (
        "4 of 7 label positions trained (57.1%), 1 of 2 pairs dropped, 1 with a toxic position, "
        "2 toxic words in the references, 1 positions that answer an edit"
    )
    assert mask_statistics([]).share == 0


def test_marked_shows_runs_of_trained_tokens() -> None:
    pieces = ["▁you", "▁are", "▁un", "kind", "▁man", ".", "</s>"]
    flags = [False, False, True, True, False, False, True]
    assert marked(pieces, flags) == "you are [[unkind]] man.[[</s>]]"
    assert marked(pieces, [True] + [False] * 6) == "[[you]] are unkind man.</s>"
    assert marked(["▁", "你", "好", "</s>"], [False, False, True, False]) == "你[[好]]</s>"
