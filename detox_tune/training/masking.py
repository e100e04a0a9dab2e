"""Which label positions a trial trains on.

Everything here works on one pair's lists of token ids and flags; the words come from the lexicon
and the ids from the tokenizer, both elsewhere. `toxic_positions` says where a reference answers
the toxicity of its source, `trained_positions` what a mask strategy makes of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, takewhile

from detox_tune.config import MaskAnchor, MaskStrategy


def answering_positions(
    source_ids: Sequence[int], label_ids: Sequence[int], source_toxic: Sequence[bool]
) -> list[bool]:
    """Label positions at which a reference answers an edited part of its source.

    These are the tokens that replace a toxic source token and, after a pure deletion of one, the
    next kept token: the place where copying on would be wrong. In a pair without any toxic source
    token every edit counts, insertions included.

    Args:
        source_ids: the source's tokens with the end token and **without** the task prefix, which
            would count as a deletion.
        label_ids: the reference's tokens with the end token.
        source_toxic: whether each source token lies in a toxic span.

    Returns:
        One flag for each label token.
    """
    assert len(source_ids) == len(source_toxic), "one flag for each source token"
    assert source_ids, "a source has at least its end token"
    assert source_ids[-1:] == label_ids[-1:], "source and reference have the same end token"
    answering = [False] * len(label_ids)
    any_edit = not any(source_toxic)
    matcher = SequenceMatcher(None, source_ids, label_ids, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        # Deleting "▁ dumb" from "a ▁ dumb ▁ idea" can be aligned so that the kept "▁" follows the
        # deletion: copying is right there and wrong one token later. So an edit moves right for as
        # long as copying gives the reference (replacements share no token, they stay).
        moved = _common_prefix(source_ids[i1:], label_ids[j1:])
        if any_edit or any(source_toxic[i1:i2]):
            # a deletion has no label side: the next kept token, at the latest the end token
            start = min(j1 + moved, len(label_ids) - 1)
            for position in range(start, max(j2 + moved, start + 1)):
                answering[position] = True
    return answering


def toxic_positions(
    source_ids: Sequence[int],
    label_ids: Sequence[int],
    source_toxic: Sequence[bool],
    label_toxic: Sequence[bool],
    *,
    mask_anchor: MaskAnchor,
) -> list[bool]:
    """Label positions that are toxic, one flag for each label token.

    With `mask_anchor="labels"` those in toxic spans of the reference; with `"answers"` also those
    that answer a toxic span of the source, with `"edits"` those that answer any edit; see
    `answering_positions`.
    """
    assert len(label_ids) == len(label_toxic), "one flag for each label token"
    if mask_anchor == "labels":
        return list(label_toxic)
    answered = source_toxic if mask_anchor == "answers" else [False] * len(source_toxic)
    answering = answering_positions(source_ids, label_ids, answered)
    return [a or b for a, b in zip(label_toxic, answering, strict=True)]


def trained_positions(
    mask_strategy: MaskStrategy,
    *,
    toxic: Sequence[bool],
    label_toxic: Sequence[bool],
    context_window: int | None,
) -> list[bool]:
    """Label positions whose cross-entropy is trained, one flag for each label token.

    Args:
        mask_strategy: `none` trains every position, `toxic_only` the toxic ones, `toxic_context`
            those and their neighbours, `inverse_toxic` all but the toxic words of the reference.
        toxic: the toxic label positions, from `toxic_positions`.
        label_toxic: the label positions in toxic spans of the reference.
        context_window: neighbours on either side, in tokens, at least 1; read by `toxic_context`
            alone.
    """
    assert len(toxic) == len(label_toxic), "one flag of each kind for each label token"
    if mask_strategy == "toxic_only":
        return list(toxic)
    if mask_strategy == "inverse_toxic":
        return [not flag for flag in label_toxic]
    if mask_strategy == "none":
        return [True] * len(toxic)
    assert context_window is not None, "toxic_context needs a window"
    return [
        any(toxic[max(0, position - context_window) : position + context_window + 1])
        for position in range(len(toxic))
    ]


@dataclass(frozen=True)
class MaskStatistics:
    """What a mask strategy made of a set of pairs. `str()` gives one line."""

    examples: int
    """Pairs seen."""
    covered: int
    """Pairs with at least one toxic position: what the lexicon and the alignment reach."""
    dropped: int
    """Pairs left with no trained position."""
    positions: int
    """Label positions of all pairs."""
    trained: int
    """Label positions trained on."""
    toxic_words: int
    """Toxic words found in the references (runs of toxic tokens)."""
    answers: int
    """Label positions that answer an edit of the source."""

    @property
    def share(self) -> float:
        """Trained positions over all positions, in [0, 1]; 0 without positions."""
        return self.trained / self.positions if self.positions else 0.0

    def __str__(self) -> str:
        return (
            f"{self.trained:,} of {self.positions:,} label positions trained ({self.share:.1%}), "
            f"{self.dropped:,} of {self.examples:,} pairs dropped, "
            f"{self.covered:,} with a toxic position, "
            f"{self.toxic_words:,} toxic words in the references, "
            f"{self.answers:,} positions that answer an edit"
        )


def mask_statistics(
    examples: Iterable[tuple[Sequence[bool], Sequence[bool], Sequence[bool]]],
) -> MaskStatistics:
    """Count over pairs given as (toxic, label_toxic, trained): flags for the label tokens."""
    pairs = covered = dropped = positions = trained_count = toxic_words = answers = 0
    for toxic, label_toxic, trained in examples:
        pairs += 1
        covered += any(toxic)
        dropped += not any(trained)
        positions += len(trained)
        trained_count += sum(trained)
        toxic_words += sum(flag for flag, _ in groupby(label_toxic))
        answers += sum(a and not b for a, b in zip(toxic, label_toxic, strict=True))
    return MaskStatistics(pairs, covered, dropped, positions, trained_count, toxic_words, answers)


def marked(tokens: Sequence[str], trained: Sequence[bool]) -> str:
    """A pair's label tokens as readable text, each run of trained ones in double brackets.

    Args:
        tokens: SentencePiece tokens, in which "▁" stands for a space.
        trained: one flag for each token.

    Returns:
        For example `you are [[unkind]] to me</s>`.
    """
    text = ""
    for is_trained, run in groupby(zip(tokens, trained, strict=True), key=lambda pair: pair[1]):
        piece = "".join(token for token, _ in run).replace("▁", " ")
        lead = " " if is_trained and piece.startswith(" ") else ""
        text += f"{lead}[[{piece.removeprefix(lead)}]]" if is_trained else piece
    return text.strip()


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """The number of leading tokens that are the same."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )
