"""The model card of an adapter: README.md, with the metadata that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import regex
from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants
from jinja2 import Template

from detox_tune import __version__
from detox_tune.config import SearchConfig
from detox_tune.data.pairs import Pair
from detox_tune.data.readers import is_hub_name, listed
from detox_tune.evaluation.adapter_files import Metrics

CARD = constants.REPOCARD_NAME
BESIDE, WITHIN = "../base", "./base"
"""How an adapter names a base that is beside its folder, as in a run, or in it, as on the hub."""
EXAMPLE = "shut up and listen."
"""The sentence that cards rewrite."""
_LOCAL = " (local)"
_USE = regex.compile(r"^## Use\n.*?(?=^## |\Z)", regex.MULTILINE | regex.DOTALL)
_SCORES = {
    "j": "j, the mean of STA x SIM x FL",
    "sta": "STA, neutral",
    "sim": "SIM, meaning kept",
    "fl": "FL, chrF between 0 and 1",
    "copy_rate": "share of copies",
}
_TEMPLATE = """\
---
{{ card_data }}
---

# Detoxification adapter

A LoRA adapter that rewrites toxic sentences (languages: {{ languages }}), found by detox_tune
{{ version }} (trial `{{ trial }}` of the search `{{ search }}`).

{{ usage }}## Scores on the test split ({{ n_test }} sentences, {{ scorers }} scorers)

{{ scores }}

j is the mean of STA x SIM x FL. `base` is the untuned model, `copy` the untouched source, `delete`
the source without the lexicon's words, `reference` the first human rewrite. The embedded scorers (a
classifier fitted on the training split, chrF for meaning and fluency) compare systems within this
run; they are not the official models of a shared task.

## Settings

| setting | value |
|---|---|
{{ settings }}

## Limits

Outputs can still be toxic, can lose meaning, and reflect the training data; twenty of them, good
and bad, are in samples.tsv. Have a person check what matters.
"""

_USAGE = Template(
    """\
## Use

The base is {{ base }}, in {{ "4 bits (nf4)" if nf4 else "full precision" }}.
{% if prefix %}
Put the task prefix {{ prefix }} before every sentence.
{% endif %}
Decode {{ how }}, at most {{ max_tokens }} tokens. With detox_tune{{ "" if repo_id else " here" }}:

```
{% if repo_id %}
hf download {{ repo_id }} --local-dir {{ folder }}
{% endif %}
detox-tune rewrite {{ folder }} "{{ example }}"
```

Without it (`pip install peft transformers sentencepiece{{ " bitsandbytes" if nf4 }}`):

```python
{% if nf4 %}
import torch
{% endif %}
{% if repo_id %}
from huggingface_hub import snapshot_download
{% endif %}
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer{{ ", BitsAndBytesConfig" if nf4 }}

adapter = {{ 'snapshot_download("' ~ repo_id ~ '")' if repo_id else '"."' }}
base = {{ base_code }}
tokenizer = AutoTokenizer.from_pretrained(base)
{% if nf4 %}
nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.bfloat16,
)
model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=nf4)
{% else %}
model = AutoModelForSeq2SeqLM.from_pretrained(base)
{% endif %}
model = PeftModel.from_pretrained(model, adapter)

asked = tokenizer({{ asked }}, return_tensors="pt").to(model.device)
answer = model.generate(**asked, max_new_tokens={{ max_tokens }}, num_beams={{ beams }})
print(tokenizer.decode(answer[0], skip_special_tokens=True))
```

