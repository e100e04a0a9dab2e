"""The best trials scored again, with real adapters read from real checkpoints."""

from pathlib import Path

import torch
from ray import tune
from rich.console import Console

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.model.lora import adapted
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.results import Candidate
from detox_tune.tuning.task import Task
from detox_tune.tuning.winner import FINALISTS, score_finalists


def candidate(task: Task, folder: Path, spread: float) -> tuple[Candidate, list[str]]:
    """Adapters that change the base by chance, and what they make of the validation pairs."""
    trial = TrialConfig(lora="all")
    base, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    with adapted(base, trial, seed=0) as model:
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=spread)
        outputs = rewrite(
            model,
            tokenizer,
            [pair.source for pair in task.validation],
            task_prefix=trial.task_prefix,
            max_tokens=64,
        )
        model.save_pretrained(str(folder))
    report = {"step": 3, "j": 0.9, "copy_rate": 0.0}
    return Candidate(folder.name, trial, report, tune.Checkpoint(str(folder))), outputs


def test_finalists_have_the_scores_of_their_adapters_and_stand_in_their_order(
    config: SearchConfig, task: Task, tmp_path: Path
) -> None:
    made = [candidate(task, tmp_path / f"trial_{n}", 0.3 * n) for n in range(FINALISTS + 1)]
    found = score_finalists(
        [one for one, _ in made], config, task, task.validation, Console(quiet=True)
    )
    expected = {
        one.trial: task.mean_scores(outputs, task.validation, one.settings.task_prefix)
        for one, outputs in made
    }
    # where none of the first three may win, the fourth is scored, too
    scored = FINALISTS if any(one.feasible_j > -1 for one in found) else len(made)
    assert len(found) == scored
    assert {one.candidate.trial for one in found} == {one.trial for one, _ in made[:scored]}
    assert all(one.scores == expected[one.candidate.trial] for one in found)
    ranks = [one.feasible_j for one in found]
    assert ranks == sorted(ranks, reverse=True)
    for one in found:
        may_win = one.scores["copy_rate"] <= config.max_copy_rate and (
            one.scores["j"] > task.copy_j
        )
        assert (one.feasible_j > -1) == may_win
    assert score_finalists([], config, task, task.validation, Console(quiet=True)) == []
