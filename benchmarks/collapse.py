"""python benchmarks/collapse.py DATA: which made copies, and which human rewrites, are copies?

Copies of twelve kinds are made from the sources of every language; the human rewrites are the
English ones of ParaDetox, each judged against the other references of its source. Writes
`collapse.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import regex
from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, run_command
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.data.text import UNSEGMENTED, words
from detox_tune.evaluation.collapse import comparable, is_copy
from detox_tune.files import write_text

ABOUT = """\
Share of made copies that the rule calls copies, by kind and language: the sources of
multilingual_paradetox (the human reference is what the rule compares with), with and without PAN's
lexicon. A disguise is put on every word of the source that its reference lacks; other places and
words are drawn by lot. In Chinese a word is a character, and a typo another character.
Below: ParaDetox' sources with several human rewrites; each rewrite is judged as an output, with its
own wording taken out of the references.
"""
PREFIX = "detoxify: "
LANGUAGES = ("am", "ar", "de", "en", "es", "hi", "ru", "uk", "zh")


class Draft(NamedTuple):
    """What a copy is made from."""

    pair: Pair
    vocabulary: list[str]
    """Words of other references in the language."""
    chance: random.Random

    @property
    def pieces(self) -> list[str]:
        """The source's words, or its characters in scripts without spaces."""
        if self.pair.language in UNSEGMENTED:
            return list(self.pair.source)
        return self.pair.source.split()

    def text(self, pieces: Sequence[str]) -> str:
        """Pieces as a sentence."""
        return ("" if self.pair.language in UNSEGMENTED else " ").join(pieces)

    def edited(self, places: Sequence[int], change: Callable[[str], str]) -> str:
        """The source with the pieces at `places` changed."""
        return self.text([change(p) if i in places else p for i, p in enumerate(self.pieces)])

    def other_word(self, _: str = "") -> str:
        """Some word of the language."""
        return self.chance.choice(self.vocabulary)

    @property
    def kept(self) -> set[str]:
        """The words that the reference has."""
        language = self.pair.language
        return {w.folded for text in self.pair.references for w in words(text, language)}

    def dropped(self) -> list[int]:
        """Places of pieces that the reference lacks."""
        kept = self.kept
        return [
            place
            for place, piece in enumerate(self.pieces)
            if (found := words(piece, self.pair.language))
            and not kept.intersection(word.folded for word in found)
        ]


def _disguised(draft: Draft, disguise: Callable[[str], str]) -> str:
    """The source with a disguise on every word that the reference lacks."""
    language, kept = draft.pair.language, draft.kept
    text = draft.pair.source
    for word in reversed(words(text, language)):
        if word.folded not in kept:
            text = text[: word.start] + disguise(text[word.start : word.end]) + text[word.end :]
    return text


def _masked(word: str) -> str:
    letters = regex.findall(r"\X", word)
    return str(letters[0] + "*" * max(1, len(letters) - 2) + "".join(letters[2:][-1:]))


def _spaced(word: str) -> str:
    return " ".join(regex.findall(r"\X", word))


def _swapped(piece: str) -> str:
    return piece[:1] + piece[2] + piece[1] + piece[3:]


def _typo(draft: Draft) -> str:
    long = [
        place for place, piece in enumerate(draft.pieces) if piece[:4].isalpha() and len(piece) > 3
    ]
    if draft.pair.language in UNSEGMENTED or not long:
        places = [place for place, piece in enumerate(draft.pieces) if piece.isalnum()]
        return draft.edited(places and [draft.chance.choice(places)], draft.other_word)
    return draft.edited([draft.chance.choice(long)], _swapped)


def _word_added(draft: Draft) -> str:
    pieces = draft.pieces
    pieces.insert(draft.chance.randrange(len(pieces) + 1), draft.other_word())
    return draft.text(pieces)


def _neutral_word_changed(draft: Draft) -> str:
    kept = sorted(set(range(len(draft.pieces))).difference(draft.dropped()))
    places = [place for place in kept if words(draft.pieces[place], draft.pair.language)]
    return draft.edited(places and [draft.chance.choice(places)], draft.other_word)


def _without_some_spaces(draft: Draft) -> str:
    return draft.pair.source.replace(" ", "  ", 1).replace(" ,", ",").replace(" .", ".")


