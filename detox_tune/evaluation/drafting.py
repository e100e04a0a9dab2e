"""Greedy decoding that drafts from the source: the same ids as `greedy_decode`, in fewer passes.

A detoxified sentence is mostly a copy. So the source itself is the draft: one forward pass over it
tells how far greedy decoding would have copied, and which token it puts at the first difference
(speculative decoding, Leviathan et al. 2023, with the source in place of a draft model). After an
edit the draft goes on where the source aligns again; in between, one token a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from detox_tune.evaluation.decoding import evaluating, padded

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_AFTER_AN_EDIT = 3  # tokens drafted where the source aligns again; doubled while they are accepted
_LOOK_AHEAD = 12  # source tokens searched for the place where the output goes on
_ROWS = 64  # of a batch: larger ones have more padding, and leave a processor's cache
_LEFT = 1 / 8  # of a batch: these wait for those of others, a pass of few costs nearly as much


@dataclass(slots=True)
class _Row:
    """A sentence that is being decoded."""

    index: int
    draft: Sequence[int]
    output: list[int] = field(default_factory=list)
    place: int = 0
    """Where the draft goes on."""
    width: int = 0
    """Tokens to draft at most; 0 where the output has lost the source."""

    def drafted(self, left: int) -> Sequence[int]:
        """What to try next, when `left` tokens may still come."""
        return self.draft[self.place : self.place + min(self.width, left - 1)]

    def accept(
        self, drafted: Sequence[int], predicted: Sequence[int], end_ids: Collection[int]
    ) -> int:
        """Take the greedy tokens that the pass gave; returns how many drafted ones were right."""
        right = 0
        while right < len(drafted) and drafted[right] == predicted[right] not in end_ids:
            right += 1
        self.output.extend(predicted[: right + 1])
        self.place += right
        self._align(right == len(drafted))
        return right

    def anew(self) -> _Row:
        """The same sentence for another batch: what is decoded comes back as its first draft."""
        draft = [*self.output, *self.draft[self.place :]]
        return _Row(self.index, draft, width=len(draft))

    def _align(self, all_right: bool) -> None:
        """Find the newest token in what is left of the source; the draft goes on behind it."""
        newest = self.output[-1]
        ahead = self.draft[self.place : self.place + _LOOK_AHEAD]
        if newest in ahead:
            self.place += list(ahead).index(newest) + 1
            self.width = 2 * self.width if all_right and self.width else _AFTER_AN_EDIT
        else:
            self.width = 0


class _Decoder:
    """The rows of a batch with their encoded sources and cache; finished rows leave it.

    All rows end at the same column of the cache: rows that accepted less are moved to the right,
    and the columns before a row's first token are masked. T5's positions are relative, so a row
    does not notice.
    """

    def __init__(
        self, model: Any, sources: Sequence[Sequence[int]], rows: list[_Row], limit: int
    ) -> None:
        config = model.config
        self.model = model
        self.rows = rows
        self.limit = limit
        self.pad_id: int = config.pad_token_id
        self.start_id: int = config.decoder_start_token_id
        ends = config.eos_token_id
        self.end_ids = frozenset([ends] if isinstance(ends, int) else ends)
        device = next(model.parameters()).device
        input_ids_bs, self.source_mask_bs = padded(sources, self.pad_id, device)
        encoder = model.get_encoder()
        self.encoded_bsd: Tensor = encoder(
            input_ids=input_ids_bs, attention_mask=self.source_mask_bs
        ).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.mask_bt = self.source_mask_bs.new_zeros((len(rows), 0))

    def step(self) -> list[_Row]:
        """One forward pass; returns the rows that it finished."""
        drafts = [row.drafted(self.limit - len(row.output)) for row in self.rows]
        blocks = [
            [row.output[-1] if row.output else self.start_id, *draft]
            for row, draft in zip(self.rows, drafts, strict=True)
        ]
        block_bw, block_mask_bw = padded(blocks, self.pad_id, self.encoded_bsd.device)
        mask_bt = torch.cat([self.mask_bt, block_mask_bw], dim=1)
        logits_bwv = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded_bsd),
            attention_mask=self.source_mask_bs,
            decoder_input_ids=block_bw,
            decoder_attention_mask=mask_bt,
            cache=self.cache,
            use_cache=True,
        ).logits
        predicted = logits_bwv.argmax(-1).tolist()
        taken = [
            1 + row.accept(draft, tokens, self.end_ids)
            for row, draft, tokens in zip(self.rows, drafts, predicted, strict=True)
        ]
        return self._leave(mask_bt, taken, width=block_bw.shape[1])

    def _leave(self, mask_bt: Tensor, taken: Sequence[int], *, width: int) -> list[_Row]:
        """Drop rejected columns and finished rows from cache and mask."""
        finished = [self._is_finished(row) for row in self.rows]
        stay = [place for place, is_finished in enumerate(finished) if not is_finished]
        done = [row for row, is_finished in zip(self.rows, finished, strict=True) if is_finished]
        self.rows = [self.rows[place] for place in stay]
        self.mask_bt = mask_bt
        if done and stay:
            kept_b = torch.tensor(stay, device=mask_bt.device)
            self.cache.batch_select_indices(kept_b)
            self.encoded_bsd = self.encoded_bsd[kept_b]
            self.source_mask_bs = self.source_mask_bs[kept_b]
            self.mask_bt = mask_bt[kept_b]
        if stay and any(taken[place] < width for place in stay):
            self._move_right([width - taken[place] for place in stay])
        return done

    def _move_right(self, rejected: Sequence[int]) -> None:
        """Move every row over its rejected columns, and cut columns that no row needs."""
        device = self.mask_bt.device
        rejected_b = torch.tensor(rejected, device=device)
        columns = self.mask_bt.shape[1]
        source_bt = torch.arange(columns, device=device)[None, :] - rejected_b[:, None]
        mask_bt = torch.where(source_bt >= 0, self.mask_bt.gather(1, source_bt.clamp(min=0)), 0)
        first = int(mask_bt.any(0).int().argmax())
        self.mask_bt = mask_bt[:, first:]
        source_bt = source_bt[:, first:].clamp(min=0)
        layers: list[Any] = self.cache.self_attention_cache.layers
        for layer in layers:
            layer.keys = _columns(layer.keys, source_bt)
            layer.values = _columns(layer.values, source_bt)

    def _is_finished(self, row: _Row) -> bool:
        return row.output[-1] in self.end_ids or len(row.output) >= self.limit


def draft_decode(
    model: PreTrainedModel | PeftModel,
    source_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    drafts: Sequence[Sequence[int]] | None = None,
    logits_at_once: int = 2**27,
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Decode every source greedily; the outputs are those of `greedy_decode`.

    Equal up to float noise, that is: where two tokens have the same logit but for the last bits,
    another shape of the computation may choose the other one, as another batch size may in
    `greedy_decode`.

    Args:
        model: An encoder-decoder of the T5 family, or a PEFT model around one. Runs where its
            parameters are; every module's training mode is as before afterwards.
        source_ids: One list of token ids for each source, with its end token, without padding. A
            source without tokens is read as the end token alone.
        max_new_tokens: The most tokens an output may have, its end token included; 0 decodes
            nothing.
        drafts: What each output is expected to look like, with its end token; None for the
            sources. A source with a task prefix is better drafted without it.
        logits_at_once: Bounds the memory of a batch, whose first pass gives a logit for each
            token of the vocabulary at each position of each draft.
        progress: called with the number of outputs that are done.

    Returns:
        The output ids of every source, in the order of the sources, without start, padding and
        end tokens.
    """
    assert max_new_tokens >= 0, max_new_tokens
    outputs: list[list[int]] = [[] for _ in source_ids]
    if max_new_tokens == 0 or not source_ids:
        return outputs
    base = _base(model)
    expected = source_ids if drafts is None else drafts
    # The longest first: if memory is short, that shows in the first batch.
    order = sorted(range(len(source_ids)), key=lambda index: -len(expected[index]))
    waiting = [_Row(i, expected[i], width=len(expected[i])) for i in order]
    ends = base.config.eos_token_id
    end_id = ends if isinstance(ends, int) else ends[0]
    done = 0
    with evaluating(model), torch.no_grad():
        while waiting:
            longest = max(len(row.draft) for row in waiting[:_ROWS]) + 1
            size = max(1, min(_ROWS, logits_at_once // (longest * base.config.vocab_size)))
            batch, waiting = waiting[:size], waiting[size:]
            sources = [list(source_ids[row.index]) or [end_id] for row in batch]
            decoder = _Decoder(base, sources, batch, max_new_tokens)
            left = int(_LEFT * size) if waiting else 0
            while len(decoder.rows) > left:
                for row in decoder.step():
                    outputs[row.index] = _content(row.output, decoder)
                    done += 1
                if progress:
                    progress(done)
            waiting += [row.anew() for row in decoder.rows]
    return outputs


def _base(model: Any) -> Any:
    """The model without PEFT's wrapper; its layers are the adapted ones."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _columns(states_bhtk: Tensor, source_bt: Tensor) -> Tensor:
    """The given columns of each row's keys or values."""
    heads, size = states_bhtk.shape[1], states_bhtk.shape[3]
    return states_bhtk.gather(2, source_bt[:, None, :, None].expand(-1, heads, -1, size))


def _content(output: Sequence[int], decoder: _Decoder) -> list[int]:
    """The ids before the first end token, without padding."""
    content = list(output)
    for place, token in enumerate(content):
        if token in decoder.end_ids:
            del content[place:]
            break
    return [token for token in content if token != decoder.pad_id]
