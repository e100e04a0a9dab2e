"""Tuned models on disk: an adapter with its base, or a checkpoint that is tuned as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.evaluation.adapter_files import (
    METRICS,
    WEIGHTS,
    Metrics,
    PrefixSetting,
    base_of,
    read_checked,
    read_config,
)
from detox_tune.evaluation.rewriting import (
    Answer,
    Rewritten,
    answers,
    candidate_answers,
    rewrite_texts,
)
from detox_tune.model.base import check_device, load_base

_MISFIT = re.compile("size mismatch|[Tt]arget modules")


@dataclass(frozen=True)
class TunedModel:
    """A tuned model, ready to decode, and what it was trained with."""

    model: PeftModel | PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task_prefix: str
    max_tokens: int
    beams: int = 1
    """1 decodes greedily."""

    def answers(
        self, sources: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """What it makes of sources, each taken as one sentence; sentinels left in.

        `progress` is called with the number of answers that are done.
        """
        return answers(
            self.model,
            self.tokenizer,
            sources,
            task_prefix=self.task_prefix,
            max_tokens=self.max_tokens,
            beams=self.beams,
            progress=progress,
        )

    def candidates(self, sources: Sequence[str], count: int) -> list[list[Answer]]:
        """Several answers to each source, taken as one sentence; the likeliest first."""
        return candidate_answers(
            self.model,
            self.tokenizer,
            sources,
            count=count,
            task_prefix=self.task_prefix,
            max_tokens=self.max_tokens,
        )

    def rewrite(self, texts: Sequence[str]) -> list[Rewritten]:
        """Texts of any length, rewritten sentence by sentence."""
        return rewrite_texts(texts, self.answers)


def load_adapter(
    folder: Path,
    *,
    base_model: str | None = None,
    task_prefix: str | None = None,
    device: str = "cpu",
) -> TunedModel:
    """Load an adapter that a search exported (its best/ folder), or another PEFT adapter.

    The base is the one that the adapter names, a relative path being relative to the adapter's
    folder. Where that folder is gone, it is the folder base/ beside the adapter's.

    Args:
        folder: holds adapter_model.safetensors and adapter_config.json; after a search also
            metrics.json, which tells task prefix, quantization and `max_tokens`.
        base_model: a base to use instead.
        task_prefix: of an adapter without metrics.json; by default none. Such an adapter is run
            in full precision, with the default `max_tokens`.
        device: a torch device such as `cpu` or `cuda`.

    Raises:
        UserError: if a file is missing or damaged, adapter and base do not fit, the base is not
            known, or a task prefix is given to an adapter that brings its own.
    """
    check_device(device)
    config = read_config(folder)
    metrics = _metrics(folder, task_prefix)
    base, tokenizer = load_base(
        base_model or base_of(folder, config.base_model_name_or_path),
        quantization=metrics.quantization,
        device=device,
    )
    try:
        model = PeftModel.from_pretrained(base, str(folder))
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged: copy it again ({error})") from error
    except (ValueError, RuntimeError) as error:
        if not _MISFIT.search(str(error)):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder} was made for another base than {base.name_or_path}: give its own with "
            f"--base-model ({reason})"
        ) from error
    prefix = metrics.settings.task_prefix
    return TunedModel(model, tokenizer, prefix, metrics.max_tokens, metrics.beams)


def load_whole_model(name: str, *, task_prefix: str = "", device: str = "cpu") -> TunedModel:
    """Load a checkpoint of the T5 family that is a tuned model itself, in full precision.

    Args:
        name: hub name or folder.
        task_prefix: what it was trained to read before every source.
        device: a torch device.

    Raises:
        UserError: as `load_base` does.
    """
    model, tokenizer = load_base(name, quantization="none", device=device)
    default: int = SearchConfig.model_fields["max_tokens"].default
    return TunedModel(model, tokenizer, task_prefix, default)


def merge_adapter(tuned: TunedModel, folder: Path) -> None:
    """Write an adapter and its base as one checkpoint in bfloat16, with the tokenizer.

    Weights are added up in float32. 4-bit weights of the base are unpacked before, since that is
    what the adapter was trained on. The model of `tuned` is used up.

    Args:
        tuned: what `load_adapter` gave on a CPU.
        folder: for the checkpoint.
    """
    assert isinstance(tuned.model, PeftModel)
    settings = tuned.model.peft_config["default"]
    adapter = get_peft_model_state_dict(tuned.model, save_embedding_layers=False)
    base: Any = tuned.model.unload()
    if getattr(base, "is_quantized", False):
        base = base.dequantize()
    whole = PeftModel(base.float(), settings)
    set_peft_model_state_dict(whole, adapter)
    merged: Any = whole.merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(folder)
    tuned.tokenizer.save_pretrained(folder)


def _metrics(folder: Path, task_prefix: str | None) -> Metrics:
    """What metrics.json says; of an adapter that no search wrote, the defaults."""
    if not (folder / METRICS).exists():
        default: int = SearchConfig.model_fields["max_tokens"].default
        settings = PrefixSetting(task_prefix=task_prefix or "")
        return Metrics(settings=settings, quantization="none", max_tokens=default)
    metrics = read_checked(folder, METRICS, Metrics)
    if task_prefix is not None:
        raise UserError(
            f"--task-prefix {task_prefix!r}: {folder} brings its own, "
            f"{metrics.settings.task_prefix!r}: leave --task-prefix out"
        )
    return metrics
