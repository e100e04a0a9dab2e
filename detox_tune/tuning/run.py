"""The driver of a search: prepare once, run trials on Ray, choose, export, write it all down."""

from __future__ import annotations

import csv
import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detox_tune.command_line import next_command
from detox_tune.config import SearchConfig
from detox_tune.evaluation.adapter_files import SAMPLES
from detox_tune.files import disk_is_full, write_json
from detox_tune.long_work import clock
from detox_tune.plain_console import PlainConsole
from detox_tune.tuning.base import find_base, read_files
from detox_tune.tuning.checks.quick import quick_checks
from detox_tune.tuning.checks.result import raise_first_failure
from detox_tune.tuning.cluster import Loudness, check_ray, check_shared, concurrency, connected
from detox_tune.tuning.corpus import Corpus, load_corpus
from detox_tune.tuning.export import export_winner
from detox_tune.tuning.outputs import OUTPUTS
from detox_tune.tuning.progress import settings
from detox_tune.tuning.report.live import update_report
from detox_tune.tuning.results import TrialRecord, candidates, write_trials
from detox_tune.tuning.run_folder import (
    RECORD,
    StoppedRun,
    check_unchanged,
    claimed,
    describe_search,
    keep_base,
    new_folder,
    now,
)
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.storage import check_storage, checkpoint_storage, keep_results
from detox_tune.tuning.study import STUDY_FILE, SearchStudy
from detox_tune.tuning.task import Task, build_task
from detox_tune.tuning.tracker import check_tracker
from detox_tune.tuning.trial import run_trial
from detox_tune.tuning.trials import run_trials
from detox_tune.tuning.winner import Finalist, score_finalists

_REWRITES = 3  # that are shown at the end


def run_search(config: SearchConfig, space: SearchSpace, loudness: Loudness = "normal") -> int:
    """Run a search; returns 0, or 1 if no trial is good enough to export, or 130 if interrupted.

    Args:
        config: what its trials share.
        space: what they are taken from.
        loudness: `quiet` shows no progress, `verbose` what Ray and trials say as well.
    """
    return _Search(config, space, new_folder(config), loudness).run(None)


def resume_search(run: StoppedRun, loudness: Loudness = "normal") -> int:
    """Go on with a search that stopped, wherever it was; returns what `run_search` does."""
    return _Search(run.config, run.space, run.folder, loudness).run(run)


class _Search:
    def __init__(
        self, config: SearchConfig, space: SearchSpace, folder: Path, loudness: Loudness
    ) -> None:
        self.config, self.space, self.folder = config, space, folder
        self.loudness = loudness
        self.started = time.monotonic()
        self.console = PlainConsole()
        self.log = PlainConsole(stderr=True, soft_wrap=True)
        quiet = loudness == "quiet"
        self.progress = PlainConsole(stderr=True, quiet=quiet)
        self.record: dict[str, Any] = {}

    def run(self, stopped: StoppedRun | None) -> int:
        check_ray(self.config)
        check_storage(self.config, new=stopped is None)
        check_tracker(self.config)
        try:
            with ExitStack() as held:
                if stopped:
                    held.enter_context(claimed(self.folder))
                corpus, task = self._prepare(stopped)
                with connected(self.config, self.loudness) as slots:
                    if not stopped:
                        held.enter_context(claimed(self.folder))
                        base = keep_base(self.config, task.base, self.folder)
                        task = dataclasses.replace(task, base=base)
                    if self.config.base_model == "pocket":
                        task = dataclasses.replace(task, base_files=read_files(Path(task.base)))
                    write_json(self.folder / RECORD, self.record)
                    if self.config.address and not self.config.storage:
                        check_shared(self.folder / RECORD)
                    keep_results(self.config, self.folder, (RECORD, "base"))
                    trials = self._run_trials(task, concurrency(self.config, slots))
                return self._conclude(trials, corpus, task)
        except (KeyboardInterrupt, Exception) as error:
            goes_on = isinstance(error, KeyboardInterrupt) or disk_is_full(error)
            if goes_on and (self.folder / RECORD).is_file():
                self.log.print(f"go on with: {self._resume_command()}")
            raise

    def _prepare(self, stopped: StoppedRun | None) -> tuple[Corpus, Task]:
        """What all trials share, and the content of search.json."""
        config, log = self.config, self.log
        corpus = load_corpus(config)
        log.print(corpus.report())
        changed = check_unchanged(stopped, corpus) if stopped else ""
        if changed:
            log.print(f"other versions, so scores may differ a little: {changed}", style="yellow")
        kept = stopped and config.base_model == "pocket"
        base = str(self.folder / "base") if kept else find_base(config, corpus, self.progress)
        task = build_task(config, corpus, base, task_prefixes=self.space.task_prefixes())
        if task.over_long:
            log.print(
                f"{task.over_long} of {task.over_long + len(task.examples)} training examples are "
                f"longer than max_tokens={config.max_tokens} and left out"
            )
        raise_first_failure(quick_checks(config, self.space, task))
        if stopped:
            self.record = stopped.record | {"search": config.model_dump()}
            self.record["resumed"] = [*self.record.get("resumed", []), now()]
            for outcome in ("finalists", "winner", "no_winner", "finished"):
                self.record.pop(outcome, None)
        else:
            self.record = describe_search(config, self.space, corpus)
            self.record["over_long_examples"] = task.over_long
        return corpus, task

    def _run_trials(self, task: Task, concurrent: int) -> list[TrialRecord]:
        """All trials that have not ended, with ASHA and the collapse rule."""
        config = self.config
        study = SearchStudy(self.folder, self.space, config.max_copy_rate)
        past = study.trials()
        left = config.trials - sum(bool(trial.ended) for trial in past)
        if left > 0:
            seconds = config.hours and max(
                1.0, 3600 * config.hours - (time.monotonic() - self.started)
            )
            run_trials(
                run_trial,
                config,
                self.space,
                task,
                study,
                self.folder,
                concurrent=min(concurrent, left),
                seconds=seconds,
                console=self.progress,
            )
        return study.trials()

    def _conclude(self, trials: list[TrialRecord], corpus: Corpus, task: Task) -> int:
        """Choose among what the trials reported, export, write it all down."""
        config, folder, log = self.config, self.folder, self.log
        write_trials(folder / "trials.csv", trials)
        ended = sum(bool(trial.ended) for trial in trials)
        stopped = ended < config.trials
        late = config.hours is not None and self._seconds() >= 3600 * config.hours
        if stopped:
            why = f"hours={config.hours:g} are over" if late else "interrupted"
            log.print(
                f"{why}: {ended} of {config.trials} trials ended; go on with: "
                f"{self._resume_command()}"
            )
        validation = corpus.splits.validation
        best = candidates(trials, checkpoint_storage(config, folder))
        if best:
            log.print(f"scoring the best trials on all {len(validation)} validation pairs")
        finalists = score_finalists(best, config, task, validation, self.progress)
        self.record["finalists"] = [finalist.record() for finalist in finalists]
        if not finalists or finalists[0].feasible_j <= -1:
            rows = [trial.row for trial in trials]
            why = no_winner(rows, finalists, config.max_copy_rate, task.copy_j)
            log.print(why, style="red")
            self.record["no_winner"] = why
            self._close(stopped, trials)
            return 130 if stopped and not late else 1
        winner = finalists[0].candidate
        log.print(
            f"loading {winner.trial} back from disk, scoring {len(corpus.splits.test)} test pairs"
        )
        metrics = export_winner(
            finalists[0], config, task, corpus.splits.test, folder / "best", self.progress
        )
        self.record["winner"] = winner.trial
        self._close(stopped, trials)
        show_result(metrics, folder, self._seconds(), self.console)
        return 130 if stopped and not late else 0

    def _close(self, stopped: bool, trials: list[TrialRecord]) -> None:
        before = self.record.get("wall_seconds", 0)
        self.record["wall_seconds"] = round(before + self._seconds(), 1)
        if not stopped:
            self.record["finished"] = now()
        write_json(self.folder / RECORD, self.record)
        wrong = update_report(self.config, self.folder, trials)
        if wrong:
            self.log.print(wrong, style="yellow")
        kept = (RECORD, STUDY_FILE, "trials.csv", "best", OUTPUTS, "report.html")
        try:
            keep_results(self.config, self.folder, kept)
        except OSError as error:
            self.log.print(f"results are in {self.folder} alone: {error}", style="yellow")

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _resume_command(self) -> str:
        address = ["--address", self.config.address] if self.config.address else []
        return next_command("search", "--resume", self.folder, *address)


