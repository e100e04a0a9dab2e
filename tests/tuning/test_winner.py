"""The best trials scored again, with real adapters read from real checkpoints."""

from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from ray import tune
from rich.console import Console
from safetensors.torch import load_file

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.evaluation.adapter_files import WEIGHTS
from detox_tune.evaluation.decoding import beam_decode, greedy_decode
from detox_tune.evaluation.rewriting import Answer, likeliest_new, rewrite
from detox_tune.model.lora import adapted
from detox_tune.training.examples import encode_sources
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.results import Candidate
from detox_tune.tuning.task import Task
from detox_tune.tuning.winner import FINALISTS, score_finalists, write_adapter


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
    report = {"step": 3, "j": 0.9, "copy_rate": 0.0, "feasible_j": 0.9}
    return Candidate(folder.name, trial, report, (tune.Checkpoint(str(folder)),)), outputs


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


def test_the_mean_of_the_adapters_that_a_trial_kept_is_scored_too(
    config: SearchConfig, task: Task, tmp_path: Path
) -> None:
    (first, best), (second, _) = (candidate(task, tmp_path / f"at_{n}", n) for n in (1, 2))
    trial = replace(first, checkpoints=first.checkpoints + second.checkpoints)
    found = score_finalists([trial], config, task, task.validation, Console(quiet=True))
    scores = {one.averaged: one.scores for one in found}
    assert scores.keys() == {1, 2}
    assert scores[1] == task.mean_scores(best, task.validation, trial.settings.task_prefix)

    write_adapter(trial.checkpoints, tmp_path)
    one, other, mean = (load_file(tmp_path / name / WEIGHTS) for name in ("at_1", "at_2", "."))
    for name, weight in mean.items():
        assert weight.tolist() == ((one[name] + other[name]) / 2).tolist()
    base, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    model = PeftModel.from_pretrained(base, str(tmp_path))
    outputs = rewrite(
        model,
        tokenizer,
        [pair.source for pair in task.validation],
        task_prefix=trial.settings.task_prefix,
        max_tokens=config.max_tokens,
    )
    model.unload()
    assert scores[2] == task.mean_scores(outputs, task.validation, trial.settings.task_prefix)


def test_finalists_decode_with_the_beams_of_the_search(
    config: SearchConfig, task: Task, tmp_path: Path
) -> None:
    one, _ = candidate(task, tmp_path / "trial_1", 1.0)
    with_beams = config.model_copy(update={"beams": 3})
    (found,) = score_finalists([one], with_beams, task, task.validation, Console(quiet=True))
    base, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    model = PeftModel.from_pretrained(base, str(tmp_path / "trial_1"))
    prefix = one.settings.task_prefix
    ids = encode_sources([pair.source for pair in task.validation], tokenizer, prefix)
    made = beam_decode(model, ids, candidates=3, max_new_tokens=64)
    greedy = greedy_decode(model, ids, max_new_tokens=64)
    model.unload()
    texts = [
        likeliest_new(
            [Answer(str(tokenizer.decode(one)), False) for one in beams], pair.source, prefix
        ).text
        for beams, pair in zip(made, task.validation, strict=True)
    ]
    assert texts != [str(tokenizer.decode(one)) for one in greedy]
    assert found.scores == task.mean_scores(texts, task.validation, prefix)
