"""Decoding of many sources: the plain arg-max, or several candidates from a beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def greedy_decode(
    model: PreTrainedModel | PeftModel,
    source_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
) -> list[list[int]]:
    """Decode every source greedily, in batches of like length.

    Pure arg-max: a repetition penalty, a minimal length or a forced token of the checkpoint's own
    generation settings is not applied, because a loop or a copy must show in the scores. Padding
    is masked, so an output does not depend on its neighbours in the batch beyond float noise.

    Args:
        model: An encoder-decoder of the T5 family, or a PEFT model around one. Runs where its
            parameters are; every module's training mode is as before afterwards.
        source_ids: One list of token ids for each source, with its end token, without padding. A
            source without tokens is read as the end token alone.
        max_new_tokens: The most tokens an output may have, its end token included; 0 decodes
            nothing.
        batch_size: Sources in a batch.

    Returns:
        The output ids of every source, in the order of the sources, without start, padding and
        end tokens.
    """
    made = _generated(model, source_ids, 1, max_new_tokens=max_new_tokens, batch_size=batch_size)
    return [outputs[0] for outputs in made]


def beam_decode(
    model: PreTrainedModel | PeftModel,
    source_ids: Sequence[Sequence[int]],
    *,
    candidates: int,
    max_new_tokens: int,
    rows_at_once: int = 128,
    progress: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """Decode several candidates for every source by beam search, all of a batch in one call.

    Plain beam search: the diverse one (Vijayakumar et al. 2016) has left `transformers` for a
    repository whose code would have to be fetched and run. Nothing of the checkpoint's own
    generation settings is applied, as in `greedy_decode`.

    Args:
        model: as in `greedy_decode`.
        source_ids: as in `greedy_decode`.
        candidates: how many for each source, and how many beams; at least 1.
        max_new_tokens: as in `greedy_decode`.
        rows_at_once: beams in a batch, of all its sources together.
        progress: called with the number of sources that are done.

    Returns:
        For every source its candidates, the likeliest first, as ids without start, padding and end
        tokens. Two of them may read the same once they are decoded.
    """
    return _generated(
        model,
        source_ids,
        candidates,
        max_new_tokens=max_new_tokens,
        batch_size=max(1, rows_at_once // candidates),
        progress=progress,
    )


def _generated(
    model: PreTrainedModel | PeftModel,
    source_ids: Sequence[Sequence[int]],
    beams: int,
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """The outputs of every source, one for each beam."""
    assert max_new_tokens >= 0, max_new_tokens
    assert min(batch_size, beams) >= 1, (batch_size, beams)
    outputs: list[list[list[int]]] = [[[]] * beams for _ in source_ids]
    if max_new_tokens == 0 or not source_ids:
        return outputs

    config = model.config
    end_ids = [config.eos_token_id] if isinstance(config.eos_token_id, int) else config.eos_token_id
    pad_id = config.pad_token_id
    settings = GenerationConfig(
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=pad_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    # Both classes get the method from mixins that mypy cannot follow.
    generate: Any = model.generate
    # The longest first: if memory is short, that shows in the first batch.
    order = sorted(range(len(source_ids)), key=lambda index: -len(source_ids[index]))
    with evaluating(model), _only_settings(model, settings), torch.no_grad():
        device = next(model.parameters()).device
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [list(source_ids[index]) or end_ids[:1] for index in batch]
            input_ids_bs, mask_bs = padded(rows, pad_id, device)
            generated_bt = generate(
                input_ids=input_ids_bs, attention_mask=mask_bs, generation_config=settings
            )
            # row[0] is the start token; the beams of a source follow each other
            contents = [_content(row[1:], pad_id, end_ids) for row in generated_bt.tolist()]
            for place, index in enumerate(batch):
                outputs[index] = contents[place * beams : (place + 1) * beams]
            if progress:
                progress(start + len(batch))
    return outputs


def padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one (batch, longest) tensor padded on the right, and its attention mask.

    The mask comes from the lengths, not from the ids: a row may hold the padding id itself.
    """
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _content(row: Sequence[int], pad_id: int, end_ids: Sequence[int]) -> list[int]:
    """The ids before the first end token, without padding."""
    content: list[int] = []
    for token in row:
        if token in end_ids:
            break
        if token != pad_id:
            content.append(token)
    return content


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _only_settings(
    model: PreTrainedModel | PeftModel, settings: GenerationConfig
) -> Iterator[None]:
    """Replace the model's own generation settings inside.

    `generate` fills whatever the caller leaves open from `model.generation_config`, so passing
    `settings` alone would let a checkpoint's penalties and lengths through (and its warnings).
    """
    base: Any = getattr(model, "get_base_model", lambda: model)()
    own = base.generation_config
    base.generation_config = settings
    try:
        yield
    finally:
        base.generation_config = own
