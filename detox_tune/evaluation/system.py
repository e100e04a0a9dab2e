"""A model's outputs on pairs, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.tokenise import encode_sources
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.evaluation.scores import Evaluation, Scorers, score_outputs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from detox_tune.model.adapter import Adapter
    from detox_tune.model.vocabulary import CutTokenizer


def rewrite(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | CutTokenizer,
    sources: Sequence[str],
    *,
    task_prefix: str,
    max_tokens: int,
    fast: bool = True,
) -> list[str]:
    """Greedy outputs for sources, sentinels left in so that they can be counted.

    With `fast` they are drafted from the sources, which changes nothing but the time.
    """
    source_ids = encode_sources(sources, tokenizer, task_prefix)
    if fast:
        drafts = encode_sources(sources, tokenizer, "")
        outputs = draft_decode(model, source_ids, drafts=drafts, max_new_tokens=max_tokens)
    else:
        outputs = greedy_decode(model, source_ids, max_new_tokens=max_tokens)
    return [str(tokenizer.decode(ids)) for ids in outputs]


def rewrite_with(adapter: Adapter, sources: Sequence[str]) -> list[str]:
    """What an exported adapter makes of sources."""
    return rewrite(
        adapter.model,
        adapter.tokenizer,
        sources,
        task_prefix=adapter.task_prefix,
        max_tokens=adapter.max_tokens,
    )


def evaluate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | CutTokenizer,
    pairs: Sequence[Pair],
    *,
    task_prefix: str,
    max_tokens: int,
    lexicon: Lexicon,
    scorers: Scorers,
    fast: bool = True,
) -> Evaluation:
    """Decode the pairs' sources greedily and score the outputs."""
    sources = [pair.source for pair in pairs]
    outputs = rewrite(
        model, tokenizer, sources, task_prefix=task_prefix, max_tokens=max_tokens, fast=fast
    )
    return score_outputs(outputs, pairs, lexicon=lexicon, scorers=scorers)
