"""python -m detox_tune.evaluate: score systems between baselines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from detox_tune import __version__
from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import program
from detox_tune.config import Quoting, TrialConfig
from detox_tune.errors import UserError
from detox_tune.files import check_can_write, write_json

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from detox_tune.data.lexicon import Lexicon
    from detox_tune.data.pairs import Pair
    from detox_tune.data.toxicity import ToxicityData
    from detox_tune.evaluation.cross_fitting import FittedScorers

_TABLE_WIDTH = 160  # characters where no terminal limits them


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: a table of systems and baselines, per language; JSON on request."""
    options = parser().parse_args(arguments)
    _check_systems(options)
    if options.scorers == "official" and (options.toxicity_data or options.train_pairs):
        raise UserError(
            "--toxicity-data and --train-pairs fit the embedded classifier, which "
            "--scorers official does not use: leave one of them out"
        )
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.data.lexicon import Lexicon
    from detox_tune.data.toxicity import load_toxicity_data
    from detox_tune.evaluation.comparison import score_baselines, why_no_deletion
    from detox_tune.evaluation.references import load_references
    from detox_tune.evaluation.scores import score_outputs
    from detox_tune.evaluation.submission import check_submission_path, write_submission
    from detox_tune.evaluation.system_outputs import outputs_of_systems
    from detox_tune.plain_console import PlainConsole

    width = None if sys.stdout.isatty() else _TABLE_WIDTH
    console = PlainConsole(width=width)
    if options.write_outputs:
        check_submission_path(options.write_outputs)
        check_can_write(options.write_outputs, "--write-outputs")
    if options.json:
        check_can_write(options.json, "--json")
    references = load_references(
        options.reference, language=options.language, spans=options.spans, **_columns(options)
    )
    pairs = references.pairs
    if references.loaded.bad_rows or references.loaded.n_spans:
        _say(console, references.loaded.report())
    languages = sorted({pair.language for pair in pairs})
    lexicon = Lexicon({language: () for language in languages})
    if options.lexicon:
        lexicon = Lexicon.load(options.lexicon, languages, all_needed=False)
    systems = dict(
        outputs_of_systems(
            references,
            submissions=options.submission,
            adapters=options.adapter,
            models=options.model,
            task_prefix=options.task_prefix,
            base_model=options.base_model,
            device=options.device,
            quoting=options.quoting,
        )
    )
    for name, system in systems.items():
        if system.cut:
            _say(
                console,
                f"{name}: {system.cut} of {len(system.outputs)} outputs were cut off at "
                f"{system.max_tokens} tokens, its max_tokens; they are scored as they are",
            )
    if options.write_outputs:
        (only,) = systems.values()
        write_submission(options.write_outputs, only.outputs, references)
    if why := why_no_deletion(options.lexicon, lexicon):
        _say(console, f"delete: left out{why}")
    labelled = None
    if options.toxicity_data:
        labelled = load_toxicity_data(options.toxicity_data, languages)
        if labelled.bad_rows:
            _say(console, labelled.report())
    fitted = _scorers(options, pairs, lexicon, labelled, console)
    scored = {
        name: score_outputs(
            [system.outputs[pair.language, pair.source] for pair in pairs],
            pairs,
            lexicon=lexicon,
            scorers=fitted.scorers,
            task_prefix=system.task_prefix,
        )
        for name, system in systems.items()
    }
    baselines = score_baselines(pairs, lexicon=lexicon, scorers=fitted.scorers)
    result = _show(scored, baselines, pairs, fitted, options.seed, console)
    if options.json:
        settings = {
            **_settings(options),
            "task_prefix": {name: system.task_prefix for name, system in systems.items()},
            "rows_dropped": len(references.loaded.bad_rows),
            "labelled_rows_dropped": len(labelled.bad_rows) if labelled else 0,
        }
        write_json(options.json, {**result, "settings": settings})
    return 0


