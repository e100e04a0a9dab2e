"""What all trials of a search share, computed once on the driver and kept in Ray's object store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from transformers import AutoConfig

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.scorers import load_scorers
from detox_tune.evaluation.scores import Scorers, copy_outputs, mean_scores, score_outputs
from detox_tune.model.base import load_tokenizer
from detox_tune.model.vocabulary import Vocabulary, needed_tokens
from detox_tune.training.examples import Example, encode_sources, make_examples, toxic_token_ids
from detox_tune.tuning.corpus import Corpus


@dataclass(frozen=True)
class Task:
    """Everything a trial needs besides its own settings. All ids are those of the cut base."""

    base: str
    """Hub name or folder of the base model."""
    vocabulary: Vocabulary
    """The tokens that trials train with."""
    examples: tuple[Example, ...]
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    """The fixed sample that every report decodes."""
    forbidden_token_ids: list[int]
    """What the toxic penalty keeps down."""
    over_long: int
    """Training examples left out because source or reference exceed `max_tokens`."""
    lexicon: Lexicon
    scorers: Scorers
    copy_j: float
    """`j` of the untouched copy on the validation sample: a winner is above it."""
    base_files: tuple[tuple[str, bytes], ...] = ()
    """Of a pocket base, names and contents: other nodes may not see the driver's files."""

    def score(
        self, outputs: Sequence[str], pairs: Sequence[Pair], task_prefix: str
    ) -> pd.DataFrame:
        """The scores of every output (see `score_outputs`) of a trial with that prefix."""
        return score_outputs(
            outputs, pairs, lexicon=self.lexicon, scorers=self.scorers, task_prefix=task_prefix
        )

    def mean_scores(
        self, outputs: Sequence[str], pairs: Sequence[Pair], task_prefix: str
    ) -> dict[str, float]:
        """The scores of outputs on pairs, which a trial with that prefix was asked for."""
        return mean_scores(self.score(outputs, pairs, task_prefix))

    def rows(self, trial: TrialConfig) -> list[dict[str, Any]]:
        """Rows for `build_trainer`, one for each example.

        Args:
            trial: its task prefix is one of those that the task was built with. A mask that reads
                no anchor gets the positions of the default one, which only its statistics count.
        """
        anchor = trial.mask_anchor or "answers"
        return [
            {
                "input_ids": example.input_ids[trial.task_prefix],
                "labels": example.label_ids,
                "label_toxic": example.label_toxic,
                "toxic_positions": example.toxic[anchor],
            }
            for example in self.examples
        ]


def build_task(
    config: SearchConfig, corpus: Corpus, base: str, *, task_prefixes: Collection[str]
) -> Task:
    """Tokenise and mask once, cut the vocabulary, fit the scorers on the training split.

    Args:
        config: of the search.
        corpus: its pairs and lexicon.
        base: hub name or folder of the base model.
        task_prefixes: those that a trial may use.

    Raises:
        UserError: if no training pair is short enough, or the tokenizer gives no offsets.
    """
    tokenizer = load_tokenizer(base)
    if not tokenizer.is_fast:
        raise UserError(
            f"base_model={base!r}: its tokenizer ({type(tokenizer).__name__}) does not tell which "
            "characters a token stands for, and masks need that: take another base, such as "
            "google/mt5-base"
        )
    train = corpus.splits.train
    full, over_long = make_examples(
        train,
        tokenizer,
        corpus.lexicon,
        task_prefixes=task_prefixes,
        max_tokens=config.max_tokens,
    )
    if not full:
        raise UserError(
            f"all {over_long} training pairs are longer than max_tokens={config.max_tokens}: "
            "raise max_tokens"
        )
    if config.vocabulary == "cut":
        vocabulary = needed_tokens(tokenizer, used_tokens(full, corpus, tokenizer, task_prefixes))
    else:
        vocabulary = Vocabulary(tuple(range(AutoConfig.from_pretrained(base).vocab_size)))
    examples = tuple(example.cut(vocabulary) for example in full)
    validation = corpus.splits.validation[: config.validation_pairs]
    scorers = load_scorers(
        config.scorers,
        train,
        corpus.lexicon,
        seed=config.seed,
        device="cuda" if config.gpus_per_trial > 0 else "cpu",
    )
    copied = score_outputs(
        copy_outputs(validation), validation, lexicon=corpus.lexicon, scorers=scorers
    )
    return Task(
        base=base,
        vocabulary=vocabulary,
        examples=examples,
        train=train,
        validation=validation,
        forbidden_token_ids=toxic_token_ids(examples, min_purity=config.min_purity),
        over_long=over_long,
        lexicon=corpus.lexicon,
        scorers=scorers,
        copy_j=mean_scores(copied)["j"],
    )


def used_tokens(
    examples: Iterable[Example], corpus: Corpus, tokenizer: Any, task_prefixes: Collection[str]
) -> set[int]:
    """Every token that a trial may read or be taught, and those of the lexicon.

    Of the test split the sources alone, so that the tuned model can be asked: what it answers
    there is chosen without a look at the references.

    Args:
        examples: of the training split, with ids of the full base.
        corpus: its splits and lexicon.
        tokenizer: of the full base.
        task_prefixes: those that a trial may use.
    """
    asked = (*corpus.splits.validation, *corpus.splits.test)
    texts = [prefix + pair.source for prefix in {"", *task_prefixes} for pair in asked]
    texts += [text for pair in corpus.splits.validation for text in pair.references]
    for language in {pair.language for pair in (*corpus.splits.train, *asked)}:
        texts += corpus.lexicon.entries(language)
    used = {token for example in examples for ids in example.ids() for token in ids}
    return used.union(*encode_sources(texts, tokenizer, ""))
