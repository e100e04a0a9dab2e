"""A small task for the tests of this room, and a search whose trials end in every way there is."""

import csv
import io
import json
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
from moto.server import ThreadedMotoServer
from optuna.trial import BaseTrial
from pyarrow import fs
from ray import tune
from rich.console import Console

from detox_tune.config import SearchConfig
from detox_tune.data.embedded import embedded_lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.split import split_pairs
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.progress import SearchProgress
from detox_tune.tuning.results import TrialRecord, feasible_j
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.searcher import DetoxSearch
from detox_tune.tuning.study import SearchStudy
from detox_tune.tuning.task import Task, build_task
from tests.tuning.small_search import SPACE


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


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, english_pairs: list[Pair]
) -> Path:
    """A folder with a space, pairs, a lexicon and a base.

    A tiny random model rewrites nothing. But a copy is worth even less than its babble here, so
    that there is a winner: sources are plainly toxic, and references say something else.
    """
    folder = tmp_path_factory.mktemp("search")
    (folder / "base").symlink_to(tiny_base)
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for pair, other in zip(english_pairs, reversed(english_pairs), strict=True):
            source = f"damn stupid idiot, {' '.join(pair.source.split()[-3:])}"
            row = {"toxic": source, "neutral": other.references[0], "lang": "en"}
            file.write(json.dumps(row) + "\n")
    (folder / "en.txt").write_text("damn\nidiot\nmoron\nshut up\nstupid\n", encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URI of a bucket on a server of our own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    uri = f"s3://runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
            patch.setenv(name, value)
        server_fs, _ = fs.FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")
        server_fs.create_dir("runs")
        yield uri
    server.stop()


# What a toy trial reports, [step, j, copy rate], and what it does after that.
CURVES: dict[str, list[tuple[int, float, float]]] = {
    "good": [(20, 0.1, 0.9), (40, 0.3, 0.5), (60, 0.5, 0.08), (80, 0.6, 0.05), (100, 0.55, 0.04)],
    "weak": [(20, 0.05, 0.8), (40, 0.08, 0.7), (60, 0.1, 0.65), (80, 0.1, 0.5), (100, 0.1, 0.4)],
    "copies": [(20, 0.2, 0.95), (40, 0.4, 0.93), (60, 0.6, 0.94), (80, 0.7, 0.95)],
    "raises": [(20, 0.2, 0.5)],
    "nan": [(20, 0.2, 0.5), (40, float("nan"), 0.5), (60, 0.2, 0.5)],
    "early": [(20, 0.2, 0.5), (40, 0.4, 0.3)],
    "dies": [(20, 0.2, 0.5), (40, 0.4, 0.3)],
    "killed": [(20, 0.2, 0.95), (40, 0.4, 0.9), (60, 0.5, 0.7), (80, 0.7, 0.3), (100, 0.7, 0.2)],
}


def toy() -> Callable[[dict[str, Any]], None]:
    """A trial that reports its curve; a closure, since Ray's workers can't import tests."""
    curves = list(CURVES.items())

    def train(config: dict[str, Any]) -> None:
        (curve, reports), checkpoint = curves[config["batch_size"] - 1], tune.get_checkpoint()
        start = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
        for step, j, copy_rate in reports:
            if step <= start:
                continue
            report = {"step": step, "j": j, "copy_rate": copy_rate, "seconds": 1.0, "n": 100}
            report["feasible_j"] = feasible_j(report, max_copy_rate=0.1, copy_j=0.0)
            if (curve, step, start) == ("killed", 40, 0) or (curve, step) == ("dies", 40):
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

    trials: dict[str, TrialRecord]
    """By the name of its curve, as `SearchStudy` knows it."""
    errors: dict[str, Exception | None]
    """What Tune knows of it."""
    study: optuna.Study
    """Opened again, from the file that the search left."""
    rows: dict[str, dict[str, str]]
    """Of trials.csv."""
    lines: list[str]
    """What was printed where there is no terminal."""


def toy_space(trial: BaseTrial) -> dict[str, Any]:
    """Settings that say which curve, and one that is searched."""
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-2)
    return {"batch_size": trial.number + 1, "learning_rate": rate}


@pytest.fixture(scope="session")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Run all curves, one at a time in their order."""
    output, folder, names = io.StringIO(), tmp_path_factory.mktemp("toys"), list(CURVES)
    study = SearchStudy(folder, toy_space, max_copy_rate=0.1)
    scheduler = CollapseScheduler(
        max_steps=100,
        grace_steps=40,
        reduction_factor=2,
        max_copy_rate=1.0,
        collapse_grace=30,
        collapse_threshold=0.8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(
            "local",
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
                search_alg=DetoxSearch(study, sampler="random", seed=0, n_startup_trials=1),
                scheduler=scheduler,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"],
            ),
            run_config=tune.RunConfig(
                name="toys",
                storage_path=str(folder / "ray"),
                callbacks=[
                    study,
                    SearchProgress(100, ["batch_size", "learning_rate"], Console(file=output)),
                ],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        grid = tuner.fit()
        ray.shutdown()
    left = SearchStudy(folder, toy_space, max_copy_rate=0.1)
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = dict(zip(names, csv.DictReader(file), strict=True))
    errors = {(grid[n].config or {})["batch_size"]: grid[n].error for n in range(len(grid))}
    return Search(
        trials=dict(zip(names, left.trials(), strict=True)),
        errors={name: errors[number] for number, name in enumerate(names, 1)},
        study=left.optuna,
        rows=rows,
        lines=output.getvalue().splitlines(),
    )
