"""Texts of any length: which sentences a model is asked for, and what stands between them."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.evaluation.rewriting import Answer, Rewritten, likeliest_new, rewrite_texts


def asked_for(texts: Sequence[str], answer: Answer | None = None) -> tuple[list[str], list[str]]:
    """The sentences that were asked for, and the texts; without `answer` all come back as such."""
    asked: list[str] = []

    def answers(sentences: Sequence[str]) -> list[Answer]:
        asked.extend(sentences)
        return [answer or Answer(sentence, False) for sentence in sentences]

    return asked, [made.text for made in rewrite_texts(texts, answers)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Mr. Smith paid $5.20. shut up!  go", ["Mr. Smith paid $5.20.", "shut up!", "go"]),
        ("你是傻瓜！走开。", ["你是傻瓜！", "走开。"]),
        ("तुम मूर्ख हो। चले जाओ।", ["तुम मूर्ख हो।", "चले जाओ।"]),
        ("one line\r\n\n  two lines\n", ["one line", "two lines"]),
        ("...\n12:30?! \n\n🤬", []),
        ("", []),
    ],
)
def test_sentences_are_asked_for_one_by_one_and_the_rest_stays(
    text: str, sentences: list[str]
) -> None:
    assert asked_for([text]) == (sentences, [text])
    asked, (made,) = asked_for([text], Answer("X", False))
    expected = text
    for sentence in sentences:
        expected = expected.replace(sentence, "X", 1)
    assert (asked, made) == (sentences, expected)


@given(st.lists(st.text(st.sampled_from(string.printable + "éß你好।。؟\u00a0\u2028"))))
def test_nothing_but_white_space_in_a_sentence_is_lost(texts: list[str]) -> None:
    texts = [text.replace("<", "") for text in texts]
    _, made = asked_for(texts)
    assert len(made) == len(texts)
    for one, text in zip(made, texts, strict=True):
        assert "".join(one.split()) == "".join(text.split())
        assert one.count("\n") == text.count("\n")


def test_special_tokens_are_not_shown_and_losses_are_counted() -> None:
    answers = [Answer("<extra_id_0> be quiet</s> <pad>", False), Answer("<extra_id_1>", True)]
    made = rewrite_texts(["shut up. idiot."], lambda _: answers)
    assert made == [Rewritten("be quiet ", cut=1, empty=1)]


@pytest.mark.parametrize(
    ("made", "taken"),
    [
        (["be quiet", "just shut up"], 0),
        (["just shut up", "be quiet"], 1),
        (["Detoxify: just SHUT UP!!", "<extra_id_0>", "be quiet", "go"], 2),
        (["just shut up", "", "please just shut up"], 0),  # nothing better: the likeliest
        (["<pad>", "just shut up"], 0),
    ],
)
def test_of_several_answers_the_likeliest_that_is_no_copy_is_taken(
    made: list[str], taken: int
) -> None:
    answers = [Answer(text, False) for text in made]
    assert likeliest_new(answers, "just shut up", "detoxify: ") is answers[taken]
