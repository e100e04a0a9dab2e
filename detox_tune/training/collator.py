"""Rows of token ids: masked once, then padded to batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detox_tune.config import MaskStrategy
from detox_tune.errors import UserError
from detox_tune.training.masking import MaskStatistics, mask_statistics, trained_positions

ROW_COLUMNS = ("input_ids", "labels", "label_toxic", "toxic_positions")
"""What a tokenised row holds."""


@dataclass(frozen=True)
class DetoxCollator:
    """Pads rows to the longest of their batch, sources and labels each to their own length.

    A row holds `input_ids`, `labels` and, with one flag for each label token, `label_toxic` and
    `trained`; other columns are left out.
    """

    pad_token_id: int
    """The id that fills `input_ids`; `labels` are filled with -100, which no loss reads."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of b rows, s source positions and t label positions.

        Returns:
            `input_ids` and `attention_mask` [b, s] int64; `labels` [b, t] int64;
            `label_toxic` and `trained` [b, t] bool, False at padding.
        """
        return {
            "input_ids": _padded(rows, "input_ids", self.pad_token_id),
            # from the lengths: a pad id inside a source is a token like any other
            "attention_mask": pad_sequence(
                [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows],
                batch_first=True,
            ),
            "labels": _padded(rows, "labels", -100),
            "label_toxic": _padded(rows, "label_toxic", False),
            "trained": _padded(rows, "trained", False),
        }


def masked_rows(
    split: str,
    rows: Dataset | Sequence[Mapping[str, Any]],
    mask_strategy: MaskStrategy,
    context_window: int | None,
    *,
    keep_all: bool = False,
) -> tuple[list[dict[str, Any]], MaskStatistics]:
    """The rows of a split that have a trained position, as the collator wants them.

    Args:
        split: the split's name, for messages.
        rows: a data set or a sequence of rows with `ROW_COLUMNS`; see `build_trainer`.
        mask_strategy: see `masking.trained_positions`.
        context_window: neighbours on either side, in tokens, for `toxic_context` alone.
        keep_all: keep rows without a trained position, too: their positions have a weight.

    Returns:
        The rows with their `trained` column, as plain lists (a training loop reads them several
        times faster than an Arrow table), and the count over all rows, dropped ones included.

    Raises:
        UserError: a row lacks something, or none is left.
    """
    plain = rows.with_format(None) if isinstance(rows, Dataset) else rows
    masked: list[dict[str, Any]] = []
    for number, row in enumerate(plain):
        _check_row(split, number, row)
        trained = trained_positions(
            mask_strategy,
            toxic=row["toxic_positions"],
            label_toxic=row["label_toxic"],
            context_window=context_window,
        )
        masked.append({name: row[name] for name in ROW_COLUMNS} | {"trained": trained})
    statistics = mask_statistics(
        (row["toxic_positions"], row["label_toxic"], row["trained"]) for row in masked
    )
    if not masked:
        raise UserError(f"the split {split} holds no pair: give it at least one")
    if keep_all:
        return masked, dataclasses.replace(statistics, dropped=0)
    kept = [row for row in masked if any(row["trained"])]
    if not kept:
        raise UserError(
            f"mask_strategy={mask_strategy!r} leaves none of the {statistics.examples} {split} "
            f"pairs to train on: the lexicon covers {statistics.covered} of them and finds "
            f"{statistics.toxic_words} toxic words in the references; use a lexicon of the data's "
            "languages, mask_anchor='answers', or mask_strategy='none'"
        )
    return kept, statistics


def _padded(rows: Sequence[Mapping[str, Any]], column: str, fill: int | bool) -> Tensor:
    dtype = torch.bool if isinstance(fill, bool) else torch.long
    return pad_sequence(
        [torch.tensor(row[column], dtype=dtype) for row in rows],
        batch_first=True,
        padding_value=fill,
    )


def _check_row(split: str, number: int, row: Mapping[str, Any]) -> None:
    missing = [name for name in ROW_COLUMNS if name not in row]
    if missing:
        raise UserError(
            f"{split} row {number} lacks {', '.join(missing)}: rows need {', '.join(ROW_COLUMNS)}"
        )
    lengths = {name: len(row[name]) for name in ROW_COLUMNS[1:]}
    if len(set(lengths.values())) > 1 or not all(lengths.values()) or not row["input_ids"]:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(
            f"{split} row {number} has lengths {found}, input_ids {len(row['input_ids'])}: each "
            "label token needs one flag of each kind, and no side may be empty"
        )
    if -100 in row["labels"]:
        raise UserError(
            f"{split} row {number} has labels with -100: give unpadded rows, the collator pads"
        )