def no_winner(
    rows: list[dict[str, Any]], finalists: list[Finalist], max_copy_rate: float, copy_j: float
) -> str:
    """Why nothing was exported."""
    reported = [row for row in rows if row["copy_rate"] is not None]
    little = [row for row in reported if row["copy_rate"] <= max_copy_rate]
    able = [row["trial"] for row in little if row["j"] > copy_j]
    if finalists:
        trials = len({one.candidate.trial for one in finalists})
        why = (
            f"on the whole validation split (search.json) none of the best trials ({trials}) has "
            f"a copy rate of at most {max_copy_rate:g} and a j above the copy's"
        )
    elif able:
        why = f"no whole checkpoint is left of the trials that might have won ({', '.join(able)})"
    elif little:
        best = max(row["j"] for row in little)
        why = (
            f"the trials that copy little ({len(little)}) have a j of at most {best:.3f}, that of "
            f"the untouched copy is {copy_j:.3f}"
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
    """The winner: settings, test scores between the baselines, rewrites, what to type next."""
    chosen = settings(metrics["settings"], list(metrics["settings"]))
    whole = not console.is_terminal  # a log keeps it on one line
    console.print(f"\nwinner: {metrics['trial']} ({chosen})", soft_wrap=whole)
    table = Table(title="test split", title_justify="left", box=None, pad_edge=False)
    table.add_column("system")
    names = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")
    for name in names:
        table.add_column(name, justify="right")
    for system, scores in metrics["test"].items():
        table.add_row(system, *(f"{scores[name]:.3f}" for name in names))
    console.print(table)
    _show_rewrites(folder / "best" / SAMPLES, console)
    lines = (
        ("page", str(folder / "report.html")),
        ("adapter", str(folder / "best")),
        ("rewrite", next_command("rewrite", folder / "best", "your sentence")),
        ("more trials", f"{next_command('search', '--resume', folder)} --trials N"),
    )
    console.print()
    for name, text in lines:
        console.print(f"{name + ':':<13}{text}", soft_wrap=True)
    console.print(f"{clock(seconds)} in all")


def _show_rewrites(samples: Path, console: Console) -> None:
    """The first rewrites among the samples of the test split: not the best ones."""
    with samples.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["label"] == "rewritten"]
    for row in rows[:_REWRITES]:
        text = f"\n  {row['source']}\n  -> {row['output']}"
        console.print(text, soft_wrap=not console.is_terminal)
