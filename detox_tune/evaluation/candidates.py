"""The best of several answers to a source, where no reference says which one is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detox_tune.data.pairs import Pair
from detox_tune.evaluation.adapters import TunedModel
from detox_tune.evaluation.collapse import is_whole_copy, without_specials
from detox_tune.evaluation.disguise import undisguised
from detox_tune.evaluation.rewriting import Answer
from detox_tune.evaluation.scores import Scorers


def best_answers(
    adapter: TunedModel, sources: Sequence[str], *, count: int, language: str, scorers: Scorers
) -> list[Answer]:
    """Decode `count` answers to each source, and take the best that is no copy.

    The best has the highest STA x SIM, each as `score_outputs` has it; FL would need a reference.
    An answer that copies (`is_whole_copy`) is taken only where all do, and one that says nothing
    only where all say nothing. Of equal ones the likeliest is taken.

    Args:
        adapter: what answers.
        sources: single sentences.
        count: candidates for each, at least 1.
        language: of all sources.
        scorers: those of the run that made the adapter.

    Raises:
        UserError: the scorers do not know the language.
    """
    answers = adapter.candidates(sources, count)
    asked = [source for source, made in zip(sources, answers, strict=True) for _ in made]
    texts = [without_specials(answer.text) for made in answers for answer in made]
    plain = [
        undisguised(text, language, known=source) for source, text in zip(asked, texts, strict=True)
    ]
    pairs = [Pair(source, (), language) for source in asked]  # without references: none is known
    values = scorers.neutral(plain, pairs) * scorers.similarity(texts, asked)
    is_new = [
        not is_whole_copy(text, source, language, task_prefix=adapter.task_prefix)
        for source, text in zip(asked, texts, strict=True)
    ]
    ranked: Iterator[tuple[bool, bool, float]] = zip(map(bool, texts), is_new, values, strict=True)
    ranks = [[next(ranked) for _ in made] for made in answers]
    return [
        made[max(range(len(made)), key=of_source.__getitem__)]
        for made, of_source in zip(answers, ranks, strict=True)
    ]
