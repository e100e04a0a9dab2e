"""The vocabulary cut: embedding and head of a base without the tokens that nobody needs.

A quarter million rows of mT5's embedding and head serve a hundred languages; a search needs those
of its data. What is left computes bit-identical logits for the tokens kept, but the softmax runs
over these alone: the one step of the fast path that is not exact. Adapters leave embedding and head
alone, so one that was trained on a cut base fits the full one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detox_tune.model.base import sentinel_ids

_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))  # they spell what no piece covers


@dataclass(frozen=True)
class Vocabulary:
    """The tokens kept of a base, and the way between its ids and those of the cut base."""

    kept: tuple[int, ...]
    """Ids of the full base, ascending; the place of an id is its id in the cut base."""

    def cut(self, ids: Sequence[int]) -> list[int]:
        """Ids of the cut base for ids of the full one.

        Raises:
            KeyError: an id that was not kept.
        """
        return [self._places[i] for i in ids]

    def full(self, ids: Sequence[int]) -> list[int]:
        """Ids of the full base for ids of the cut one."""
        return [self.kept[i] for i in ids]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {token: place for place, token in enumerate(self.kept)}


def needed_tokens(tokenizer: PreTrainedTokenizerBase, used: Iterable[int]) -> Vocabulary:
    """The vocabulary that data need: the ids used, and what T5 needs always.

    That is special tokens, sentinels, and the byte pieces that spell what no other piece covers.

    Args:
        tokenizer: of the full base.
        used: ids that occur in the data.
    """
    pieces = tokenizer.get_vocab()
    always = {i for piece, i in pieces.items() if piece in _BYTES}
    always.update(tokenizer.all_special_ids, sentinel_ids(tokenizer))
    return Vocabulary(tuple(sorted(always.union(used))))


def cut_vocabulary(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Keep these rows of embedding and head, and tell the config; nothing else is touched.

    Args:
        model: a T5-family model with or without a tied head, changed in place.
        vocabulary: holds the model's pad, end and start tokens.
    """
    config: Any = model.config
    stacks: list[Any] = [model, model.get_encoder(), model.get_decoder()]
    head = cast(nn.Linear, model.get_output_embeddings())
    # Encoder and decoder have embedding modules of their own, which may share one weight or not.
    embeddings: list[Any] = list(dict.fromkeys(s.get_input_embeddings() for s in stacks))
    cut: dict[nn.Parameter, nn.Parameter] = {}
    for module in (*embeddings, head):
        whole = module.weight
        if whole not in cut:
            kept_v = torch.tensor(vocabulary.kept, device=whole.device)
            cut[whole] = nn.Parameter(whole.data[kept_v], requires_grad=False)
        module.weight = cut[whole]
    for embedding in embeddings:
        embedding.num_embeddings = len(vocabulary.kept)
    head.out_features = len(vocabulary.kept)
    config.vocab_size = len(vocabulary.kept)
    for settings in (config, model.generation_config):
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            token = getattr(settings, name, None)
            if token is not None:
                setattr(settings, name, _cut_token(vocabulary, token))


def _cut_token(vocabulary: Vocabulary, token: int | list[int]) -> int | list[int]:
    return vocabulary.cut([token])[0] if isinstance(token, int) else vocabulary.cut(token)


class CutTokenizer:
    """A tokenizer with the ids of a cut base."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    def __call__(self, text: str) -> Any:
        """As the tokenizer's; `input_ids` are those of the cut base.

        Raises:
            KeyError: a token that was not kept.
        """
        encoded = self._tokenizer(text)
        encoded["input_ids"] = self._vocabulary.cut(encoded.input_ids)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids of the cut base."""
        return str(self._tokenizer.decode(self._vocabulary.full(ids)))
