"""The driver of a search: prepare once, run trials on Ray, choose, export, write it all down."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.table import Table

from detox_tune import __version__
from detox_tune.config import SearchConfig
from detox_tune.data.split import fingerprint
from detox_tune.errors import UserError
from detox_tune.files import check_can_write, give_umask_permissions, write_json
from detox_tune.long_work import clock
from detox_tune.tuning.base import find_base
from detox_tune.tuning.checks.quick import quick_checks
from detox_tune.tuning.checks.result import raise_first_failure
from detox_tune.tuning.cluster import check_temporary_folder, concurrency, connected
from detox_tune.tuning.corpus import Corpus, load_corpus
from detox_tune.tuning.export import export_winner
from detox_tune.tuning.progress import SearchProgress, settings
from detox_tune.tuning.results import candidates, trial_row, write_trials
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.searcher import DetoxSearch
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.task import Task, build_task
from detox_tune.tuning.trial import run_trial
from detox_tune.tuning.winner import Finalist, score_finalists

_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "ray", "optuna")
_CHECKPOINTS_KEPT = 2  # checkpoints a trial keeps: its best, and its last


def run_search(config: SearchConfig, space: SearchSpace) -> int:
    """Run a search; returns 0, or 1 if no trial is good enough to export."""
    started = time.monotonic()
    console = Console(markup=False, highlight=False)
    log = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    folder = run_folder(config)
    if not config.address:
        check_temporary_folder()
    corpus = load_corpus(config)
    log.print(corpus.report())
    base = find_base(config, corpus, log)
    task = build_task(config, corpus, base, task_prefixes=space.task_prefixes())
    if task.over_long:
        log.print(
            f"{task.over_long} of {task.over_long + len(task.examples)} training examples are "
            f"longer than max_tokens={config.max_tokens} and left out"
        )
    raise_first_failure(quick_checks(config, space, task))
    with connected(config) as resources:
        folder.mkdir(parents=True, exist_ok=True)
        task = dataclasses.replace(task, base=_keep_base(config, base, folder))
        record = describe_search(config, space, corpus) | {"over_long_examples": task.over_long}
        write_json(folder / "search.json", record)
        results = run_trials(config, space, task, folder, concurrency(config, resources))
    rows = [trial_row(result) for result in results]
    write_trials(folder / "trials.csv", rows)
    validation = corpus.splits.validation
    best = candidates(results)
    if best:
        log.print(f"scoring the best trials on all {len(validation)} validation pairs")
    finalists = score_finalists(best, config, task, validation, log)
    record |= {
        "finalists": [finalist.record() for finalist in finalists],
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    if not finalists or finalists[0].feasible_j <= -1:
        write_json(folder / "search.json", record)
        log.print(no_winner(rows, finalists, config.max_copy_rate, task.copy_j), style="red")
        return 1
    winner = finalists[0].candidate
    log.print(
        f"loading {winner.trial} back from disk, scoring {len(corpus.splits.test)} test pairs"
    )
    metrics = export_winner(finalists[0], config, task, corpus.splits.test, folder / "best", log)
    record |= {"winner": winner.trial, "wall_seconds": round(time.monotonic() - started, 1)}
    write_json(folder / "search.json", record)
    show_result(metrics, folder, time.monotonic() - started, console)
    return 0


def run_trials(
    config: SearchConfig, space: SearchSpace, task: Task, folder: Path, concurrent: int
) -> list[tune.Result]:
    """All trials, with ASHA and the collapse rule, under `folder`/ray."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, config=config, task=task),
        {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="j",
            mode="max",
            num_samples=config.trials,
            search_alg=DetoxSearch(
                space,
                max_copy_rate=config.max_copy_rate,
                sampler=config.sampler,
                seed=config.seed,
                n_startup_trials=config.startup_trials,
            ),
            scheduler=CollapseScheduler(
                max_steps=config.steps,
                grace_steps=config.grace_steps,
                reduction_factor=config.reduction_factor,
                collapse_grace=config.collapse_grace,
                collapse_threshold=config.collapse_threshold,
            ),
            max_concurrent_trials=concurrent,
            reuse_actors=True,  # a new process takes seconds to import everything
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            callbacks=[SearchProgress(config.steps, space.searched)],
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=_CHECKPOINTS_KEPT,
                checkpoint_score_attribute="feasible_j",
                checkpoint_score_order="max",
            ),
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
        ),
    )
    results = tuner.fit()
    return [results[index] for index in range(len(results))]


