"""What all trials of a search share, computed once on the driver and kept in Ray's object store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detox_tune.config import MaskAnchor, SearchConfig
from detox_tune.data import embedded
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import LoadedPairs, Pair, load_pairs
from detox_tune.data.split import Splits, split_pairs
from detox_tune.data.tokenise import Example, encode_sources, tokenise, toxic_token_ids
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.scores import EmbeddedScorers, Scorers
from detox_tune.model.base import load_tokenizer
from detox_tune.model.pocket import pocket_base
from detox_tune.model.vocabulary import Vocabulary, needed_tokens
from detox_tune.training.masking import toxic_positions

MASK_ANCHORS: tuple[MaskAnchor, ...] = ("edits", "labels")


@dataclass(frozen=True)
class Corpus:
    """Pairs, split, and the lexicon that belongs to them."""

    splits: Splits
    lexicon: Lexicon
    loaded: LoadedPairs | None
    """How reading went; None for the embedded corpus."""


@dataclass(frozen=True)
class Task:
    """Everything a trial needs besides its own settings."""

    base: str
    """Hub name or folder of the base model."""
    examples: tuple[Example, ...]
    source_ids: dict[str, list[list[int]]]
    """For each task prefix: prefix and source of every training pair, as ids that trials use."""
    positions: dict[MaskAnchor, list[list[bool]]]
    """For each anchor and example: which label positions are toxic (DESIGN part 3)."""
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    """The fixed sample that every report decodes."""
    forbidden_token_ids: list[int]
    """What the penalty keeps down, as ids of the full base."""
    vocabulary: Vocabulary | None
    """The tokens that trials train with; None for all."""
    over_long: int
    """Training examples left out because source or reference exceed `max_tokens`."""
    lexicon: Lexicon
    scorers: Scorers

    def rows(self, *, task_prefix: str, anchor: MaskAnchor) -> list[dict[str, Any]]:
        """Rows for `build_trainer`: prefixed input ids, labels and their toxic positions.

        Args:
            task_prefix: one of those that the task was built with.
            anchor: what makes a label position toxic.
        """
        source_ids = self.source_ids[task_prefix]
        return [
            {
                "input_ids": source_ids[example.pair],
                "labels": self.trained_ids(example.label_ids),
                "label_toxic": example.label_toxic,
                "toxic_positions": toxic,
            }
            for example, toxic in zip(self.examples, self.positions[anchor], strict=True)
        ]

    def trained_ids(self, ids: Sequence[int]) -> list[int]:
        """Ids of the base that trials train on for ids of the full one."""
        return list(ids) if self.vocabulary is None else self.vocabulary.cut(ids)


def load_corpus(config: SearchConfig) -> Corpus:
    """Read, check and split the pairs, and read the lexicon.

    Raises:
        UserError: if data or lexicon can't be read, or break a rule.
    """
    loaded = None
    if config.data == "embedded":
        pairs: Sequence[Pair] = _embedded_pairs(config)
    else:
        loaded = load_pairs(
            config.data,
            languages=config.languages,
            source_column=config.source_column,
            reference_columns=config.reference_columns,
            language_column=config.language_column,
            spans=config.spans,
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
    return Corpus(splits, _lexicon(config, languages), loaded)


def _embedded_pairs(config: SearchConfig) -> list[Pair]:
    pairs = embedded.embedded_pairs(config.seed)
    known = sorted({pair.language for pair in pairs})
    for language in config.languages:
        if language not in known:
            raise UserError(
                f"languages: the embedded corpus has no {language!r}, only {', '.join(known)}: "
                "name one of these, or give --data"
            )
    return [p for p in pairs if not config.languages or p.language in config.languages]


def _lexicon(config: SearchConfig, languages: Sequence[str]) -> Lexicon:
    if config.lexicon is not None:
        return Lexicon.load(config.lexicon, languages)
    if config.data == "embedded":
        return embedded.embedded_lexicon()
    return Lexicon({language: () for language in languages})


def build_base(
    config: SearchConfig, corpus: Corpus, progress: Callable[[int], None] | None = None
) -> str:
    """The base model's name; for `pocket` the folder that it was built in (or found)."""
    if config.base_model != "pocket":
        path = Path(config.base_model)
        return str(path.resolve()) if path.is_dir() else config.base_model
    folder = pocket_base(
        denoising_sentences(config, corpus),
        vocabulary=config.pocket_vocabulary,
        steps=config.pocket_steps,
        seed=config.seed,
        progress=progress,
    )
    return str(folder)


