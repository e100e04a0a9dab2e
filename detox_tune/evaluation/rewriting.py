"""What a model makes of sources: of single sentences, and of texts sentence by sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import regex
import sentencex
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detox_tune.evaluation.collapse import is_whole_copy, without_specials
from detox_tune.evaluation.decoding import beam_decode, greedy_decode
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.training.examples import encode_sources

_LETTER = regex.compile(r"\p{L}")


class Answer(NamedTuple):
    """What a model makes of one source."""

    text: str
    """Sentinels left in, so that they can be counted."""
    cut: bool
    """It was not done when it had `max_tokens` tokens."""


def rewrite(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | CutTokenizer,
    sources: Sequence[str],
    *,
    task_prefix: str,
    max_tokens: int,
    fast: bool = True,
    beams: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The texts of `answers`."""
    made = answers(
        model,
        tokenizer,
        sources,
        task_prefix=task_prefix,
        max_tokens=max_tokens,
        fast=fast,
        beams=beams,
        progress=progress,
    )
    return [answer.text for answer in made]


def answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | CutTokenizer,
    sources: Sequence[str],
    *,
    task_prefix: str,
    max_tokens: int,
    fast: bool = True,
    beams: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Answers to sources, each decoded as one.

    They are greedy ones, or with `beams` above 1 the likeliest of so many that says something and
    is no copy (`is_whole_copy`); where there is none, the likeliest. With `fast` greedy answers are
    drafted from the sources, which changes nothing but the time. `progress` is called with the
    number of answers that are done, but for greedy ones without `fast`.
    """
    if beams > 1:
        found = candidate_answers(
            model,
            tokenizer,
            sources,
            count=beams,
            task_prefix=task_prefix,
            max_tokens=max_tokens,
            progress=progress,
        )
        return [
            likeliest_new(made, source, task_prefix)
            for source, made in zip(sources, found, strict=True)
        ]
    source_ids = encode_sources(sources, tokenizer, task_prefix)
    if fast:
        drafts = encode_sources(sources, tokenizer, "")
        outputs = draft_decode(
            model, source_ids, drafts=drafts, max_new_tokens=max_tokens, progress=progress
        )
    else:
        outputs = greedy_decode(model, source_ids, max_new_tokens=max_tokens)
    return [_answer(ids, tokenizer, max_tokens) for ids in outputs]


def likeliest_new(made: Sequence[Answer], source: str, task_prefix: str) -> Answer:
    """The first answer that says something and is no copy of the source, else the first of all."""
    for answer in made:
        text = without_specials(answer.text)
        if text and not is_whole_copy(text, source, "", task_prefix=task_prefix):
            return answer
    return made[0]


def candidate_answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | CutTokenizer,
    sources: Sequence[str],
    *,
    count: int,
    task_prefix: str,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Several answers to each source, the likeliest first (`beam_decode`)."""
    source_ids = encode_sources(sources, tokenizer, task_prefix)
    beams = beam_decode(
        model, source_ids, candidates=count, max_new_tokens=max_tokens, progress=progress
    )
    return [[_answer(ids, tokenizer, max_tokens) for ids in of_source] for of_source in beams]


def _answer(
    ids: list[int], tokenizer: PreTrainedTokenizerBase | CutTokenizer, max_tokens: int
) -> Answer:
    # An answer that ended has its end token among the `max_tokens`, which is left out of the ids.
    return Answer(str(tokenizer.decode(ids)), len(ids) == max_tokens)


class Rewritten(NamedTuple):
    """A text whose sentences a model answered one by one."""

    text: str
    """Without special tokens; white space and what has no letter are the source's."""
    cut: int
    """How many answers were cut off at the length limit."""
    empty: int
    """How many answers said nothing."""


def rewrite_texts(
    texts: Sequence[str], answer: Callable[[Sequence[str]], Sequence[Answer]]
) -> list[Rewritten]:
    """Rewrite texts of any length, sentence by sentence, as a model learns it.

    Sentences end where `sentencex` finds an end, or the line does. White space at either end of a
    sentence stays as it is, and so does a sentence without a letter.

    Args:
        texts: sentences, lines or whole documents.
        answer: gives one answer for each sentence.
    """
    of_texts = [list(_sentences(text)) for text in texts]
    asked = [piece.strip() for pieces in of_texts for piece in pieces if has_letter(piece)]
    answered = iter(answer(asked))
    return [_joined(pieces, answered) for pieces in of_texts]


def has_letter(text: str) -> bool:
    """Whether there is anything to rewrite in it."""
    return bool(_LETTER.search(text))


def _sentences(text: str) -> Iterator[str]:
    """Sentences with the white space around them; together they are the text."""
    for line in text.splitlines(keepends=True):
        # Its languages differ in abbreviations; ends of sentences in all scripts are known to each.
        yield from sentencex.segment("en", line)


def _joined(pieces: Sequence[str], answered: Iterator[Answer]) -> Rewritten:
    parts: list[str] = []
    cut = empty = 0
    for piece in pieces:
        if not has_letter(piece):
            parts.append(piece)
            continue
        before, _, after = piece.partition(piece.strip())
        answer = next(answered)
        said = without_specials(answer.text)
        cut += answer.cut
        empty += not said
        parts += [before, said, after]
    return Rewritten("".join(parts), cut, empty)
