"""What a trial's settings become in the Hugging Face trainer."""

import math
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.tuning.trial import training_arguments

STEPS, WARM_UP = 20, 5


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
        ("constant", lambda done: 1.0),
    ],
)
def test_learning_rates_by_hand(schedule: str, share: object, tmp_path: Path) -> None:
    trial = TrialConfig.model_validate(
        {"schedule": schedule, "learning_rate": 0.5, "warmup_share": WARM_UP / STEPS}
    )
    config = SearchConfig(name="x", steps=STEPS, eval_every=10, grace_steps=10)
    arguments = training_arguments(trial, config, tmp_path, "cpu")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, int(arguments.warmup_steps), arguments.max_steps
    )
    for step in range(STEPS):
        done = (step - WARM_UP) / (STEPS - WARM_UP)
        expected = step / WARM_UP if step < WARM_UP else share(done)  # type: ignore[operator]
        assert scheduler.get_last_lr() == pytest.approx([0.5 * expected])
        optimizer.step()
        scheduler.step()


def test_weight_decay_is_none_unless_it_is_set(tmp_path: Path) -> None:
    config = SearchConfig(name="x")
    plain = training_arguments(TrialConfig(), config, tmp_path, "cpu")
    decayed = training_arguments(TrialConfig(weight_decay=0.1), config, tmp_path, "cpu")
    assert (plain.weight_decay, decayed.weight_decay) == (0.0, 0.1)
