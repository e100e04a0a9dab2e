"""A model's blocks compiled while it trains, so that a GPU does not wait for Python.

A GPU is done with a kernel on such short sentences before Python has launched the next one. Fused
by `torch.compile`, a block is a few launches. It is compiled block by block, once for each bucket
of lengths: the layers of a stack share the result, and so do the trials of a process, which only
differ in weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BUCKET = 32  # tokens: a GPU pads for less than a further bucket costs to compile
_GRAPHS = 64  # of all buckets, four each; longer sentences than that run as they are

# Compiling takes a minute, whatever the model; a block saves a millisecond or two a step. Both are
# estimates: no GPU has measured it yet.
_LEAST_BLOCK_STEPS = 10_000

log = logging.getLogger(__name__)


def backend_for(device: torch.device) -> str | None:
    """The backend of `torch.compile` for a device; None on a CPU, where it brings nothing."""
    return "inductor" if device.type == "cuda" else None


class CompiledBlocks:
    """Trains a model with its blocks compiled, for as long as that works.

    Args:
        model: of the T5 family, or a PEFT model around one.
        backend: of `torch.compile`; None never compiles.
        rows: of a whole batch; others, at the end of an epoch, are too few to compile for.
        steps: that the training takes, below 1 if not known; too few are not worth compiling for.
    """

    def __init__(self, model: Any, backend: Any, rows: int, steps: int) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._blocks = [*base.encoder.block, *base.decoder.block]
        self._trained = [weight for weight in base.parameters() if weight.requires_grad]
        pays = steps < 1 or steps * len(self._blocks) >= _LEAST_BLOCK_STEPS
        self._backend: Any = backend if pays else None
        self._rows = rows
        self._proved: set[int] = set()

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What the model returns as `logits`, [b, t, ...].

        Args:
            model: that model, as Accelerate may have wrapped it.
            inputs: `input_ids` and `attention_mask` [b, s], `decoder_input_ids` [b, t].
        """
        labels = inputs["decoder_input_ids"].shape[1]
        if self._applies(inputs):
            bucket = _bucket(inputs)
            padded = {n: F.pad(ids, (0, bucket - ids.shape[1])) for n, ids in inputs.items()}
            with self._compiled():
                logits: Tensor = model(**padded, use_cache=False).logits
            return logits[:, :labels]
        # nobody reads the keys and values that a cache would copy
        whole: Tensor = model(**inputs, use_cache=False).logits
        return whole

    def step(self, take: Callable[[], Tensor], inputs: dict[str, Any]) -> Tensor:
        """Forward and backward pass; where compiling fails, once more without.

        Args:
            take: adds the gradients of a batch to what is there, and returns its loss.
            inputs: that batch, with `input_ids` [b, s] and `labels` [b, t].
        """
        ids = {name: inputs[name] for name in ("input_ids", "labels")}
        if not self._applies(ids) or _bucket(ids) in self._proved:
            return take()
        gradients = [None if w.grad is None else w.grad.clone() for w in self._trained]
        try:
            loss = take()
        except RuntimeError as error:  # torch's own errors of compilation are such
            log.warning("training goes on uncompiled: %s", " ".join(str(error).split())[:300])
            self._backend = None
            for weight, gradient in zip(self._trained, gradients, strict=True):
                weight.grad = gradient
            return take()
        self._proved.add(_bucket(ids))
        return loss

    def _applies(self, inputs: dict[str, Tensor]) -> bool:
        return self._backend is not None and len(inputs["input_ids"]) == self._rows

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Inside, the blocks are compiled; decoding, with its many shapes, is left alone."""
        for block in self._blocks:
            block.forward = torch.compile(block.forward, backend=self._backend, dynamic=False)
        try:
            # torch leaves its settings without types
            config: Any = torch._dynamo.config
            with config.patch(recompile_limit=_GRAPHS):
                yield
        finally:
            for block in self._blocks:
                del block.forward


def _bucket(inputs: dict[str, Tensor]) -> int:
    """Tokens that sources and labels are padded to, the same for both: fewer shapes."""
    return -(-max(ids.shape[1] for ids in inputs.values()) // _BUCKET) * _BUCKET
