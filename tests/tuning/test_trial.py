"""What a trial's settings become in the Hugging Face trainer, and what it reports."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from transformers import TrainerControl, TrainerState, get_scheduler

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.training.masking import MaskStatistics
from detox_tune.tuning import trial as of_trial
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.results import penalised_j
from detox_tune.tuning.task import Task
from detox_tune.tuning.trial import ReportToTune, training_arguments

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


@pytest.mark.parametrize("beams", [1, 8])
def test_reports_rank_as_the_beams_of_the_search_say(
    beams: int, config: SearchConfig, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(of_trial, "rewrite", lambda model, tokenizer, texts, **_: list(texts))
    monkeypatch.setattr(tune, "report", lambda report, checkpoint: reports.append(report))
    _, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    settings, config = TrialConfig(), config.model_copy(update={"beams": beams})
    task = replace(task, copy_j=-1.0)  # so that even one that copies all might win with beams
    callback = ReportToTune(tokenizer, settings, config, task, MaskStatistics(*7 * (1,)))
    (tmp_path / "checkpoint-10").mkdir()
    arguments = training_arguments(settings, config, tmp_path, "cpu")
    callback.on_save(arguments, TrainerState(global_step=10), TrainerControl())
    (report,) = reports
    assert report["copy_rate"] == 1.0
    ranks = {1: -2.0, 8: penalised_j(report, config.max_copy_rate)}
    assert report["feasible_j"] == ranks[beams]
