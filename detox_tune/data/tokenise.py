"""Pairs as token ids, with the tokens of toxic spans marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Example:
    """One source and one of its references as ids; both end with the end token, which is clean."""

    pair: int
    """Index of the pair that it comes from."""
    source_ids: list[int]
    """Ids of the source without a task prefix, length S."""
    source_toxic: list[bool]
    """Length S: the token lies in a toxic span, from the lexicon or annotated."""
    label_ids: list[int]
    """Ids of the reference, length T."""
    label_toxic: list[bool]
    """Length T: the token lies in a toxic span that the lexicon finds in the reference."""

    def ids(self) -> tuple[list[int], list[int]]:
        """Ids of either side."""
        return self.source_ids, self.label_ids


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The examples of a set of pairs, and how many were too long."""

    examples: tuple[Example, ...]
    over_long: int


def tokenise(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, lexicon: Lexicon, *, max_tokens: int
) -> Tokenised:
    """One example for each reference of each pair; examples over `max_tokens` are left out."""
    examples: list[Example] = []
    over_long = 0
    for index, pair in enumerate(pairs):
        spans = [*lexicon.spans(pair.source, pair.language), *pair.spans]
        source_ids, source_toxic = _marked_ids(tokenizer, pair.source, spans)
        for reference in pair.references:
            label_ids, label_toxic = _marked_ids(
                tokenizer, reference, lexicon.spans(reference, pair.language)
            )
            if max(len(source_ids), len(label_ids)) > max_tokens:
                over_long += 1
                continue
            examples.append(Example(index, source_ids, source_toxic, label_ids, label_toxic))
    return Tokenised(tuple(examples), over_long)


def encode_sources(
    sources: Sequence[str], tokenizer: Callable[[str], Any], task_prefix: str
) -> list[list[int]]:
    """Ids of prefix + source, as the model is asked; one list per source."""
    return [tokenizer(task_prefix + source).input_ids for source in sources]


def toxic_token_ids(examples: Sequence[Example], *, min_purity: float) -> list[int]:
    """Ids whose occurrences lie in toxic spans at least `min_purity` of the time.

    Counted over every source (once) and every reference, so that a piece which also builds
    innocent words is not forbidden.
    """
    total: Counter[int] = Counter()
    toxic: Counter[int] = Counter()
    seen: set[int] = set()
    for example in examples:
        texts = [(example.label_ids, example.label_toxic)]
        if example.pair not in seen:
            seen.add(example.pair)
            texts.append((example.source_ids, example.source_toxic))
        for ids, marks in texts:
            total.update(ids)
            toxic.update(i for i, mark in zip(ids, marks, strict=True) if mark)
    return sorted(i for i, n in toxic.items() if n >= min_purity * total[i])


def _marked_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[Span]
) -> tuple[list[int], list[bool]]:
    """Ids of a text, and whether each token overlaps a span (in characters)."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    marks = [
        any(start < span_end and end > span_start for span_start, span_end in spans)
        for start, end in encoded.offset_mapping
    ]
    return list(encoded.input_ids), marks
