"""Which of several answers is taken."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detox_tune.data.pairs import Pair
from detox_tune.evaluation.candidates import best_answers
from detox_tune.evaluation.rewriting import Answer
from detox_tune.evaluation.scorers import EmbeddedScorers

SOURCE = "the damn bus was late again."


class RudeOrNot(EmbeddedScorers):
    """STA without a fit: `damn` is toxic, all else is not."""

    def neutral(self, texts: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
        assert {pair.language for pair in pairs} == {"en"}
        return np.array([0.1 if "damn" in text else 0.9 for text in texts])


class Given:
    """An adapter with given answers to every source."""

    task_prefix = "detoxify: "

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def candidates(self, sources: Sequence[str], count: int) -> list[list[Answer]]:
        assert count == len(self.texts)
        return [[Answer(text, False) for text in self.texts] for _ in sources]


def taken(*texts: str) -> str:
    adapter: Any = Given(*texts)
    scorers = RudeOrNot({})
    answers = best_answers(
        adapter, [SOURCE, SOURCE], count=len(texts), language="en", scorers=scorers
    )
    assert answers[0] == answers[1]
    return answers[0].text


@pytest.mark.parametrize(
    ("texts", "best"),
    [
        (["it was", "the bus was late again."], "the bus was late again."),
        (["a damn bus was late again.", "the bus was late."], "the bus was late."),
        # masking a word does not make it neutral
        (["the d*mn bus was late again and", "the bus was late"], "the bus was late"),
        # a copy, also a doubled one or one behind an echo, is worse than any other answer
        ([SOURCE, "hello you"], "hello you"),
        ([f"detoxify: {SOURCE}", "hello you"], "hello you"),
        ([f"{SOURCE} {SOURCE}", "hello you"], "hello you"),
        # but better than nothing said
        ([SOURCE, "<extra_id_0>", ""], SOURCE),
        # of equal ones the first, which is the likeliest
        (
            ["the bus was late again!", "the bus was late again!", "it was"],
            "the bus was late again!",
        ),
    ],
)
def test_the_best_that_is_no_copy_is_taken(texts: list[str], best: str) -> None:
    assert taken(*texts) == best
    if len(set(texts)) == len(texts):
        assert taken(*reversed(texts)) == best


def test_every_source_has_its_own_choice() -> None:
    class Two(Given):
        def candidates(self, sources: Sequence[str], count: int) -> list[list[Answer]]:
            return [[Answer(sources[0], False), Answer("hello you", True)] for _ in sources]

    adapter: Any = Two()
    answers = best_answers(
        adapter,
        ["so damn good", "what a damn day"],
        count=2,
        language="en",
        scorers=RudeOrNot({}),
    )
    # to the first source the first answer is a copy, to the second it is toxic
    assert answers == [Answer("hello you", True), Answer("hello you", True)]
    adapter = Given("the bus", "the bus was late")
    sources = ["the bus", "the bus was late"]
    answers = best_answers(adapter, sources, count=2, language="en", scorers=RudeOrNot({}))
    assert [answer.text for answer in answers] == ["the bus was late", "the bus"]
