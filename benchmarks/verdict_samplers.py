"""python benchmarks/verdict_samplers.py: does TPE find more than random settings?

    python benchmarks/verdict_samplers.py tpe_0 tpe_1

Random trials do not depend on one another: what ASHA and the collapse rule make of them is worked
out from searches that pruned nothing, in many orders (verdict_pruning.py). TPE's do, so its
searches are run with the pruner, one for each random search, in their order. Reads pruning.csv, and
samplers.csv where no run is named. Writes results/verdict/samplers.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tables import commit, markdown_table, output_file
from verdict_pruning import PRUNERS, Replay, by_run, read_reports, replay

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.files import write_text

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Of the steps that all trials take without pruning."""
ABOUT = """\
The highest validation `j` at a copy rate of at most {bound:g}, after so many steps of all trials
together, as a share of what the random search takes without pruning. Random: the median over
{orders} orders of its trials, and from the 5th to the 95th hundredth of them. TPE: one search. Both
are pruned by ASHA and the collapse rule.

    detox-tune search benchmarks/verdict_pruning.yaml --name tpe_SEED --seed SEED \\
        --data paradetox_en.tsv --lexicon multilingual_toxic_lexicon sampler=tpe \\
        startup_trials=10 grace_steps=60 reduction_factor=3 collapse_grace=84 \\
        collapse_threshold=0.6
"""


def after(made: Replay, steps: float) -> float:
    """The best feasible j when all trials together had so many steps; 0 before the first report."""
    return max((j for done, j in made.best if done <= steps), default=0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and write the page."""
    parser = OneLineParser(prog="python benchmarks/verdict_samplers.py", description=__doc__)
    parser.add_argument("tpe", type=path, nargs="*", help="runs (default: those in the CSV)")
    parser.add_argument("--orders", type=int, default=100, help="of the trials (default: 100)")
    parser.add_argument("--slots", type=int, default=2, help="trials at once (default: 2)")
    parser.add_argument("--max-copy-rate", type=float, default=0.1)
    parser.add_argument("--out", type=output_file, default="results/verdict/samplers.md")
    options = parser.parse_args(arguments)
    bound, rows = options.max_copy_rate, []
    randoms = read_reports([], options.out.with_name("pruning.csv"))
    tpes = read_reports(options.tpe, options.out.with_suffix(".csv"))
    pairs = zip(by_run(randoms, bound).items(), by_run(tpes, bound).items(), strict=True)
    for (random, trials), (tpe, searched) in pairs:
        whole = sum(reports[-1]["step"] for reports in trials)
        named = {"slots": options.slots, "max_copy_rate": bound}
        pruner, rng = PRUNERS["ASHA + collapse rule"], np.random.default_rng(0)
        orders = [rng.permutation(len(trials)).tolist() for _ in range(options.orders)]
        many = [replay(trials, order, pruner, **named) for order in orders]
        once = replay(searched, range(len(searched)), {}, **named)
        for share in SHARES:
            low, middle, high = np.quantile(
                [after(made, share * whole) for made in many], (0.05, 0.5, 0.95)
            )
            spread = f"{low:.3f} to {high:.3f}"
            found = f"{after(once, share * whole):.3f}"
            rows.append([random, f"{share:g}", f"{middle:.3f}", spread, tpe, found])
    head = ["random", "share of the steps", "j, random", "5% to 95%", "TPE", "j, TPE"]
    text = (
        f"# TPE and random settings\n\n`python benchmarks/verdict_samplers.py`, commit {commit()}"
        f"\n\n{ABOUT.format(bound=bound, orders=options.orders)}\n{markdown_table(head, rows)}"
    )
    write_text(options.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    run_command(main)
