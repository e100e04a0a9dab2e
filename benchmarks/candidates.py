"""python benchmarks/candidates.py RUN: what `rewrite --candidates` gains on a run's test split.

Greedy answers against the best of several, scored and timed. Writes `candidates.md`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.errors import UserError
from detox_tune.files import write_text

if TYPE_CHECKING:
    from detox_tune.evaluation.adapters import TunedModel
    from detox_tune.evaluation.rewriting import Answer
    from detox_tune.evaluation.scores import Scorers

SCORES = ("j", "sta", "sim", "fl", "copy_rate")
ABOUT = """\
With beams, the likeliest answer that is no copy is taken. Candidates come from a beam search as
wide as their number. The best has the highest STA x SIM, by
the scorers of the search, and is no copy as far as that shows without a reference. **The same
scorers choose and judge**, so STA, SIM and with them j are kinder to chosen answers than others
would be; FL, the closeness to the reference, takes no part in the choice. Seconds are those of
decoding and choosing on one machine, one after the other.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Decode, score, write the page."""
    options = _parser().parse_args(arguments)
    from detox_tune.config import SearchConfig
    from detox_tune.evaluation.adapters import load_adapter
    from detox_tune.evaluation.intervals import mean_intervals
    from detox_tune.evaluation.scores import mean_scores, score_outputs
    from detox_tune.evaluation.stored_scorers import read_scorers
    from detox_tune.settings import validated
    from detox_tune.tuning.corpus import load_corpus
    from detox_tune.tuning.run_folder import read_record

    run, out = options.run.resolve(), options.out.resolve()
    record = read_record(run)
    adapter = load_adapter(run / "best")
    stored = read_scorers(run / "best")
    if stored is None:
        raise UserError(f"{run} has no best/scorers.json: give the folder of a newer search")
    if os.path.isdir(record.get("directory", "")):  # its settings name files as seen from there
        os.chdir(record["directory"])
    corpus = load_corpus(validated(SearchConfig, record["search"], str(run)))
    test, lexicon = corpus.splits.test, corpus.lexicon
    rows, first = [], 0.0
    ways = [("greedy", replace(adapter, beams=1), 1)]
    if adapter.beams > 1:
        ways.append((f"as the run: {adapter.beams} beams", adapter, 1))
    ways += [(f"best of {count}", adapter, count) for count in options.counts]
    for name, decoder, count in ways:
        scorers = stored.scorers(device="cpu")  # a new one remembers no text
        started = time.perf_counter()
        answers = _answers(decoder, [(p.language, p.source) for p in test], count, scorers)
        seconds = time.perf_counter() - started
        first = first or seconds
        scored = score_outputs(
            [answer.text for answer in answers],
            test,
            lexicon=lexicon,
            scorers=scorers,
            task_prefix=adapter.task_prefix,
        )
        low, high = mean_intervals(scored[["j"]], seed=0)["j"]
        means = mean_scores(scored)
        cells = [*(f"{means[score]:.3f}" for score in SCORES), f"{low:.3f}-{high:.3f}"]
        rows.append([name, *cells, f"{seconds:.1f}", f"{seconds / first:.1f}"])
    head = ("answers", *SCORES, "j, 95%", "s", "s / greedy's")
    table = markdown_table(head, rows)
    print(table)
    counts = " ".join(map(str, options.counts))
    write_text(
        out,
        f"# Candidates against greedy decoding\n\n`python benchmarks/candidates.py {run.name} "
        f"--counts {counts}`, commit {commit()}, {date.today().isoformat()}\n\n"
        f"The run's test split, {len(test)} pairs.\n\n{ABOUT}\n{table}",
    )
    return 0


def _answers(
    adapter: TunedModel, asked: Sequence[tuple[str, str]], count: int, scorers: Scorers
) -> list[Answer]:
    """Answers to sources, each with its language: the adapter's own for a count of 1."""
    from detox_tune.evaluation.candidates import best_answers

    def best(sources: Sequence[str], language: str) -> list[Answer]:
        return best_answers(adapter, sources, count=count, language=language, scorers=scorers)

    def own(sources: Sequence[str], language: str) -> list[Answer]:
        return adapter.answers(sources)

    answer: Callable[[Sequence[str], str], list[Answer]] = own if count == 1 else best
    made: dict[tuple[str, str], Answer] = {}
    for language in dict.fromkeys(code for code, _ in asked):
        sources = [source for code, source in asked if code == language]
        answered = zip(sources, answer(sources, language), strict=True)
        made |= {(language, source): one for source, one in answered}
    return [made[key] for key in asked]


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/candidates.py",
        description="Scores and times of the best of several candidates, beside greedy answers.",
    )
    parser.add_argument("run", type=path, help="folder of a search that has a winner")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=(4, 8), help="of candidates (default: 4 8)"
    )
    parser.add_argument("--out", type=output_file, default="results/candidates.md")
    return parser


if __name__ == "__main__":
    run_command(main)
