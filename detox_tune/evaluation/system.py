"""A model's outputs on pairs, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.tokenise import encode_sources
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.scores import Evaluation, Scorers, score_outputs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def rewrite(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    task_prefix: str,
    max_tokens: int,
) -> list[str]:
    """Greedy outputs for the pairs' sources, sentinels left in so that they can be counted."""
    sources = encode_sources(pairs, tokenizer, task_prefix)
    outputs = greedy_decode(model, sources, max_new_tokens=max_tokens)
    return [str(tokenizer.decode(ids)) for ids in outputs]


def evaluate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    task_prefix: str,
    max_tokens: int,
    lexicon: Lexicon,
    scorers: Scorers,
) -> Evaluation:
    """Decode the pairs' sources greedily and score the outputs."""
    outputs = rewrite(model, tokenizer, pairs, task_prefix=task_prefix, max_tokens=max_tokens)
    return score_outputs(outputs, pairs, lexicon=lexicon, scorers=scorers)