def denoising_sentences(config: SearchConfig, corpus: Corpus) -> list[str]:
    """What the pocket base is pre-trained on: never a validation or test sentence."""
    if config.data == "embedded":
        return embedded.embedded_sentences(config.seed, config.languages)
    texts = (text for pair in corpus.splits.train for text in (pair.source, *pair.references))
    return list(dict.fromkeys(texts))


def build_task(
    config: SearchConfig, corpus: Corpus, base: str, *, task_prefixes: Collection[str]
) -> Task:
    """Tokenise and mask once, fit the embedded scorers on the training split.

    Args:
        config: of the search.
        corpus: its pairs and lexicon.
        base: hub name or folder of the base model.
        task_prefixes: those that a trial may use.

    Raises:
        UserError: if no training pair is short enough.
    """
    tokenizer = load_tokenizer(base)
    train = corpus.splits.train
    tokenised = tokenise(train, tokenizer, corpus.lexicon, max_tokens=config.max_tokens)
    if not tokenised.examples:
        raise UserError(
            f"all {tokenised.over_long} training pairs are longer than max_tokens="
            f"{config.max_tokens}: raise max_tokens"
        )
    texts = [pair.source for pair in train]
    source_ids = {prefix: encode_sources(texts, tokenizer, prefix) for prefix in task_prefixes}
    vocabulary = None
    if config.fast and config.vocabulary == "cut":
        trained = [ids for rows in source_ids.values() for ids in rows]
        trained += [ids for example in tokenised.examples for ids in example.ids()]
        used = tokens_of(trained, corpus, tokenizer, task_prefixes)
        vocabulary = needed_tokens(tokenizer, used)
        source_ids = {p: list(map(vocabulary.cut, rows)) for p, rows in source_ids.items()}
    return Task(
        base=base,
        examples=tokenised.examples,
        source_ids=source_ids,
        positions={anchor: _positions(tokenised.examples, anchor) for anchor in MASK_ANCHORS},
        train=train,
        validation=corpus.splits.validation[: config.validation_pairs],
        forbidden_token_ids=toxic_token_ids(tokenised.examples, min_purity=config.min_purity),
        vocabulary=vocabulary,
        over_long=tokenised.over_long,
        lexicon=corpus.lexicon,
        scorers=embedded_scorers(train, config.seed),
    )


def tokens_of(
    trained: Iterable[Sequence[int]], corpus: Corpus, tokenizer: Any, task_prefixes: Collection[str]
) -> set[int]:
    """Every token that a trial may read or be taught, and those of the lexicon.

    Of the test split the sources alone, so that the tuned model can be asked: what it answers
    there is chosen without a look at the references.

    Args:
        trained: ids of the training split, sources and labels.
        corpus: its splits and lexicon.
        tokenizer: of the full base.
        task_prefixes: those that a trial may use.
    """
    asked = (*corpus.splits.validation, *corpus.splits.test)
    texts = [prefix + pair.source for prefix in {"", *task_prefixes} for pair in asked]
    texts += [text for pair in corpus.splits.validation for text in pair.references]
    for language in {pair.language for pair in (*corpus.splits.train, *asked)}:
        texts += corpus.lexicon.entries(language)
    return {token for ids in (*trained, *encode_sources(texts, tokenizer, "")) for token in ids}


def embedded_scorers(train: Sequence[Pair], seed: int) -> Scorers:
    """Scorers that need no download; the classifier sees the training split only."""
    toxic = [pair.source for pair in train]
    neutral = [reference for pair in train for reference in pair.references]
    return EmbeddedScorers(NeutralityClassifier.fit(toxic, neutral, seed=seed))


def _positions(examples: Sequence[Example], anchor: MaskAnchor) -> list[list[bool]]:
    return [
        toxic_positions(
            example.source_ids,
            example.label_ids,
            example.source_toxic,
            example.label_toxic,
            mask_anchor=anchor,
        )
        for example in examples
    ]
