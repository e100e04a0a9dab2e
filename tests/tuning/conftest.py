"""A small task for the tests of this room, and a search whose trials end in every way there is."""

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from ray import tune
from rich.console import Console

from detox_tune.config import SearchConfig
from detox_tune.data.embedded import embedded_lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.split import split_pairs
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.progress import SearchProgress
from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.searcher import DetoxSearch
from detox_tune.tuning.task import Task, build_task


@pytest.fixture(scope="session")
def config(tiny_base: Path) -> SearchConfig:
    """A search on the tiny base, in full precision, whose trials end after three steps."""
    return SearchConfig(
        name="small",
        base_model=str(tiny_base),
        quantization="none",
        max_tokens=64,
        validation_pairs=8,
        steps=3,
        eval_every=3,
        grace_steps=3,
    )


@pytest.fixture(scope="session")
def corpus(english_pairs: list[Pair]) -> Corpus:
    """Seventy English pairs; the references of ten hold a toxic word."""
    rude = [
        Pair(f"you damn idiot , go away {n} times.", (f"you idiot , go away {n} times.",), "en")
        for n in range(10)
    ]
    splits = split_pairs([*english_pairs[:60], *rude], seed=0, validation_share=0.2)
    return Corpus(splits, embedded_lexicon(), (), None)


@pytest.fixture(scope="session")
def task(config: SearchConfig, corpus: Corpus, tiny_base: Path) -> Task:
    """What the trials of that search share; none of them changes it."""
    return build_task(config, corpus, str(tiny_base), task_prefixes=("", "detoxify: "))


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    """A process that has loaded no base yet, and keeps none that a test has broken."""
    load_cut_base.cache_clear()
    yield
    load_cut_base.cache_clear()


# What a toy trial reports, [step, j, copy rate], and what it does after that.
CURVES: dict[str, list[tuple[int, float, float]]] = {
    "good": [(20, 0.1, 0.9), (40, 0.3, 0.5), (60, 0.5, 0.08), (80, 0.6, 0.05), (100, 0.55, 0.04)],
    "weak": [(20, 0.05, 0.8), (40, 0.08, 0.7), (60, 0.1, 0.65), (80, 0.1, 0.5), (100, 0.1, 0.4)],
    "copies": [(20, 0.2, 0.95), (40, 0.4, 0.93), (60, 0.6, 0.94), (80, 0.7, 0.95)],
    "raises": [(20, 0.2, 0.5)],
    "nan": [(20, 0.2, 0.5), (40, float("nan"), 0.5), (60, 0.2, 0.5)],
    "early": [(20, 0.2, 0.5), (40, 0.4, 0.3)],
    "killed": [(20, 0.2, 0.95), (40, 0.4, 0.9), (60, 0.5, 0.7), (80, 0.7, 0.3), (100, 0.7, 0.2)],
}


def toy() -> Callable[[dict[str, Any]], None]:
    """A trial that reports its curve; a closure, since Ray's workers can't import tests."""
    curves = CURVES

    def train(config: dict[str, Any]) -> None:
        curve, checkpoint = config["curve"], tune.get_checkpoint()
        start = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
        for step, j, copy_rate in curves[curve]:
            if step <= start:
                continue
            report = {"step": step, "j": j, "copy_rate": copy_rate, "seconds": 1.0, "n": 100}
            report["feasible_j"] = feasible_j(report, max_copy_rate=0.1, copy_j=0.0)
            if (curve, step, start) == ("killed", 40, 0):
                tune.report(report)
                os.kill(os.getpid(), signal.SIGKILL)
            Path("state").mkdir(exist_ok=True)
            Path("state", "step").write_text(str(step))
            tune.report(report, checkpoint=tune.Checkpoint.from_directory("state"))
        if curve == "raises":
            raise FloatingPointError("the loss is nan at step 25\nlower learning_rate=1")

    return train


@dataclass(frozen=True)
class Search:
    """What is left of the search."""

    results: dict[str, dict[str, Any]]
    """The last result of each trial by the name of its curve, as `Tuner.fit` gives it."""
    errors: dict[str, Exception | None]
    restored: dict[str, dict[str, Any]]
    """The same read from the files that Tune left."""
    study: optuna.Study
    lines: list[str]
    """What was printed where there is no terminal."""


def by_curve(grid: tune.ResultGrid) -> dict[str, dict[str, Any]]:
    """The last result of each trial by the name of its curve."""
    results = [grid[n].metrics or {} for n in range(len(grid))]
    return {result["config"]["curve"]: result for result in results}


@pytest.fixture(scope="session")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Run all curves, one at a time in their order."""
    output = io.StringIO()
    names = list(CURVES)
    searcher = DetoxSearch(
        lambda trial: {"curve": names[trial.number], "x": trial.suggest_float("x", 0, 1)},
        max_copy_rate=0.1,
        sampler="random",
        seed=0,
        n_startup_trials=1,
    )
    scheduler = CollapseScheduler(
        max_steps=100,
        grace_steps=40,
        reduction_factor=2,
        collapse_grace=30,
        collapse_threshold=0.8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
        tuner = tune.Tuner(
            toy(),
            tune_config=tune.TuneConfig(
                metric="j",
                mode="max",
                num_samples=len(names),
                max_concurrent_trials=1,
                search_alg=searcher,
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="toys",
                storage_path=str(tmp_path_factory.mktemp("ray")),
                callbacks=[SearchProgress(100, ["curve", "x"], Console(file=output))],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        grid = tuner.fit()
        stored = tune.Tuner.restore(grid.experiment_path, toy()).get_results()
        ray.shutdown()
    return Search(
        results=by_curve(grid),
        errors={name: grid[n].error for n, name in enumerate(by_curve(grid))},
        restored=by_curve(stored),
        study=searcher.study,
        lines=output.getvalue().splitlines(),
    )
