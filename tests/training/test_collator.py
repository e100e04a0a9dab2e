"""Masked rows and padded batches."""

import pytest
import torch
from datasets import Dataset

from detox_tune.errors import UserError
from detox_tune.training.collator import DetoxCollator, masked_rows

ROWS = [
    {
        "input_ids": [5, 0, 6, 1],
        "labels": [5, 7, 1],
        "label_toxic": [False, False, False],
        "toxic_positions": [False, True, False],
    },
    {
        "input_ids": [8, 1],
        "labels": [8, 9, 9, 1],
        "label_toxic": [False, True, True, False],
        "toxic_positions": [False, False, False, False],
    },
]


def test_batches_are_padded() -> None:
    rows, _ = masked_rows("train", ROWS, "none", None)
    batch = DetoxCollator(pad_token_id=0)(rows)
    expected = {
        "input_ids": [[5, 0, 6, 1], [8, 1, 0, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [[5, 7, 1, -100], [8, 9, 9, 1]],
        "label_toxic": [[False] * 4, [False, True, True, False]],
        "trained": [[True, True, True, False], [True] * 4],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["trained"].dtype == batch["label_toxic"].dtype == torch.bool


def test_pairs_without_a_trained_position_are_dropped_and_counted() -> None:
    rows, statistics = masked_rows("train", ROWS, "toxic_only", None)
    assert [row["labels"] for row in rows] == [[5, 7, 1]]
    assert rows[0]["trained"] == [False, True, False]
    assert (statistics.examples, statistics.dropped, statistics.covered) == (2, 1, 1)
    assert (statistics.trained, statistics.positions, statistics.toxic_words) == (1, 7, 1)


@pytest.mark.parametrize("layout", [None, "torch", "numpy"])
def test_data_sets_give_the_same_rows_in_any_format(layout: str | None) -> None:
    data_set = Dataset.from_list(ROWS).with_format(layout)
    assert masked_rows("train", data_set, "inverse_toxic", None) == masked_rows(
        "train", ROWS, "inverse_toxic", None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_toxic": [False]}, "train row 1 has lengths labels 4, label_toxic 1"),
        ({"labels": [8, 9, 1, -100]}, "train row 1 has labels with -100: give unpadded rows"),
        ({"input_ids": []}, "input_ids 0: each label token needs one flag"),
    ],
)
def test_unsound_rows(change: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        masked_rows("train", [ROWS[0], ROWS[1] | change], "none", None)


def test_missing_columns_and_empty_splits() -> None:
    with pytest.raises(UserError, match="test row 0 lacks label_toxic, toxic_positions"):
        masked_rows("test", [{"input_ids": [1], "labels": [1]}], "none", None)
    with pytest.raises(UserError, match="the split train holds no pair"):
        masked_rows("train", [], "none", None)


def test_nothing_left_names_the_coverage() -> None:
    with pytest.raises(
        UserError,
        match=r"'toxic_only' leaves none of the 1 train pairs .* covers 0 of them and finds 1 ",
    ):
        masked_rows("train", ROWS[1:], "toxic_only", None)
