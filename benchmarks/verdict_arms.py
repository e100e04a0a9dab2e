"""python benchmarks/verdict_arms.py EXPERIMENT: train the arms of an experiment with every seed.

    python benchmarks/verdict_arms.py claims \\
        --data paradetox_en.tsv --lexicon multilingual_toxic_lexicon

Writes results/verdict/EXPERIMENT.csv, a row for each report of each arm, and
EXPERIMENT_sentences.csv, what each arm made of each test sentence. Both grow as arms end; the same
command goes on where it was stopped. With `--base-model google/mt5-base --gpus 1` it tunes that.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from tables import commit

from detox_tune.cli import OneLineParser, path, quiet_environment, run_command
from detox_tune.evaluation.scores import SCORES
from detox_tune.machine import cores

quiet_environment()  # here, because workers import this module before they load the libraries

FOLDER = Path(__file__).parent / "verdict"
COLUMNS = (
    *("arm", "seed", "commit", "split", "step", "seconds", "train_loss", "validation_loss"),
    *("trained_share", "n", *SCORES, "kept", "dropped_toxic"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what the tables do not hold yet."""
    options = _parser().parse_args(arguments)
    from verdict.experiment import read_experiment

    console = Console()
    experiment = read_experiment(FOLDER / f"{options.experiment}.yaml")
    table = options.out / f"{options.experiment}.csv"
    done = {(row["arm"], int(row["seed"])) for row in read(table) if row["split"] == "test"}
    overrides = {
        name: str(value)
        for name in ("data", "lexicon", "base_model", "spans")
        if (value := getattr(options, name)) is not None
    } | {"gpus_per_trial": options.gpus}
    if options.base_model:
        overrides["quantization"] = "nf4"
    for seed in options.seeds or experiment.seeds:
        left = [arm for arm in experiment.arms if (arm.name, seed) not in done]
        left.sort(key=lambda arm: arm.search.get("pocket_steps", 0))
        for _, group in groupby(left, lambda arm: arm.search.get("pocket_steps", 0)):
            arms = list(group)
            config = experiment.config(arms[0], seed, overrides)
            console.print(f"seed {seed}: {len(arms)} arms", highlight=False)
            _train(config, arms, experiment.prefixes, options, table, console)
    return 0


def _train(
    config: Any,
    arms: Sequence[Any],
    prefixes: set[str],
    options: argparse.Namespace,
    table: Path,
    console: Console,
) -> None:
    """Prepare what arms share, and train them in processes of their own."""
    from verdict.arm import Shared, hold_shared, train_arm

    from detox_tune.tuning.base import find_base
    from detox_tune.tuning.corpus import load_corpus
    from detox_tune.tuning.task import build_task

    corpus = load_corpus(config)
    base = find_base(config, corpus, console)
    task = build_task(config, corpus, base, task_prefixes=prefixes)
    version, started = commit(), time.monotonic()
    workers = ProcessPoolExecutor(
        options.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=hold_shared,
        initargs=(Shared(config, task, corpus.splits.test[: options.test_pairs]),),
    )
    with workers as pool:
        running = {pool.submit(train_arm, arm): arm for arm in arms}
        for count, future in enumerate(as_completed(running), 1):
            arm, result = running[future], future.result()
            of_arm = {"arm": arm.name, "seed": config.seed, "commit": version}
            sentences = [
                of_arm | {"score": name, "values": " ".join(map(_short, values))}
                for name, values in result.sentences.items()
            ]
            _append(
                table.with_name(f"{table.stem}_sentences.csv"),
                sentences,
                ("arm", "seed", "commit", "score", "values"),
            )
            _append(table, [of_arm | row for row in result.rows], COLUMNS)
            last = result.rows[-1]
            minutes = (time.monotonic() - started) / 60
            console.print(
                f"{count}/{len(arms)} {minutes:.1f} min: {arm.name}: j {last['j']:.3f}, copy "
                f"rate {last['copy_rate']:.3f}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def read(table: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is not there."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _append(table: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    is_new = not table.is_file()
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows({n: _cell(value) for n, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def _short(value: object) -> str:
    return f"{round(value, 3):g}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/verdict_arms.py",
        description="Train the arms of an experiment of the verdict; go on where it was stopped.",
    )
    names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    parser.add_argument("experiment", choices=names)
    parser.add_argument("--data", type=path, required=True, help="pairs: a file or a folder")
    parser.add_argument("--lexicon", type=path, help="toxic words: a file or a folder")
    parser.add_argument("--spans", type=path, help="annotated toxic spans: a file or a folder")
    parser.add_argument("--base-model", help="hub name or folder, in place of the pocket base")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each arm (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", help="of those of the experiment")
    parser.add_argument("--test-pairs", type=int, default=400, help="scored at the end (400)")
    parser.add_argument(
        "--workers", type=int, default=cores(), help="arms at once (default: the cores)"
    )
    parser.add_argument("--out", type=path, default=Path("results/verdict"))
    return parser


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_command(main)
