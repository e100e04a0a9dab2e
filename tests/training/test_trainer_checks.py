"""What `build_trainer` refuses."""

import math
from pathlib import Path
from typing import Any

import pytest

from detox_tune.errors import UserError
from detox_tune.training.trainer import build_trainer
from tests.tiny_models import VOCABULARY, random_rows, tiny_base
from tests.training.test_trainer import arguments


@pytest.mark.parametrize(
    ("trainer_name", "settings", "message"),
    [
        ("toxic_mask", {}, r"trainer_name='toxic_mask' .* did you mean 'toxic_mask_v1'\?"),
        ("original", {"gamma": 0.1}, "trainer 'original' does not read .* gamma=0.1"),
        (
            "toxic_penalty_v1",
            {"mask_strategy": "toxic_only"},
            "'toxic_penalty_v1' does not read mask_strategy='toxic_only' .* use 'toxic_mask_v1'",
        ),
        ("toxic_penalty_v1", {"gamma": 0.1}, "gamma=0.1 weighs a penalty .* but there are none"),
        ("toxic_penalty_v1", {"gamma": math.nan}, "gamma=nan"),
        (
            "toxic_penalty_v1",
            {"gamma": 0.1, "forbidden_token_ids": [5, VOCABULARY]},
            "2 forbidden_token_ids from 5 to 40 must be a part of the model's 40 tokens",
        ),
        (
            "toxic_penalty_v1",
            {"gamma": 0.1, "forbidden_token_ids": range(VOCABULARY)},
            "40 forbidden_token_ids from 0 to 39 must be a part of the model's 40 tokens",
        ),
        ("toxic_mask_v1", {"mask_strategy": "toxic"}, "mask_strategy='toxic': .* 'toxic_only'"),
        ("toxic_mask_v1", {"context_window": 2}, "context_window=2 is only read with"),
    ],
)
def test_settings_that_a_trainer_would_not_read(
    tmp_path: Path, trainer_name: str, settings: dict[str, Any], message: str
) -> None:
    data = {"train": random_rows(2)}
    with pytest.raises(UserError, match=message):
        build_trainer(trainer_name, tiny_base(), arguments(tmp_path), data, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 must be 0.0 here"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0 must be None here"),
        ({"label_names": ["trained"]}, "label_names=.'trained'. must be None here"),
        ({"fp16_full_eval": True}, "fp16_full_eval=True must be False here: it overflows"),
    ],
)
def test_arguments_that_would_change_the_loss(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_trainer(
            "original", tiny_base(), arguments(tmp_path, **changes), {"train": random_rows(2)}
        )


def test_several_devices_are_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args._n_gpu = 4
    with pytest.raises(UserError, match="4 devices or processes must be 1"):
        build_trainer("original", tiny_base(), args, {"train": random_rows(2)})


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    with pytest.raises(UserError, match="dataset_dict holds test but needs a split named 'train'"):
        build_trainer("original", tiny_base(), args, {"test": random_rows(2)})
    bare = [row | {"toxic_positions": [False] * len(row["labels"])} for row in random_rows(3)]
    with pytest.raises(UserError, match=r"leaves none of the 3 validation pairs .* covers 0"):
        build_trainer(
            "toxic_mask_v1",
            tiny_base(),
            args,
            {"train": random_rows(2), "validation": bare},
            mask_strategy="toxic_only",
        )
