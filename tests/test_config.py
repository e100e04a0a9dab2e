"""Settings: defaults, rules, and names that are refused with the nearest valid one."""

from typing import Any

import pytest

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.settings import validated


@pytest.mark.parametrize(
    ("settings", "trainer"),
    [
        ({}, "original"),
        ({"gamma": 0.15}, "toxic_penalty_v1"),
        ({"mask_strategy": "toxic_only"}, "toxic_mask_v1"),
        ({"mask_strategy": "inverse_toxic", "gamma": 1.0}, "toxic_mask_v1"),
    ],
)
def test_the_trainer_follows_from_mask_and_gamma(settings: dict[str, Any], trainer: str) -> None:
    assert TrialConfig(**settings).trainer_name == trainer


@pytest.mark.parametrize(
    ("strategy", "anchor", "window"),
    [
        ("none", None, None),
        ("toxic_only", "answers", None),
        ("toxic_context", "answers", 2),
        ("inverse_toxic", None, None),
    ],
)
def test_settings_have_a_value_only_where_they_are_read(
    strategy: Any, anchor: str | None, window: int | None
) -> None:
    config = TrialConfig(mask_strategy=strategy)
    assert (config.mask_anchor, config.context_window) == (anchor, window)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gama": 1}, r"x\.yaml: 'gama' is not a setting here; did you mean 'gamma'\?"),
        ({"zzz": 1}, r"'zzz' is not a setting here; valid: batch_size, context_window, gamma"),
        ({"gamma": -1}, r"gamma=-1: .*greater than or equal to 0 \(Weight of the toxic penalty"),
        ({"gamma": "much"}, r"gamma='much': .*valid number"),
        ({"lora": "third"}, r"lora='third': .*'first', 'second' or 'all'"),
        ({"learning_rate": 0}, r"learning_rate=0: .*greater than 0"),
        ({"context_window": 2}, r"context_window=2 is only read with mask_strategy toxic_context"),
        (
            {"mask_strategy": "inverse_toxic", "mask_anchor": "edits"},
            r"mask_anchor='edits' is only read with mask_strategy toxic_only or toxic_context",
        ),
        ({"mask_strategy": "toxic_context", "context_window": 0}, r"context_window=0: .*1"),
    ],
)
def test_wrong_trial_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validated(TrialConfig, settings, "x.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a b"}, r"name='a b': .*Letters, digits"),
        ({"name": "../up"}, r"name='\.\./up'"),
        ({"steps": 10}, r"eval_every=50 must not exceed steps=10"),
        ({"steps": 60}, r"grace_steps=100 must not exceed steps=60"),
        ({"validation_share": 0.6, "test_share": 0.5}, r"= 1\.1 must be below 1"),
        ({"gpus_per_trial": 1.5}, r"gpus_per_trial=1\.5 must be a whole number or a fraction"),
        ({"trials": 0}, r"trials=0: .*greater than 0"),
        ({"max_copy_rate": 2}, r"max_copy_rate=2: .*less than or equal to 1"),
        ({"quantization": "int8"}, r"quantization='int8': .*'nf4' or 'none'"),
        ({"trails": 3}, r"did you mean 'trials'\?"),
    ],
)
def test_wrong_search_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validated(SearchConfig, {"name": "x", **settings}, "x.yaml")
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrialConfig().gamma = 2.0  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    for model in (TrialConfig, SearchConfig):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
