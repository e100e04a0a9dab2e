"""A search on the terminal: what runs, how it does, why it was stopped, how long it takes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from detox_tune.long_work import SECONDS_BETWEEN_LINES, clock
from detox_tune.plain_console import PlainConsole
from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.scheduler import error_line

_REFRESH_SECONDS = 0.25
_SHARE = 0.02  # of the search's time that drawing may take: a view of many rows takes long
_LINES_AROUND = 6
"""Lines of the live view that are not rows: headlines, head of the table, cursor."""
_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "finished": "green",
    "stopped": "yellow",
    "collapsed": "magenta",
    "failed": "red",
}
_STATES = {"asha": "stopped", "collapse": "collapsed"}
"""How an ending is called here, where it has no glossary beside it."""


class SearchProgress(Callback):
    """A line for each trial that ends, and a live table below these lines on a terminal; elsewhere
    a line for all trials where nothing was said for half a minute.

    Reads the trials' last results: `step`, `j`, `copy_rate`, `feasible_j` (the best of it is shown
    as `best j`; a number that is not above 0 counts as none), and `ended` and `ended_reason` as
    `CollapseScheduler` writes them. Rows that a terminal has no room for are left out while the
    search runs, oldest ended ones first; when it ends the whole table is left standing. It fits
    80 columns.

    Args:
        max_steps: training steps of a trial that runs to its end.
        searched: names of the settings to show, those that trials differ in.
        console: where to write; stderr by default.
        past: trials of a search that goes on; those that ended are counted, and shown no more.
    """

    def __init__(
        self,
        max_steps: int,
        searched: Sequence[str],
        console: Console | None = None,
        past: Sequence[TrialRecord] = (),
    ) -> None:
        self._max_steps = max_steps
        self._searched = tuple(searched)
        self._ended_before = [trial.steps for trial in past if trial.ended]
        self._steps_before = {trial.name: trial.steps for trial in past if not trial.ended}
        self._console = console or PlainConsole(stderr=True)
        self._live: Live | None = None
        self._trials: dict[str, Trial] = {}  # in order of their first start, unlike Tune's list
        self._ended: set[str] = set()
        self._total = 0
        self._lines: list[Text] = []  # of trials that ended since the view was drawn
        self._started = self._next = self._said = 0.0

    def __reduce__(self) -> tuple[type[SearchProgress], tuple[int, tuple[str, ...]]]:
        """What Tune pickles, though nobody reads it: no console can travel."""
        return SearchProgress, (self._max_steps, self._searched)

    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Start the clock and, on a terminal, the live view."""
        self._total = len(self._ended_before) + (total_num_samples or 0)
        self._started = self._said = time.monotonic()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Redraw, at most a few times a second; without a terminal, a line every half minute."""
        self._note(trials)
        now = time.monotonic()
        if self._live and now >= self._next:
            room = max(1, self._console.height - _LINES_AROUND)
            self._draw(self._live, self._view(room))
            drawn = time.monotonic()
            self._next = drawn + max(_REFRESH_SECONDS, (drawn - now) / _SHARE)
        elif not self._live and now - self._said >= SECONDS_BETWEEN_LINES:
            self._say(" | ".join(self._headlines()))

    def _draw(self, live: Live, view: Group) -> None:
        """The lines of trials that ended, above the view."""
        if self._lines:
            live.console.print(*self._lines, sep="\n")
            self._lines = []
        # A terminal writes ^C where the cursor is. Where a line is full that would begin another,
        # which nobody counts, and the first line of the view would be left standing.
        live.update(Constrain(view, self._console.width - len("^C")), refresh=True)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial finished or was stopped."""
        self._end(trials, trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial failed for good."""
        self._end(trials, trial)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial's process died, or it failed, and it has tries left."""
        self._say(f"{trial} stopped at step {_step(trial)} and starts again: {error_line(trial)}")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Leave the whole table on the terminal."""
        self._note(trials)
        if self._live:
            self._draw(self._live, self._view(None))
            self._live.stop()
            self._live = None

    def _note(self, trials: list[Trial]) -> None:
        for trial in trials:
            self._trials.setdefault(trial.trial_id, trial)
            # Also those that Tune stops when it is interrupted, for which no hook is called.
            if trial.status in (Trial.TERMINATED, Trial.ERROR):
                self._ended.add(trial.trial_id)

    def _end(self, trials: list[Trial], trial: Trial) -> None:
        self._note(trials)
        self._ended.add(trial.trial_id)
        if self._live:  # the numbers stand in the table
            reason = trial.run_metadata.last_result.get("ended_reason", "")
            self._lines.append(Text(f"{trial} {self._state(trial)}: {reason}"))
        else:
            self._say(f"[{self._n_ended}/{self._total}] {trial} {self._plain(trial)}")

    @property
    def _n_ended(self) -> int:
        states = (self._state(trial) for trial in self._trials.values())
        ended = sum(state not in ("running", "waiting", "interrupted") for state in states)
        return len(self._ended_before) + ended

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _plain(self, trial: Trial) -> str:
        result = trial.run_metadata.last_result
        return (
            f"{self._state(trial)} at step {_step(trial)}/{self._max_steps}: "
            f"j {_number(result.get('j'))}, copy rate {_number(result.get('copy_rate'))}, "
            f"best j {_number(_best(trial))} ({settings(trial.config, self._searched)}): "
            f"{result.get('ended_reason', '')}"
        )

    def _state(self, trial: Trial) -> str:
        if trial.trial_id in self._ended:
            ended = str(trial.run_metadata.last_result.get("ended", "interrupted"))
            return _STATES.get(ended, ended)
        return "running" if trial.status == Trial.RUNNING else "waiting"

    def _view(self, room: int | None) -> Group:
        """Headlines and table; all rows of it, or as many as there is room for."""
        headlines = map(Text, self._headlines())
        return Group(*headlines, self._table(self._shown(room), fold=room is None))

    def _shown(self, room: int | None) -> list[Trial]:
        trials = list(self._trials.values())
        if room is None or len(trials) <= room:
            return trials
        ended_first = sorted(trials, key=lambda trial: trial.trial_id not in self._ended)
        keep = {trial.trial_id for trial in ended_first[-room:]}
        return [trial for trial in trials if trial.trial_id in keep]

    def _headlines(self) -> list[str]:
        """How far the search is, and how many trials are in each state."""
        trials = self._trials.values()
        counts = Counter(self._state(trial) for trial in trials)
        states = ", ".join(
            f"{counts[state]} {state}" for state in (*_STYLES, "interrupted") if counts[state]
        )
        elapsed = time.monotonic() - self._started
        left = seconds_left(
            elapsed,
            total=self._total,
            ended=self._ended_before
            + [_step(trial) for trial in trials if trial.trial_id in self._ended],
            running=[_step(trial) for trial in trials if trial.trial_id not in self._ended],
            max_steps=self._max_steps,
            steps_before=sum(self._ended_before)
            + sum(min(_step(trial), self._steps_before.get(str(trial), 0)) for trial in trials),
        )
        done = f"{self._n_ended}/{self._total} trials done in {clock(elapsed)}"
        if left is not None and self._n_ended < self._total:
            # before one has ended, nobody knows how early they are stopped
            done += f", {'about' if self._n_ended else 'at most'} {clock(left)} left"
        return [done, states] if states else [done]

    def _table(self, trials: Sequence[Trial], fold: bool) -> Table:
        # While it runs a row is one line: numbers in full, words as far as there is room.
        table = Table(box=None, header_style="bold", pad_edge=False, expand=not fold)
        for name in ("trial", "state"):
            table.add_column(name, no_wrap=True)
        for name in ("step", "j", "copy", "best j"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("settings", no_wrap=not fold, ratio=None if fold else 1)
        for trial in trials:
            result = trial.run_metadata.last_result
            state = self._state(trial)
            table.add_row(
                Text(str(trial)),
                Text(state, style=_STYLES.get(state, "")),
                f"{_step(trial)}/{self._max_steps}",
                _number(result.get("j")),
                _number(result.get("copy_rate")),
                _number(_best(trial)),
                Text(settings(trial.config, self._searched)),
            )
        return table


def settings(config: Mapping[str, Any], names: Sequence[str]) -> str:
    """The named settings of a trial in short; those that it does not have are left out."""
    present = {name: config[name] for name in names if config.get(name) is not None}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in present.items()
    )


def seconds_left(
    elapsed: float,
    *,
    total: int,
    ended: Sequence[int],
    running: Sequence[int],
    max_steps: int,
    steps_before: int = 0,
) -> float | None:
    """Estimate how long a search still takes: steps that are left at the speed so far.

    Trials to come are expected to train as many steps as those that ended did on average
    (`max_steps` before the first has ended), and so are running trials; one that trains longer
    already is expected to go on to `max_steps`. The speed is that of all trials together, starting
    up and evaluating included.

    Args:
        elapsed: seconds since the search (or its continuation) began.
        total: trials of the whole search.
        ended: steps of each trial that ended.
        running: steps so far of each trial that started and did not end.
        max_steps: steps of a trial that runs to its end.
        steps_before: steps among these that were trained before `elapsed` began.

    Returns:
        Seconds, or None as long as no step is done.
    """
    done = sum(ended) + sum(running) - steps_before
    if done <= 0:
        return None
    usual = sum(ended) / len(ended) if ended else max_steps
    left = (total - len(ended) - len(running)) * usual
    left += sum((usual if step < usual else max_steps) - step for step in running)
    return max(0.0, elapsed * left / done)


def _step(trial: Trial) -> int:
    # Not `trial.last_result`, which waits for the trial's process before the first report.
    return int(trial.run_metadata.last_result.get("step", 0))


def _best(trial: Trial) -> float | None:
    best = trial.metric_analysis.get("feasible_j", {}).get("max")
    return best if best is not None and best > 0 else None


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
