"""python -m detox_tune.merge: an adapter and its base as one model, in 16 bits."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import next_command, printable, program
from detox_tune.errors import UserError

if TYPE_CHECKING:
    from detox_tune.evaluation.adapters import TunedModel

PATIENCE = 4
"""With 1, its default, CTranslate2 stops at the first answers; transformers looks for better."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser().parse_args(arguments)
    for folder in (options.folder, options.ctranslate2):
        if folder and folder.exists():
            raise UserError(f"{folder} exists already: remove it, or name another folder")
    if options.ctranslate2:
        _check_ctranslate2()
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.evaluation.adapters import load_adapter, load_whole_model, merge_adapter

    tuned = load_adapter(options.adapter, base_model=options.base_model)
    sources = _sample_sources(options.adapter)
    before = [answer.text for answer in tuned.answers(sources)]
    merge_adapter(tuned, options.folder)
    merged = replace(
        load_whole_model(str(options.folder), task_prefix=tuned.task_prefix), beams=tuned.beams
    )
    after = [answer.text for answer in merged.answers(sources)]
    print(f"{options.folder}: a model of its own; {_same(before, after)}")
    if options.ctranslate2:
        after = _convert(options.folder, options.ctranslate2, merged, sources)
        print(f"{options.ctranslate2}: the same for CTranslate2; {_same(before, after)}")
    print(f"put {tuned.task_prefix!r} before every sentence" if tuned.task_prefix else "no prefix")
    prefix = ("--task-prefix", tuned.task_prefix)
    compare = ("--adapter", options.adapter, "--model", options.folder, *prefix)
    print(printable(f"compare: {next_command('evaluate', *compare)} --reference PAIRS"))
    return 0


def _sample_sources(adapter: Path) -> list[str]:
    """Sources of the samples that a search exported with the adapter; of another one, none."""
    from detox_tune.evaluation.adapter_files import SAMPLES

    if not (adapter / SAMPLES).is_file():
        return []
    with (adapter / SAMPLES).open(encoding="utf-8", newline="") as file:
        return [row["source"] for row in csv.DictReader(file, delimiter="\t")]


def _same(before: Sequence[str], after: Sequence[str]) -> str:
    same = sum(one == other for one, other in zip(before, after, strict=True))
    return f"{same} of its {len(before)} samples have the same output as before"


def _check_ctranslate2() -> None:
    try:
        import ctranslate2  # noqa: F401
    except ImportError:
        raise UserError("--ctranslate2 needs that package: pip install ctranslate2") from None


def _convert(model: Path, folder: Path, tuned: TunedModel, sources: Sequence[str]) -> list[str]:
    """Convert a model, and decode sources with what came out."""
    import ctranslate2

    from detox_tune.evaluation.rewriting import Answer, likeliest_new

    class Converter(ctranslate2.converters.TransformersConverter):  # type: ignore[misc]
        """Scales the decoder's output where transformers does."""

        def load_model(self, *names: Any, **options: Any) -> Any:
            # 4.8.5 scales it if the head is tied, and every T5 family config of transformers 5 says
            # that. Greedy answers stay as they are, but all probabilities get nearly equal.
            loaded: Any = super().load_model(*names, **options)
            scaled = getattr(loaded.config, "scale_decoder_outputs", False)
            loaded.config.tie_word_embeddings = scaled
            return loaded

    Converter(str(model)).convert(str(folder))
    translator: Any = ctranslate2.Translator(str(folder))
    tokenizer: Any = tuned.tokenizer
    asked = [
        tokenizer.convert_ids_to_tokens(tokenizer(tuned.task_prefix + source).input_ids)
        for source in sources
    ]
    found = translator.translate_batch(
        asked,
        beam_size=tuned.beams,
        num_hypotheses=tuned.beams,
        max_decoding_length=tuned.max_tokens,
        patience=PATIENCE,
    )

    def text(tokens: Sequence[str]) -> str:
        return str(tokenizer.decode(tokenizer.convert_tokens_to_ids(tokens)))

    made = [[Answer(text(tokens), False) for tokens in one.hypotheses] for one in found]
    return [
        likeliest_new(of_source, source, tuned.task_prefix).text
        for of_source, source in zip(made, sources, strict=True)
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("merge"),
        description="Write an adapter and its base as one model in bfloat16 that transformers "
        "loads by itself. A 4-bit base is unpacked first: the model is what the adapter was "
        "trained on. Outputs for the adapter's samples are compared.",
    )
    parser.add_argument("adapter", type=path, help="the best/ folder of a search")
    parser.add_argument("folder", type=path, help="where to write the model; must not exist")
    parser.add_argument("--base-model", help="the adapter's base, where it has moved")
    parser.add_argument(
        "--ctranslate2",
        type=path,
        metavar="FOLDER",
        help="write it for CTranslate2, too, which decodes faster",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
