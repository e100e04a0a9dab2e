"""The base in a worker process: loaded once, lent to one trial after the other."""

from __future__ import annotations

import os
from functools import lru_cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detox_tune.config import SearchConfig
from detox_tune.model.base import Quantization, load_base
from detox_tune.model.dequantise import device_memory
from detox_tune.model.vocabulary import CutTokenizer, Vocabulary, cut_vocabulary
from detox_tune.tuning.task import Task


def trial_base(
    search: SearchConfig, task: Task, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | CutTokenizer]:
    """The frozen base that trials train on, and a tokenizer that speaks its ids.

    On the fast path the process keeps it: whoever puts adapters on it takes them off again, as
    `adapted` does. Otherwise every call loads the checkpoint anew.
    """
    if not search.fast:
        return load_base(task.base, quantization=search.quantization, device=device)
    return _load_once(
        task.base, search.quantization, device, trial_memory(search, device), task.vocabulary
    )


def forget_bases() -> None:
    """Let the process load its base anew at the next trial."""
    _load_once.cache_clear()


def trial_memory(search: SearchConfig, device: str) -> int:
    """Bytes of a trial's share of its device."""
    gpus = device.startswith("cuda")
    share = search.gpus_per_trial if gpus else search.cpus_per_trial / (os.cpu_count() or 1)
    return device_memory(device, share)


@lru_cache(maxsize=1)
def _load_once(
    name: str, quantization: Quantization, device: str, memory: int, vocabulary: Vocabulary | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | CutTokenizer]:
    base, tokenizer = load_base(name, quantization=quantization, device=device, memory=memory)
    if vocabulary is None:
        return base, tokenizer
    cut_vocabulary(base, vocabulary)
    return base, CutTokenizer(tokenizer, vocabulary)
