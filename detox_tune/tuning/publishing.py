"""What of an adapter goes to the hub, and what is other there than here."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from detox_tune.errors import UserError
from detox_tune.evaluation.adapter_files import (
    CONFIG,
    METRICS,
    SAMPLES,
    SCORERS_FILE,
    WEIGHTS,
    Metrics,
    base_of,
    read_checked,
    read_config,
)
from detox_tune.tuning.card import CARD, WITHIN, hub_base, usage, with_usage
from detox_tune.tuning.hub import Files


def files_to_publish(
    folder: Path,
    repo_id: str,
    *,
    base_model: str | None = None,
    license: str | None = None,
    with_scorers: bool = False,
) -> Files:
    """What a repository on the hub gets: adapter, card, metrics, samples, and a pocket base.

    Card and config are those of the folder, but for what is other on the hub: the place of the base
    and of the adapter, and the licence.

    Args:
        folder: of the adapter, best/ of a run.
        repo_id: owner/name.
        base_model: hub name of the base, where it is another than the adapter names.
        license: as the hub writes it; None: the one that the card states.
        with_scorers: scorers.json, too.

    Raises:
        UserError: if that is no adapter with a card, if others could not get its base, or if no
            licence is given.
    """
    named = read_config(folder).base_model_name_or_path
    base, base_files = _base(folder, named, base_model)
    card = _card(folder / CARD, license, repo_id)
    card.data["base_model"] = hub_base(base)
    if (folder / METRICS).is_file():
        metrics = read_checked(folder, METRICS, Metrics)
        card.text = with_usage(card.text, usage(base, metrics, repo_id))
    if named and Path(named).is_absolute() and named in str(card):
        raise UserError(
            f"{folder / CARD} names {named}, which is a folder of this machine: take it out"
        )
    config = json.loads((folder / CONFIG).read_bytes()) | {"base_model_name_or_path": base}
    along = [METRICS, SAMPLES, *([SCORERS_FILE] if with_scorers else [])]
    return {
        CARD: str(card).encode(),
        CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        WEIGHTS: folder / WEIGHTS,
        **{name: folder / name for name in along if (folder / name).is_file()},
        **{f"{Path(WITHIN)}/{file.name}": file for file in base_files},
    }


def _base(folder: Path, named: str | None, base_model: str | None) -> tuple[str, list[Path]]:
    """What the published adapter names as its base, and the files of a base that goes with it."""
    if base_model is not None:
        return base_model, []
    found = base_of(folder, named)
    if named and named.startswith("."):
        return WITHIN, sorted(file for file in Path(found).iterdir() if file.is_file())
    if Path(found).exists():
        raise UserError(
            f"the base of {folder} is the folder {found}, which others do not have: name it on the "
            "hub with --base-model; if it is not there, `hf upload OWNER/NAME FOLDER` brings it"
        )
    return found, []


def _card(file: Path, license: str | None, repo_id: str) -> ModelCard:
    """The card in a file, with its licence; its results go by the name of the repository."""
    try:
        card = ModelCard(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is not there: write the card that the hub will show") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{file}: its metadata, the YAML between two lines ---, cannot be read ({error}): "
            "correct it"
        ) from error
    card.data["license"] = license or card.data.get("license")
    if not card.data["license"]:
        raise UserError(
            f"{file} states no licence: give one with --license (apache-2.0, say; the licences of "
            "the base and of the data decide which it may be)"
        )
    if card.data.get("eval_results"):
        card.data["model_name"] = repo_id.split("/")[-1]
    return card