def _check_systems(options: argparse.Namespace) -> None:
    systems = [*map(str, options.submission), *map(str, options.adapter), *options.model]
    number = len(systems)
    twice = next((one for one in systems if systems.count(one) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice: leave one of them out")
    if not number:
        raise UserError("there is nothing to score: give --submission, --adapter or --model")
    if options.write_outputs and number > 1:
        raise UserError(
            f"--write-outputs {options.write_outputs} holds one system, but {number} are given: "
            "run one at a time"
        )


def _show(
    scored: Mapping[str, pd.DataFrame],
    baselines: Mapping[str, pd.DataFrame],
    pairs: Sequence[Pair],
    fitted: FittedScorers,
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Print the scores of every system; returns them and `scorers` as JSON holds them."""
    from detox_tune.evaluation.comparison import (
        held_out_table,
        paired_differences,
        show_comparison,
        summarise,
    )

    scorers = fitted.scorers
    languages = [pair.language for pair in pairs]
    summaries = {
        name: summarise(frame, languages, seed=seed)
        for name, frame in [*scored.items(), *baselines.items()]
    }
    if fitted.held_out:
        _say(console, "embedded STA on held-out texts (not the official model)")
        console.print(held_out_table(fitted.held_out))
    _say(console, f"scorers: {scorers.name}; STA: {fitted.fitted_on}")
    if scorers.name == "official":
        from detox_tune.evaluation.official import NO_2025  # loads torch, which others do without

        _say(console, NO_2025)
    differences = paired_differences(scored, seed=seed)
    show_comparison(summaries, differences, scorers.name, console)
    return {
        "systems": {name: summaries[name] for name in scored},
        "baselines": {name: summaries[name] for name in baselines},
        "differences": differences,
        "scorers": {
            "name": scorers.name,
            "models": scorers.models,
            "sta": fitted.fitted_on,
            "held_out": list(fitted.held_out),
        },
    }


def _scorers(
    options: argparse.Namespace,
    pairs: Sequence[Pair],
    lexicon: Lexicon,
    labelled: ToxicityData | None,
    console: Console,
) -> FittedScorers:
    from detox_tune.evaluation import cross_fitting
    from detox_tune.evaluation.scorers import load_scorers

    seed = options.seed
    if options.scorers == "official":
        official = load_scorers("official", (), lexicon, seed=seed, device=options.device)
        return cross_fitting.FittedScorers(official, "the organisers' model")
    if labelled and not cross_fitting.enough_to_cross_fit(pairs):
        return cross_fitting.fitted_on_texts(labelled, pairs, lexicon=lexicon, seed=seed)
    if options.train_pairs:
        from detox_tune.data.pairs import load_pairs

        languages = [options.language] if options.language else []
        train = load_pairs(
            options.train_pairs, languages=languages, allow_bad_rows=True, **_columns(options)
        )
        if train.bad_rows:
            _say(console, train.report())
        return cross_fitting.fitted_on_pairs(train.pairs, pairs, lexicon=lexicon, seed=seed)
    return cross_fitting.cross_fitted(pairs, lexicon=lexicon, labelled=labelled, seed=seed)


def _columns(options: argparse.Namespace) -> dict[str, Any]:
    """How files of pairs are read, as `load_pairs` takes it."""
    names = ("source_column", "reference_columns", "language_column", "quoting")
    return {name: getattr(options, name) for name in names}


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decided the scores."""
    from detox_tune.evaluation.intervals import LEVEL, RESAMPLES

    systems = [*map(str, options.submission), *map(str, options.adapter), *options.model]
    names = ("base_model", "reference", "language", "lexicon", "spans")
    given = {name: getattr(options, name) for name in (*names, "toxicity_data", "train_pairs")}
    return {
        "systems": systems,
        **{name: None if value is None else str(value) for name, value in given.items()},
        **_columns(options),
        "seed": options.seed,
        "interval": LEVEL,
        "resamples": RESAMPLES,
        "version": __version__,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("evaluate"),
        description="Score files of outputs, adapters and whole models, one or several: the joint "
        "scores of PAN 2024 and 2025, and how outputs fail, per language, beside duplicate, delete "
        "and the reference.",
    )
    parser.add_argument(
        "--submission",
        type=path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="outputs: tsv (toxic_sentence, neutral_sentence, lang), jsonl (id, text), or a line "
        "each",
    )
    parser.add_argument(
        "--adapter",
        type=path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="the best/ folder of a search, or that of a PEFT adapter",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="NAME_OR_FOLDER",
        help="a T5-family checkpoint that is tuned as a whole, on the hub or in a folder",
    )
    parser.add_argument(
        "--task-prefix",
        help="what stood before the sources: its echo in an output hides no copy (default: "
        f"{TrialConfig().task_prefix!r} for a submission; an adapter's own, or none)",
    )
    parser.add_argument(
        "--reference", required=True, help="pairs: a tsv, csv, jsonl or parquet file, or a folder"
    )
    parser.add_argument("--json", type=path, help="write the scores here")
    parser.add_argument(
        "--write-outputs", type=path, help="write the outputs: .tsv (PAN 2025) or .jsonl (2024)"
    )
    parser.add_argument("--language", help="score this language alone; also that of unnamed files")
    parser.add_argument("--source-column", help="of the pairs' toxic sentences, if not found")
    parser.add_argument(
        "--reference-columns", nargs="+", default=(), help="of their neutral sentences"
    )
    parser.add_argument("--language-column", help="of their language codes")
    parser.add_argument(
        "--quoting",
        choices=get_args(Quoting),
        default="auto",
        help="quotes of a tsv or csv of pairs or outputs: as csv has them, or plain characters "
        "(default: auto, as the file looks)",
    )
    parser.add_argument("--lexicon", help="toxic words: a file, or a folder with one per language")
    parser.add_argument("--spans", help="annotated toxic spans: a file or folder")
    parser.add_argument(
        "--scorers",
        choices=("embedded", "official"),
        default="embedded",
        help="official: the organisers' models, which are downloaded (default: embedded)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--toxicity-data",
        type=path,
        help="fit the embedded STA on these labelled texts (text, toxic), too: a file or folder",
    )
    source.add_argument(
        "--train-pairs",
        help="fit it on these pairs alone, instead of the references that are not being scored",
    )
    parser.add_argument("--seed", type=int, default=0, help="of fits and intervals (default: 0)")
    parser.add_argument("--base-model", help="the adapter's base, where it has moved")
    parser.add_argument(
        "--device", default="cpu", help="of the adapter and the official models (default: cpu)"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
