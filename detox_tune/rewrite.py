"""python -m detox_tune.rewrite: use an adapter."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import printable, program
from detox_tune.errors import UserError

if TYPE_CHECKING:
    from detox_tune.data.text_files import Texts
    from detox_tune.evaluation.adapters import TunedModel
    from detox_tune.evaluation.leftovers import Leftovers
    from detox_tune.evaluation.rewriting import Rewritten
    from detox_tune.evaluation.scores import Scorers
    from detox_tune.evaluation.stored_scorers import StoredScorers

_LINES_AT_ONCE = 256  # printed together, so that a long file shows its first lines soon
_MOST_CANDIDATES = 64
_SAID = 5  # texts that a loss is said of; the others are counted


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: one rewritten text for each that is given, in their order."""
    options = parser().parse_intermixed_args(arguments)
    _check_flags(options)
    texts = _texts(options)
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.data.text_files import check_output, write_texts
    from detox_tune.evaluation.adapter_files import METRICS
    from detox_tune.evaluation.adapters import load_adapter
    from detox_tune.evaluation.leftovers import leftovers
    from detox_tune.evaluation.stored_scorers import read_scorers

    if options.output:
        check_output(options.output, texts, options.input, flags=options.flags)
    adapter = load_adapter(
        options.adapter,
        base_model=options.base_model,
        task_prefix=options.task_prefix,
        device=options.device,
    )
    stored = read_scorers(options.adapter)
    texts = _with_languages(texts, options.language, stored)
    scorers = _scorers(options, texts, stored) if options.candidates > 1 else None
    if not (options.adapter / METRICS).exists():
        _say(
            f"{options.adapter} has no {METRICS}: task prefix {adapter.task_prefix!r} "
            f"(--task-prefix), at most {adapter.max_tokens} tokens for a sentence"
        )
    outputs = _rewrite(adapter, texts, scorers, options)
    lexicon = stored.lexicon() if stored else None
    left = leftovers(
        outputs, texts.texts, texts.languages, lexicon, task_prefix=adapter.task_prefix
    )
    if options.output:
        write_texts(options.output, texts, outputs, left._asdict() if options.flags else {})
    _say_what_is_left(left, options, stored)
    return 0


def _check_flags(options: argparse.Namespace) -> None:
    if not 1 <= options.candidates <= _MOST_CANDIDATES:
        raise UserError(f"--candidates {options.candidates}: give 1 (greedy) to {_MOST_CANDIDATES}")
    if options.text and options.input:
        raise UserError(f"--input {options.input} and texts as arguments: give one of them")
    if options.source_column is not None and not options.input:
        raise UserError("--source-column names a column of --input FILE: give both")
    if options.flags and not options.output:
        raise UserError(
            "--flags adds columns, which lines have not: give --output FILE, a .tsv, .csv or .jsonl"
        )


def _texts(options: argparse.Namespace) -> Texts:
    from detox_tune.data.text_files import Texts, decoded, line_names, read_texts, text_lines

    if options.input:
        texts = read_texts(options.input, source_column=options.source_column)
    else:
        lines = (
            # What Python could not decode in the locale it keeps, and gives back here.
            [decoded(os.fsencode(text), f"text {n}") for n, text in enumerate(options.text, 1)]
            if options.text
            else text_lines(_stdin(), "stdin")
        )
        texts = Texts(lines, line_names(len(lines)), [None] * len(lines))
    if not texts.texts:
        where = f" in {options.input}" if options.input else ""
        raise UserError(
            f"there is no text to rewrite{where}: give sentences as arguments, on stdin, or in an "
            "--input FILE"
        )
    if missing := texts.texts.count(None):
        _say(f"{missing} of {len(texts.texts)} rows have no text: their outputs are empty, too")
    return texts


def _stdin() -> bytes:
    """All of stdin, which is UTF-8 whatever the locale."""
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        _say("reading sentences from the terminal, one per line; end with Ctrl-D")
    return sys.stdin.buffer.read()


def _with_languages(texts: Texts, language: str | None, stored: StoredScorers | None) -> Texts:
    """The texts, with the given language, or the run's only one, where they do not tell theirs."""
    from detox_tune.data.text import language_code

    if language is None and stored and len(stored.languages) == 1:
        language = stored.languages[0]
    code = language and language_code(language)
    return dataclasses.replace(texts, languages=[own or code for own in texts.languages])


def _scorers(options: argparse.Namespace, texts: Texts, stored: StoredScorers | None) -> Scorers:
    """What chooses among candidates."""
    if stored is None:
        raise UserError(
            f"--candidates {options.candidates}: they are chosen by the scorers of the search, "
            f"and {options.adapter} has no scorers.json: export it by a search, or leave "
            "--candidates out"
        )
    for where, language in zip(texts.where, texts.languages, strict=True):
        if language not in stored.languages:
            named, remedy = f"in {language!r}", "leave such texts out"
            if language is None:
                named, remedy = "in a language that is not known", "give --language"
            raise UserError(
                f"{where} is {named}, but --candidates are chosen by a classifier for "
                f"{', '.join(stored.languages)}: {remedy}, or leave --candidates out"
            )
    return stored.scorers(device=options.device)