""",
    trim_blocks=True,
    keep_trailing_newline=True,
)


def model_card(metrics: Mapping[str, Any], config: SearchConfig, test: Sequence[Pair]) -> ModelCard:
    """The card of the adapter that a search exports.

    It states no licence: that depends on the base and on the data, which have their own.

    Args:
        metrics: the content of metrics.json.
        config: of the search.
        test: the pairs that the scores are of.
    """
    languages = sorted({pair.language for pair in test})
    settings = [
        f"| {name} | `{value!r}` |"
        for name, value in metrics["settings"].items()
        if value is not None
    ]
    base = BESIDE if config.base_model == "pocket" else metrics["base_model"]
    card: ModelCard = ModelCard.from_template(
        _metadata(metrics, config, languages, len(test)),
        template_str=_TEMPLATE,
        languages=listed(languages),
        version=__version__,
        trial=metrics["trial"],
        search=config.name,
        usage=usage(base, Metrics.model_validate(metrics)),
        n_test=len(test),
        scorers=metrics["scorers"],
        scores=score_table(metrics["test"]),
        settings="\n".join(settings),
    )
    return card


def public_name(name: str) -> str:
    """A base or data as others may read it: a path on this machine tells them nothing."""
    path = Path(name)
    local = name not in ("pocket", "embedded") and path.exists()
    return f"{path.resolve().name}{_LOCAL}" if local else name


def usage(base: str, metrics: Metrics, repo_id: str | None = None) -> str:
    """The part of a card that says how to use the adapter.

    Args:
        base: a hub name; BESIDE or WITHIN; or what `public_name` makes of another folder.
        metrics: what the adapter is used with.
        repo_id: where on the hub it is; None: in the folder of the card.
    """
    name = base.removesuffix(_LOCAL)
    prefix = metrics.settings.task_prefix
    with_adapter = base in (BESIDE, WITHIN)
    text: str = _USAGE.render(
        base=_named(base),
        prefix=repr(prefix) if prefix else "",
        how=_how(metrics.beams),
        max_tokens=metrics.max_tokens,
        beams=metrics.beams,
        nf4=metrics.quantization == "nf4",
        repo_id=repo_id,
        folder=repo_id.split("/")[-1] if repo_id else ".",
        example=EXAMPLE,
        base_code=f'adapter + "/{Path(base)}"' if with_adapter else json.dumps(name),
        asked=json.dumps(prefix + EXAMPLE, ensure_ascii=False),
    )
    return text


def _how(beams: int) -> str:
    """How a model with so many beams is decoded."""
    if beams == 1:
        return "greedily"
    return f"with {beams} beams (detox_tune takes the likeliest answer that is no copy)"


def with_usage(text: str, usage: str) -> str:
    """The text of a card with another part on usage, at its end if it had none."""
    found, times = _USE.subn(lambda _: usage, text, count=1)
    return found if times else f"{text.rstrip()}\n\n{usage}"


def score_table(systems: Mapping[str, Mapping[str, float]]) -> str:
    """Scores of systems as a Markdown table."""
    names = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")
    lines = [f"| system | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for system, scores in systems.items():
        lines.append(f"| {system} | {' | '.join(f'{scores[name]:.3f}' for name in names)} |")
    return "\n".join(lines)


def _metadata(
    metrics: Mapping[str, Any], config: SearchConfig, languages: list[str], n_test: int
) -> ModelCardData:
    """What the hub reads; it takes only its own names as base and data sets."""
    data = public_name(config.data)
    data_on_hub = data == config.data and is_hub_name(data)
    named = "detox_tune's embedded corpus" if data == "embedded" else data
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="text detoxification",
            dataset_type=data,
            dataset_name=f"{named}, test split of the search ({n_test} sentences)",
            metric_type=name,
            metric_name=f"{text} ({metrics['scorers']} scorers)",
            metric_value=round(metrics["test"]["tuned"][name], 4),
        )
        for name, text in _SCORES.items()
    ]
    # No pipeline tag: the hub has none left for encoder-decoder models that rewrite.
    return ModelCardData(
        base_model=hub_base(metrics["base_model"]),
        datasets=[data] if data_on_hub else None,
        language=languages,
        library_name="peft",
        tags=["text-detoxification", "lora", "detox_tune"],
        metrics=["chrf"],  # FL; the other scores have no page on the hub
        model_name=config.name,
        eval_results=results,
    )


def hub_base(base: str) -> str | None:
    """The name of a base on the hub; None if it is not there."""
    return None if base in ("pocket", BESIDE, WITHIN) or base.endswith(_LOCAL) else base


def _named(base: str) -> str:
    if base == BESIDE:
        return "the folder base/ beside this one"
    if base == WITHIN:
        return "in base/"
    if hub_base(base):
        return f"[{base}](https://huggingface.co/{base})"
    return f"`{base.removesuffix(_LOCAL)}`, a folder that is not on the Hugging Face hub"