KINDS: dict[str, Callable[[Draft], str]] = {
    "prefix echoed": lambda draft: PREFIX + draft.pair.source,
    "case": lambda draft: draft.pair.source.swapcase(),
    "punctuation": lambda draft: (
        draft.text([f"{p}," for p in draft.pieces[:-1]] + draft.pieces[-1:]) + "!"
    ),
    "spaces": _without_some_spaces,
    "sentinel": lambda draft: f"<extra_id_0> {draft.pair.source}",
    "truncated behind a sentinel": lambda draft: (
        "<extra_id_0> " + draft.text(draft.pieces[: -(-len(draft.pieces) // 2)])
    ),
    "word added": _word_added,
    "source twice": lambda draft: f"{draft.pair.source} {draft.pair.source}",
    "letters masked": lambda draft: _disguised(draft, _masked),
    "letters spaced": lambda draft: _disguised(draft, _spaced),
    "typo": _typo,
    "neutral word changed": _neutral_word_changed,
}


def made_copies(pairs: Sequence[Pair], kind: str, *, seed: int = 0) -> list[str]:
    """A copy of one kind of the source of every pair; all pairs of one language."""
    chance = random.Random(seed)
    vocabulary = sorted(
        {
            word.folded
            for pair in pairs
            for text in pair.references
            for word in words(text, pair.language)
        }
    )
    return [KINDS[kind](Draft(pair, vocabulary, chance)) for pair in pairs]


def withheld(pairs: Sequence[Pair]) -> list[tuple[str, Pair]]:
    """Each human rewrite of a pair that has several, and the pair without that wording."""
    return [
        (text, dataclasses.replace(pair, references=others))
        for pair in pairs
        for text in pair.references
        if (others := tuple(o for o in pair.references if comparable(o) != comparable(text)))
    ]


def caught(pairs: Sequence[Pair], lexicon: Lexicon, kind: str) -> float:
    """Share of made copies of one kind that are called copies; all pairs of one language."""
    outputs = made_copies(pairs, kind)
    found = [
        is_copy(output, pair, lexicon, task_prefix=PREFIX)
        for output, pair in zip(outputs, pairs, strict=True)
    ]
    return sum(found) / len(found)


def false_copies(pairs: Sequence[Pair], lexicon: Lexicon) -> tuple[float, int]:
    """Share of human rewrites that are called copies, and how many rewrites there are."""
    judged = [is_copy(text, pair, lexicon, task_prefix=PREFIX) for text, pair in withheld(pairs)]
    return sum(judged) / len(judged), len(judged)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the copies, judge them, write the page."""
    options = _parser().parse_args(arguments)
    data = options.data
    lexicon = Lexicon.load(data / "multilingual_toxic_lexicon", LANGUAGES, all_needed=False)
    without = Lexicon({language: () for language in LANGUAGES})
    loaded = load_pairs(
        str(data / "multilingual_paradetox"), languages=LANGUAGES, allow_bad_rows=True
    )
    by_language = {
        code: [pair for pair in loaded.pairs if pair.language == code] for code in LANGUAGES
    }
    rows = []
    for kind in KINDS:
        for name, used in (("with", lexicon), ("without", without)):
            shares = [caught(pairs, used, kind) for pairs in by_language.values()]
            shares.append(sum(shares) / len(shares))
            rows.append([kind, name, *(f"{share:.3f}" for share in shares)])
    human = load_pairs(str(data / "paradetox_en.tsv"), languages=["en"], allow_bad_rows=True).pairs
    lines = []
    for name, used in (("with", lexicon), ("without", without)):
        share, count = false_copies(human, used)
        lines.append(f"{share:.2%} of {count:,} {name} the lexicon")
    table = markdown_table(["copies made", "lexicon", *LANGUAGES, "mean"], rows, texts=2)
    write_text(
        options.out,
        f"# What is called a copy\n\n`python benchmarks/collapse.py {data.name}`, commit "
        f"{commit()}, {date.today().isoformat()}\n\n{ABOUT}\n{table}\n"
        f"Human rewrites called copies: {', '.join(lines)}.\n",
    )
    print(f"written to {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/collapse.py",
        description="How many made copies, and human rewrites, are called copies.",
    )
    parser.add_argument(
        "data",
        type=Path,
        help="folder with multilingual_paradetox, multilingual_toxic_lexicon and paradetox_en.tsv",
    )
    parser.add_argument("--out", type=output_file, default="results/collapse.md")
    return parser


if __name__ == "__main__":
    run_command(main)
