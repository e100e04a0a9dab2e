"""The base/ and the best/ of a run as a search leaves them, without the search."""

import json
import shutil
from pathlib import Path

import torch

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.scorers import EmbeddedScorers
from detox_tune.evaluation.stored_scorers import write_scorers
from detox_tune.model.base import Quantization, load_base
from detox_tune.model.lora import add_lora
from detox_tune.tuning.card import BESIDE, model_card, public_name

SOURCES = ["you damn fool", "shut up and listen", "what the hell is this", "go home"]
SCORES = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")


def exported_run(
    run: Path, base: Path, *, quantization: Quantization = "none", pocket: bool = True
) -> Path:
    """Write a run whose adapter changes its base; returns its best/.

    Without `pocket` its base is a folder that the user has given.
    """
    shutil.copytree(base, run / "base")
    model, _ = load_base(str(run / "base"), quantization=quantization)
    adapted = add_lora(model, TrialConfig(lora="all", lora_r=4), seed=0)
    torch.manual_seed(1)
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    best = run / "best"
    adapted.save_pretrained(str(best))
    base_model = "pocket" if pocket else str(run / "base")
    if pocket:
        config = json.loads((best / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = BESIDE
        (best / "adapter_config.json").write_text(json.dumps(config))
    metrics = {
        "trial": "trial_001",
        "settings": TrialConfig().model_dump(),
        "base_model": public_name(base_model),
        "quantization": quantization,
        "max_tokens": 12,
        "beams": 3,
        "scorers": "embedded",
        "test": {name: dict.fromkeys(SCORES, 0.123456) for name in ("tuned", "copy")},
    }
    (best / "metrics.json").write_text(json.dumps(metrics))
    search = SearchConfig(name="small", data=str(run), base_model=base_model)
    pairs = [Pair(source, ("what is this",), "en") for source in SOURCES]
    (best / "README.md").write_text(f"{model_card(metrics, search, pairs)}\n")
    (best / "samples.tsv").write_text("".join(f"{row}\n" for row in ("source", *SOURCES)))
    write_scorers(best / "scorers.json", EmbeddedScorers({}), Lexicon({"en": ("damn", "hell")}))
    return best