def _name_trial(trial: Any) -> str:
    """trial_001, trial_002, ...: the searcher numbers its proposals in the experiment tag."""
    return f"trial_{int(str(trial.experiment_tag).split('_')[0]):03d}"


def run_folder(config: SearchConfig) -> Path:
    """OUT/NAME, absolute; it must be new.

    Raises:
        UserError: if it holds something, which a new run would mix with, or cannot be written.
    """
    folder = Path(os.path.abspath(Path(config.out) / config.name))
    check_can_write(folder / "search.json", "--out or --name")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} exists already: choose another --name or --out, or remove it")
    return folder


def _keep_base(config: SearchConfig, base: str, folder: Path) -> str:
    """Keep a pocket base with the run: the adapter needs it, and so do other nodes of a cluster."""
    if config.base_model != "pocket":
        return base
    kept = Path(shutil.copytree(base, folder / "base"))
    give_umask_permissions(kept)
    return str(kept)


def describe_search(config: SearchConfig, space: SearchSpace, corpus: Corpus) -> dict[str, Any]:
    """The content of search.json."""
    splits = corpus.splits
    return {
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "search": config.model_dump(),
        "space": space.describe(),
        "versions": {
            "detox_tune": __version__,
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in _VERSIONS},
        },
        "data": {
            name: {"pairs": len(pairs), "sha256": fingerprint(pairs)}
            for name, pairs in (
                ("train", splits.train),
                ("validation", splits.validation),
                ("test", splits.test),
            )
        },
        "bad_rows": len(corpus.loaded.bad_rows) if corpus.loaded else 0,
        "lexicon_entries": len(corpus.lexicon),
    }


def no_winner(
    rows: list[dict[str, Any]], finalists: list[Finalist], max_copy_rate: float, copy_j: float
) -> str:
    """Why nothing was exported."""
    reported = [row for row in rows if row["copy_rate"] is not None]
    little = [row for row in reported if row["copy_rate"] <= max_copy_rate]
    if finalists:
        why = (
            f"{len(finalists)} trials might have won on the sample, but on the whole validation "
            f"split (search.json) each has a copy rate above {max_copy_rate:g}, or a j not above "
            "the copy's"
        )
    elif little:
        best = max(row["j"] for row in little)
        why = (
            f"{len(little)} trials copy little, but their j, {best:.3f} at best, is not above that "
            f"of the untouched copy, {copy_j:.3f}"
        )
    else:
        lowest = min((row["copy_rate"] for row in reported), default=None)
        why = f"no trial has a validation copy rate of at most {max_copy_rate:g}, "
        why += "none reported" if lowest is None else f"the lowest is {lowest:.2f}"
    return (
        f"no adapter exported: {why}. Search more trials or steps, a higher learning rate, or "
        "another mask; trials.csv says how each one ended."
    )


def show_result(metrics: dict[str, Any], folder: Path, seconds: float, console: Console) -> None:
    """The winner's settings and its test scores between the baselines."""
    chosen = settings(metrics["settings"], list(metrics["settings"]))
    console.print(f"\nwinner: {metrics['trial']} ({chosen})", soft_wrap=True)
    table = Table(title="test split", title_justify="left", box=None, pad_edge=False)
    table.add_column("system")
    names = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")
    for name in names:
        table.add_column(name, justify="right")
    for system, scores in metrics["test"].items():
        table.add_row(system, *(f"{scores[name]:.3f}" for name in names))
    console.print(table)
    console.print(f"adapter: {folder / 'best'}", soft_wrap=True)
    console.print(f"trials:  {folder / 'trials.csv'}", soft_wrap=True)
    console.print(f"{clock(seconds)} in all")
