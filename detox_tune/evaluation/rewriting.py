"""What a model, or an exported adapter with its base, makes of sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detox_tune.errors import UserError
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.model.base import Quantization, load_base
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.training.examples import encode_sources


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


@dataclass(frozen=True)
class Adapter:
    """A tuned model, ready to decode, and what it was trained with."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    task_prefix: str
    max_tokens: int

    def rewrite(self, sources: Sequence[str]) -> list[str]:
        """What it makes of sources, sentinels left in."""
        return rewrite(
            self.model,
            self.tokenizer,
            sources,
            task_prefix=self.task_prefix,
            max_tokens=self.max_tokens,
        )


def load_adapter(folder: Path, *, base_model: str | None = None, device: str = "cpu") -> Adapter:
    """Load an adapter that a search exported (its best/ folder), on the base that it names.

    Args:
        folder: holds adapter_model.safetensors, adapter_config.json and metrics.json.
        base_model: a base to use instead, where the named one has moved.
        device: a torch device such as `cpu` or `cuda`.

    Raises:
        UserError: if a file is missing or damaged, or adapter and base do not fit.
    """
    config = _read_json(folder, "adapter_config.json")
    metrics = _read_json(folder, "metrics.json")
    quantization: Quantization = metrics["quantization"]
    base, tokenizer = load_base(
        base_model or config["base_model_name_or_path"],
        quantization=quantization,
        device=device,
    )
    try:
        model = PeftModel.from_pretrained(base, str(folder))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder} cannot be loaded: its adapter must be whole and made for the base model; "
            f"export it again, or give its base ({reason})"
        ) from error
    return Adapter(model, tokenizer, metrics["settings"]["task_prefix"], metrics["max_tokens"])


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is no exported adapter: {name} must be there and be JSON; give the best/ "
            f"folder of a search ({type(error).__name__})"
        ) from error
    assert isinstance(content, dict)
    return content
