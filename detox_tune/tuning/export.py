"""The winner as a folder of its own: adapter in PEFT's format, model card, metrics, samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import ne
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from rich.console import Console

from detox_tune.config import SearchConfig
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.adapter_files import CONFIG, SAMPLES, SCORERS_FILE
from detox_tune.evaluation.intervals import mean_intervals
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import (
    SCORES,
    copy_outputs,
    delete_outputs,
    mean_scores,
    score_outputs,
)
from detox_tune.evaluation.stored_scorers import write_scorers
from detox_tune.files import write_json, write_table, write_text
from detox_tune.long_work import progress_of
from detox_tune.model.base import load_base
from detox_tune.model.vocabulary import CutTokenizer, cut_vocabulary
from detox_tune.tuning.card import BESIDE, CARD, model_card, public_name
from detox_tune.tuning.task import Task
from detox_tune.tuning.winner import Finalist, write_adapter

N_SAMPLES = 20


def export_winner(
    finalist: Finalist,
    config: SearchConfig,
    task: Task,
    test: Sequence[Pair],
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Write `folder` (best/), load the adapter from it, and score that on the test split, once.

    The adapter is read back from disk into a freshly loaded base, so the scores are those of what
    a user gets. `console` shows how far it is.

    Returns:
        The content of metrics.json: `settings`, `validation` (sample and whole split), `test` with
        the scores of `tuned`, `base` (untuned), `delete`, `copy` and the first `reference`, all on
        the full base, `intervals` with the 95% intervals of `j` and `copy_rate`, and
        `vocabulary`: how many tokens trials had, and what the full base changes on the test split.
    """
    winner = finalist.candidate
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(winner.checkpoints[: finalist.averaged], folder)
    if config.base_model == "pocket":  # it stands beside: a run can be moved as a whole
        adapter_config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        write_json(folder / CONFIG, adapter_config | {"base_model_name_or_path": BESIDE})
    device = "cuda" if config.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    # The full base, whatever the trials ran on: that is what a user will load.
    base, tokenizer = load_base(
        task.base,
        quantization=config.quantization,
        device=device,
    )
    full_size = base.config.vocab_size

    def outputs(what: str, model: Any, tokens: Any = tokenizer) -> list[str]:
        with progress_of(what, "test pairs", len(test), console) as progress:
            return rewrite(
                model,
                tokens,
                [pair.source for pair in test],
                task_prefix=winner.settings.task_prefix,
                max_tokens=config.max_tokens,
                beams=config.beams,
                progress=progress,
            )

    systems = {
        "reference": [pair.references[0] for pair in test],
        "copy": copy_outputs(test),
        "delete": delete_outputs(test, task.lexicon),
        "base": outputs("untuned base", base),
    }
    adapted = PeftModel.from_pretrained(base, str(folder))
    systems["tuned"] = outputs("tuned model", adapted)
    prefix = winner.settings.task_prefix
    scored = {name: _score(texts, test, task, prefix) for name, texts in systems.items()}
    cut_vocabulary(base, task.vocabulary)  # the last use of the full one
    on_cut = outputs("cut vocabulary", adapted, CutTokenizer(tokenizer, task.vocabulary))
    metrics = {
        "trial": winner.trial,
        "averaged_checkpoints": finalist.averaged,
        "settings": winner.settings.model_dump(),
        "base_model": public_name(config.base_model),
        "quantization": config.quantization,
        "max_tokens": config.max_tokens,
        "beams": config.beams,
        "scorers": task.scorers.name,
        "validation": {
            "sample": {n: winner.report[n] for n in (*SCORES, "step") if n in winner.report},
            "whole": finalist.scores,
        },
        "vocabulary": {
            "kept": len(task.vocabulary.kept),
            "of": full_size,
            "test_j_on_cut": mean_scores(_score(on_cut, test, task, prefix))["j"],
            # The logits of kept tokens are the same, so here the full head chose a dropped one.
            "outputs_with_dropped_tokens": sum(map(ne, on_cut, systems["tuned"])),
        },
        "test": {name: mean_scores(frame) for name, frame in reversed(scored.items())},
        "intervals": {name: _intervals(frame, config.seed) for name, frame in scored.items()},
    }
    write_json(folder / "metrics.json", metrics)
    write_scorers(folder / SCORERS_FILE, task.scorers, task.lexicon)
    _write_samples(folder / SAMPLES, systems, scored["tuned"], test)
    write_text(folder / CARD, f"{model_card(metrics, config, test)}\n")
    return metrics


def _score(
    outputs: Sequence[str], pairs: Sequence[Pair], task: Task, task_prefix: str
) -> pd.DataFrame:
    return score_outputs(
        outputs, pairs, lexicon=task.lexicon, scorers=task.scorers, task_prefix=task_prefix
    )


def _intervals(scored: pd.DataFrame, seed: int) -> dict[str, list[float]]:
    """Lower and upper bound of the mean of those scores that decide."""
    bounds = mean_intervals(scored[["j", "copy_rate"]], seed=seed)
    return {name: list(interval) for name, interval in bounds.items()}


def _write_samples(
    path: Path, systems: Mapping[str, Sequence[str]], scored: pd.DataFrame, pairs: Sequence[Pair]
) -> None:
    """Outputs evenly spread over the test split, so that every language is among them."""
    stride = max(1, len(pairs) // N_SAMPLES)
    rows = [
        {
            "language": pairs[i].language,
            "source": pairs[i].source,
            "base": systems["base"][i],
            "output": systems["tuned"][i],
            "reference": pairs[i].references[0],
            "label": scored["label"][i],
            "j": f"{scored['j'][i]:.3f}",
        }
        for i in range(0, len(pairs), stride)
    ][:N_SAMPLES]
    columns = ("language", "source", "base", "output", "reference", "label", "j")
    write_table(path, rows, columns, delimiter="\t")