def _rewrite(
    adapter: TunedModel, texts: Texts, scorers: Scorers | None, options: argparse.Namespace
) -> list[str]:
    """What becomes of every text; where no file is to be written, printed as it comes."""
    from detox_tune.data.text_files import one_line
    from detox_tune.long_work import progress_of
    from detox_tune.plain_console import PlainConsole

    # On a terminal the lines themselves show how far it is.
    shown = not options.output and sys.stdout.isatty()
    console = PlainConsole(stderr=True, quiet=shown)
    outputs: list[str] = []
    losses = _Losses(adapter.max_tokens)
    with progress_of("rewriting", "texts", len(texts.texts), console) as progress:
        for start in range(0, len(texts.texts), _LINES_AT_ONCE):
            part = slice(start, start + _LINES_AT_ONCE)
            asked, languages = texts.texts[part], texts.languages[part]
            made = _answered(adapter, asked, languages, scorers, options.candidates)
            for where, rewritten in zip(texts.where[part], made, strict=True):
                outputs.append(rewritten.text)
                if not options.output:
                    line = one_line(rewritten.text)
                    print(printable(line) if shown else line)
                losses.say(where, rewritten)
            progress(len(outputs))
    losses.say_others()
    return outputs


def _answered(
    adapter: TunedModel,
    texts: Sequence[str | None],
    languages: Sequence[str | None],
    scorers: Scorers | None,
    candidates: int,
) -> list[Rewritten]:
    """Greedy answers, or the best candidates, which are chosen language by language."""
    from detox_tune.evaluation.candidates import best_answers
    from detox_tune.evaluation.rewriting import rewrite_texts

    given = [text or "" for text in texts]
    if scorers is None:
        return adapter.rewrite(given)
    made: dict[int, Rewritten] = {}
    for language in dict.fromkeys(languages):
        places = [place for place, own in enumerate(languages) if own == language]
        best = partial(
            best_answers,
            adapter,
            count=candidates,
            language=language or "",
            scorers=scorers,
        )
        made |= zip(places, rewrite_texts([given[place] for place in places], best), strict=True)
    return [made[place] for place in range(len(given))]


class _Losses:
    """Says what answers lack: of the first texts by name, of the others how many they are."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.texts = 0

    def say(self, where: str, rewritten: Rewritten) -> None:
        self.texts += bool(rewritten.cut or rewritten.empty)
        if self.texts > _SAID:
            return
        if rewritten.cut:
            _say(
                f"{where}: {rewritten.cut} answers were cut off at {self.max_tokens} tokens, the "
                "adapter's max_tokens: write that sentence as shorter ones, or check its answer"
            )
        if rewritten.empty:
            _say(f"{where}: {rewritten.empty} answers are empty: rewrite that sentence by hand")

    def say_others(self) -> None:
        if self.texts > _SAID:
            _say(f"{self.texts - _SAID} more texts have answers that were cut off or are empty")


def _say_what_is_left(
    left: Leftovers, options: argparse.Namespace, stored: StoredScorers | None
) -> None:
    asked = sum(copied is not None for copied in left.still_copy)
    if not asked:
        return
    looked_up = sum(toxic is not None for toxic in left.still_toxic)
    line = f"{left.still_copy.count(True)} of {asked} outputs are still a copy"
    if looked_up:
        of = "" if looked_up == asked else f" of {looked_up}"
        line += f", {left.still_toxic.count(True)}{of} still hold a toxic word"
    if looked_up < asked:
        why = "the run's lexicon has no words for their language, or that is not known (--language)"
        if stored is None:
            why = f"{options.adapter} has no scorers.json, which a search writes"
        line += f"; {asked - looked_up} were not searched for toxic words: {why}"
    _say(line)


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("rewrite"),
        description="Rewrite toxic sentences with an adapter, one text per line or row. Longer "
        "texts are rewritten sentence by sentence; what has no letter stays as it is.",
    )
    parser.add_argument(
        "adapter", type=path, help="the best/ folder of a search, or that of a PEFT adapter"
    )
    parser.add_argument("text", nargs="*", help="texts; without any, --input, or lines from stdin")
    parser.add_argument(
        "--input", type=path, help="a .txt with one text per line, or a tsv, csv, jsonl or parquet"
    )
    parser.add_argument("--source-column", help="of the texts in --input, if not found")
    parser.add_argument(
        "--output",
        type=path,
        help="write a .txt, or a .tsv, .csv or .jsonl with all columns of the input and "
        "neutral_sentence (default: lines to stdout)",
    )
    parser.add_argument(
        "--flags", action="store_true", help="add the columns still_copy and still_toxic"
    )
    parser.add_argument("--language", help="code of texts that do not tell theirs")
    parser.add_argument(
        "--candidates",
        type=int,
        default=1,
        metavar="N",
        help="decode N answers by beam search and take the best that is no copy, by the search's "
        "STA x SIM (default: 1, greedy)",
    )
    parser.add_argument("--base-model", help="the adapter's base, where it has moved")
    parser.add_argument(
        "--task-prefix", help="of an adapter that no search exported (default: none)"
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    return parser


if __name__ == "__main__":
    run_command(main)
