"""python benchmarks/toxic_tokens.py DATA: the toxic tokens of each language, on pairs kept aside.

Two thirds of the pairs of each language choose the tokens that the penalty keeps down; the others
say how often these tokens really lie in toxic words. Writes `toxic_tokens.md`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from collapse import LANGUAGES
from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, run_command
from detox_tune.config import SearchConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.lexicon_purity import ordinary_words
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.errors import UserError
from detox_tune.files import write_text
from detox_tune.model.pocket import train_tokenizer
from detox_tune.training.examples import Example, make_examples, toxic_token_ids

ABOUT = """\
Tokens are those of a SentencePiece model trained on the pairs that choose them (300 to 2,000
pieces), toxic words those of PAN's lexicon without the ordinary ones (`lexicon_purity`). *seen*:
tokens that occur in the pairs kept aside. *pure*: those that lie in toxic words there at least 95%
of the time.
"""
_PURE = 0.95
_SIZES = (2000, 1500, 1000, 800, 600, 400, 300)
_SHOWN = 12


class Row(NamedTuple):
    """What came out for one set of pairs."""

    name: str
    pairs: int
    tokens: list[str]
    seen: int
    pure: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose, look at the pairs kept aside, write the page."""
    options = _parser().parse_args(arguments)
    data = options.data
    lexicon = Lexicon.load(data / "multilingual_toxic_lexicon", LANGUAGES)
    folder = str(data / "multilingual_paradetox")
    loaded = load_pairs(folder, languages=LANGUAGES, allow_bad_rows=True).pairs
    sets = {code: [pair for pair in loaded if pair.language == code] for code in LANGUAGES}
    file = str(data / "paradetox_en.tsv")
    sets["en, ParaDetox"] = list(load_pairs(file, languages=["en"], allow_bad_rows=True).pairs)
    rows = [measured(name, pairs, lexicon) for name, pairs in sets.items()]
    seen, pure = sum(row.seen for row in rows), sum(row.pure for row in rows)
    table = markdown_table(
        ["language", "such as", "pairs", "tokens", "seen", "pure"],
        [
            [row.name, " ".join(row.tokens[:_SHOWN]), str(row.pairs)]
            + [str(count) for count in (len(row.tokens), row.seen, row.pure)]
            for row in rows
        ],
        texts=2,
    )
    write_text(
        options.out,
        f"# Toxic tokens\n\n`python benchmarks/toxic_tokens.py {data.name}`, commit {commit()}, "
        f"{date.today().isoformat()}\n\n{ABOUT}\n{table}\n"
        f"Of {seen} tokens seen again, {pure} are pure ({pure / seen:.0%}).\n",
    )
    print(f"written to {options.out}")
    return 0


def measured(name: str, pairs: Sequence[Pair], lexicon: Lexicon) -> Row:
    """The toxic tokens of two thirds of the pairs of one language, judged by the others."""
    drawn = random.Random(0).sample(list(pairs), len(pairs))
    cut = 2 * len(drawn) // 3
    train, aside = drawn[:cut], drawn[cut:]
    rules = SearchConfig(name="x")
    own = Lexicon({pairs[0].language: lexicon.entries(pairs[0].language)})
    own = own.without(ordinary_words(own, train, purity=rules.lexicon_purity))
    tokenizer = _tokenizer([text for pair in train for text in (pair.source, *pair.references)])
    forbidden = toxic_token_ids(_examples(train, tokenizer, own), min_purity=rules.min_purity)
    total: Counter[int] = Counter()
    toxic: Counter[int] = Counter()
    for example in _examples(aside, tokenizer, own):
        for ids, marks in (
            (example.source_ids, example.source_toxic),
            (example.label_ids, example.label_toxic),
        ):
            total.update(ids)
            toxic.update(token for token, mark in zip(ids, marks, strict=True) if mark)
    seen = [token for token in forbidden if total[token]]
    pure = sum(toxic[token] >= _PURE * total[token] for token in seen)
    return Row(name, len(train), tokenizer.convert_ids_to_tokens(forbidden), len(seen), pure)


def _examples(pairs: Sequence[Pair], tokenizer: Any, lexicon: Lexicon) -> list[Example]:
    return make_examples(pairs, tokenizer, lexicon, task_prefixes=("",), max_tokens=512)[0]


def _tokenizer(texts: Sequence[str]) -> Any:
    """The largest vocabulary of some that fits the texts."""
    for size in _SIZES:
        try:
            return train_tokenizer(texts, size, Path(tempfile.mkdtemp()))
        except UserError:
            continue
    raise UserError(f"{len(texts)} sentences: too few for {_SIZES[-1]} pieces; give more pairs")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/toxic_tokens.py",
        description="The toxic tokens of each language, judged by pairs kept aside.",
    )
    parser.add_argument(
        "data",
        type=Path,
        help="folder with multilingual_paradetox, multilingual_toxic_lexicon and paradetox_en.tsv",
    )
    parser.add_argument("--out", type=output_file, default="results/toxic_tokens.md")
    return parser


if __name__ == "__main__":
    run_command(main)
