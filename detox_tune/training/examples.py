"""Pairs as token ids, with what lies in toxic spans, and what answers them, marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from detox_tune.config import MASK_ANCHORS, MaskAnchor
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.model.vocabulary import Vocabulary
from detox_tune.training.masking import toxic_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Example:
    """A pair with one of its references, as ids; each text ends with the end token."""

    pair: int
    """Index of the pair that it comes from."""
    input_ids: Mapping[str, list[int]]
    """For each task prefix: prefix and source."""
    source_ids: list[int]
    """The source without a prefix, length S."""
    source_toxic: list[bool]
    """Length S: the token lies in a toxic span, from the lexicon or annotated."""
    label_ids: list[int]
    """The reference, length T."""
    label_toxic: list[bool]
    """Length T: the token lies in a toxic span that the lexicon finds in the reference."""
    toxic: Mapping[MaskAnchor, list[bool]]
    """For each mask anchor, length T: the label position is toxic (`masking.toxic_positions`)."""

    def ids(self) -> list[list[int]]:
        """Everything that a trial reads or is taught."""
        return [*self.input_ids.values(), self.source_ids, self.label_ids]

    def cut(self, vocabulary: Vocabulary) -> Example:
        """The same in the ids of a cut base."""
        return Example(
            self.pair,
            {prefix: vocabulary.cut(ids) for prefix, ids in self.input_ids.items()},
            vocabulary.cut(self.source_ids),
            self.source_toxic,
            vocabulary.cut(self.label_ids),
            self.label_toxic,
            self.toxic,
        )


def make_examples(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    lexicon: Lexicon,
    *,
    task_prefixes: Collection[str],
    max_tokens: int,
) -> tuple[list[Example], int]:
    """One example for each reference of each pair.

    Returns:
        The examples, and how many were left out because a side is longer than `max_tokens`.
    """
    examples: list[Example] = []
    over_long = 0
    for index, pair in enumerate(pairs):
        spans = [*lexicon.spans(pair.source, pair.language), *pair.spans]
        source_ids, source_toxic = _marked_ids(tokenizer, pair.source, spans)
        inputs = {prefix: tokenizer(prefix + pair.source).input_ids for prefix in task_prefixes}
        for reference in pair.references:
            label_ids, label_toxic = _marked_ids(
                tokenizer, reference, lexicon.spans(reference, pair.language)
            )
            if max(len(source_ids), len(label_ids)) > max_tokens:
                over_long += 1
                continue
            toxic = {
                anchor: toxic_positions(
                    source_ids, label_ids, source_toxic, label_toxic, mask_anchor=anchor
                )
                for anchor in MASK_ANCHORS
            }
            examples.append(
                Example(index, inputs, source_ids, source_toxic, label_ids, label_toxic, toxic)
            )
    return examples, over_long


def encode_sources(
    sources: Sequence[str], tokenizer: Callable[[str], Any], task_prefix: str
) -> list[list[int]]:
    """Ids of prefix + source, as the model is asked; one list for each source."""
    return [tokenizer(task_prefix + source).input_ids for source in sources]


def toxic_token_ids(examples: Sequence[Example], *, min_purity: float) -> list[int]:
    """Ids that nearly always stand in toxic spans, sorted.

    Counted over every source (once) and every reference. A token that is toxic k times of n is one
    of these if (k + 1/2) / (n + 1), the mean of its share by Jeffreys' prior, reaches `min_purity`:
    seen a few times, it is no evidence. (A lower confidence bound of .95 would take 59 occurrences,
    which no token of 200 pairs has.) Where such a token only ever follows another one in its span,
    the first one is enough.
    """
    total: Counter[int] = Counter()
    toxic: Counter[int] = Counter()
    runs: list[list[int]] = []
    for ids, marks in _distinct_texts(examples):
        total.update(ids)
        for is_toxic, run in groupby(zip(ids, marks, strict=True), key=itemgetter(1)):
            if is_toxic:
                runs.append([token for token, _ in run])
                toxic.update(runs[-1])
    pure = {i for i, k in toxic.items() if k + 0.5 >= min_purity * (total[i] + 1)}
    return sorted({token for run in runs for token in [i for i in run if i in pure][:1]})


def _distinct_texts(examples: Sequence[Example]) -> Iterator[tuple[list[int], list[bool]]]:
    """Ids and marks of each source, once, and of each reference."""
    seen: set[int] = set()
    for example in examples:
        yield example.label_ids, example.label_toxic
        if example.pair not in seen:
            seen.add(example.pair)
            yield example.source_ids, example.source_toxic


def _marked_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[Span]
) -> tuple[list[int], list[bool]]:
    """Ids of a text, and whether most of each token's characters lie in a span."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    inside = {place for start, end in spans for place in range(start, end)}
    marks = []
    for start, end in encoded.offset_mapping:
        places = [place for place in range(start, end) if not text[place].isspace()]
        marks.append(2 * len(inside.intersection(places)) > len(places))
    return list(encoded.input_ids), marks
