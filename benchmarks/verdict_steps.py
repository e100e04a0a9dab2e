"""python benchmarks/verdict_steps.py: does a mask make a training step faster?

    python benchmarks/verdict_steps.py \\
        --data paradetox_en.tsv --lexicon multilingual_toxic_lexicon

Trains each mask for a few steps in turn, in one process, on the same base and batches of the
experiment `claims`, round after round. Writes results/verdict/step_time.md.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.files import write_text

MASKS = ("none", "toxic_only", "toxic_context", "inverse_toxic")
ABOUT = """\
Medians over rounds; each round trains every mask for the same number of steps, so that what else
the machine does meets all of them. The ratio is the median of the rounds' ratios to `none`; beside
it the lowest and the highest of them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in turn, and write the page."""
    parser = OneLineParser(prog="python benchmarks/verdict_steps.py", description=__doc__)
    parser.add_argument("--data", type=path, required=True)
    parser.add_argument("--lexicon", type=path, required=True)
    parser.add_argument("--steps", type=int, default=20, help="of a round (default: 20)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=output_file, default="results/verdict/step_time.md")
    options = parser.parse_args(arguments)
    seconds = _measure(options)
    rows = []
    for mask, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["none"], strict=True)]
        rows.append(
            [
                mask,
                f"{1000 * statistics.median(times) / options.steps:.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        )
    table = markdown_table(["mask_strategy", "ms a step", "times `none`", "all rounds"], rows)
    write_text(
        options.out,
        f"# Claim 5: does a mask train in less time?\n\n`python benchmarks/verdict_steps.py "
        f"--data {options.data.name} --lexicon {options.lexicon.name} --steps {options.steps} "
        f"--rounds {options.rounds}`, commit {commit()}\n\n{ABOUT}\n{table}",
    )
    print(table)
    return 0


def _measure(options: Any) -> dict[str, list[float]]:
    """Seconds of each round by mask."""
    from rich.console import Console
    from transformers import PrinterCallback
    from verdict.experiment import read_experiment

    from detox_tune.config import TrialConfig
    from detox_tune.model.base import quiet_libraries
    from detox_tune.model.lora import adapted
    from detox_tune.tuning.base import find_base, load_cut_base
    from detox_tune.tuning.corpus import load_corpus
    from detox_tune.tuning.task import build_task
    from detox_tune.tuning.trial import training_arguments, trial_trainer

    quiet_libraries()
    experiment = read_experiment(Path(__file__).parent / "verdict" / "claims.yaml")
    arm = next(arm for arm in experiment.arms if arm.name == "default")
    overrides = {"data": str(options.data), "lexicon": str(options.lexicon)}
    config = experiment.config(arm, 0, {**overrides, "steps": options.steps, "eval_every": 1})
    corpus = load_corpus(config)
    found = find_base(config, corpus, Console())
    task = build_task(config, corpus, found, task_prefixes=[""])
    base, _ = load_cut_base(found, config.quantization, "cpu", task.vocabulary)
    seconds: dict[str, list[float]] = {mask: [] for mask in MASKS}
    settings = arm.trial.model_dump(exclude_none=True)
    for _ in range(options.rounds):
        for mask in MASKS:
            trial = TrialConfig.model_validate(settings | {"mask_strategy": mask})
            with adapted(base, trial, seed=0) as model, TemporaryDirectory() as folder:
                training = training_arguments(trial, config, Path(folder), "cpu")
                training.save_strategy = "no"
                trainer = trial_trainer(trial, model, training, config, task, task.rows(trial))
                trainer.remove_callback(PrinterCallback)
                started = time.perf_counter()
                trainer.train()
                seconds[mask].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_command(main)
