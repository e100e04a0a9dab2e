"""The data of a search: pairs, split, and their lexicon."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from detox_tune.config import SearchConfig
from detox_tune.data import embedded
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.lexicon_purity import ordinary_words
from detox_tune.data.pairs import LoadedPairs, Pair, load_pairs
from detox_tune.data.split import Splits, split_pairs
from detox_tune.errors import UserError

_SHOWN = 6  # entries that were set aside


@dataclass(frozen=True)
class Corpus:
    """Pairs, split, and the lexicon that belongs to them."""

    splits: Splits
    lexicon: Lexicon
    """Without the entries that are ordinary words in the training pairs."""
    set_aside: tuple[str, ...]
    """Those entries, sorted."""
    loaded: LoadedPairs | None
    """How reading went; None for the embedded corpus."""

    def report(self) -> str:
        """What was read, split and dropped; a few lines."""
        splits = self.splits
        loaded = self.loaded
        lines = [loaded.report()] if loaded and (loaded.bad_rows or loaded.n_spans) else []
        languages = sorted({pair.language for pair in splits.train})
        lines.append(
            f"pairs: {len(splits.train)} train, {len(splits.validation)} validation, "
            f"{len(splits.test)} test ({', '.join(languages)}); "
            f"lexicon: {len(self.lexicon)} entries"
        )
        if self.set_aside:
            shown = ", ".join(self.set_aside[:_SHOWN])
            lines.append(
                f"lexicon: {len(self.set_aside)} entries set aside as ordinary words here, since "
                f"references mostly keep them (lexicon_purity): {shown}"
            )
        return "\n".join(lines)


def load_corpus(config: SearchConfig) -> Corpus:
    """Read, check and split the pairs, and read the lexicon.

    Raises:
        UserError: if data or lexicon can't be read, or break a rule.
    """
    loaded = None
    if config.data == "embedded":
        pairs: Sequence[Pair] = _embedded_pairs(config.languages)
    else:
        loaded = load_pairs(
            config.data,
            languages=config.languages,
            source_column=config.source_column,
            reference_columns=config.reference_columns,
            language_column=config.language_column,
            spans=config.spans,
            quoting=config.quoting,
            allow_bad_rows=config.allow_bad_rows,
        )
        pairs = loaded.pairs
    splits = split_pairs(
        pairs,
        seed=config.seed,
        validation_share=config.validation_share,
        test_share=config.test_share,
    )
    languages = sorted({pair.language for pair in pairs})
    without = Corpus(splits, Lexicon({}), (), loaded)
    return with_lexicon(without, _lexicon(config, languages), config.lexicon_purity)


def with_lexicon(corpus: Corpus, lexicon: Lexicon, purity: float) -> Corpus:
    """The corpus with a lexicon, from which ordinary words are taken (`ordinary_words`)."""
    ordinary = ordinary_words(lexicon, corpus.splits.train, purity=purity)
    return dataclasses.replace(
        corpus,
        lexicon=lexicon.without(ordinary) if ordinary else lexicon,
        set_aside=tuple(sorted(entry for entries in ordinary.values() for entry in entries)),
    )


def denoising_sentences(config: SearchConfig, corpus: Corpus) -> Sequence[str]:
    """What the pocket base is pre-trained on: never a validation or test sentence."""
    if config.data == "embedded":
        return embedded.embedded_sentences(config.languages)
    texts = (text for pair in corpus.splits.train for text in (pair.source, *pair.references))
    return list(dict.fromkeys(texts))


def _embedded_pairs(languages: Sequence[str]) -> list[Pair]:
    pairs = embedded.embedded_pairs()
    known = sorted({pair.language for pair in pairs})
    for language in languages:
        if language not in known:
            raise UserError(
                f"languages: the embedded corpus has no {language!r}, only {', '.join(known)}: "
                "name one of these, or give --data"
            )
    return [pair for pair in pairs if not languages or pair.language in languages]


def _lexicon(config: SearchConfig, languages: Sequence[str]) -> Lexicon:
    if config.lexicon is not None:
        return Lexicon.load(config.lexicon, languages)
    if config.data == "embedded":
        return embedded.embedded_lexicon()
    return Lexicon({language: () for language in languages})
