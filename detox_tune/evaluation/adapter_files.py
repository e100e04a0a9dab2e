"""The files of an adapter's folder, and what they say; without the libraries that load it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

from detox_tune.errors import UserError

WEIGHTS, CONFIG, METRICS = "adapter_model.safetensors", "adapter_config.json", "metrics.json"
SAMPLES = "samples.tsv"
"""What an exported adapter made of some test sentences."""
SCORERS_FILE = "scorers.json"
"""The scorers and the lexicon of its search."""
M = TypeVar("M", bound=BaseModel)


class PrefixSetting(BaseModel):
    """The one setting of a trial that an adapter is used with."""

    task_prefix: str


class Metrics(BaseModel):
    """What metrics.json says about how an adapter is used."""

    settings: PrefixSetting
    quantization: Literal["nf4", "none"]
    max_tokens: PositiveInt
    beams: PositiveInt = 1


class AdapterConfig(BaseModel):
    """What adapter_config.json must say."""

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    r: PositiveInt
    lora_alpha: PositiveFloat
    target_modules: list[str] | str


def read_config(folder: Path) -> AdapterConfig:
    """What an adapter's folder says of it, once its weights are known to be there.

    Raises:
        UserError: if one of the two files is missing, or the config is damaged.
    """
    config = read_checked(folder, CONFIG, AdapterConfig)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} has no {WEIGHTS}: give a folder that has one (weights in other formats are "
            "not read, since a pickled file can run code)"
        )
    return config


def base_of(folder: Path, named: str | None) -> str:
    """Hub name or folder of the base of an adapter.

    Args:
        folder: of the adapter; a name that begins with `.` is relative to it.
        named: what its config says.

    Raises:
        UserError: if it says nothing, or names a folder that is not there.
    """
    if not named:
        raise UserError(
            f"{folder / CONFIG} does not name the adapter's base: give it with --base-model"
        )
    path = Path(named)
    if named.startswith("."):
        path = folder / path
    elif not path.is_absolute():
        return named
    beside = folder.resolve().parent / "base"
    found = next((one for one in (path, beside) if (one / "config.json").is_file()), None)
    if found is None:
        raise UserError(
            f"the base of {folder} is neither at {path} nor at {beside}: give its folder with "
            "--base-model"
        )
    return str(found.resolve())


def read_checked(folder: Path, name: str, kind: type[M]) -> M:
    """One of an adapter's JSON files, with what is read from it checked.

    Raises:
        UserError: it is not there, or says something else than `kind` expects.
    """
    try:
        return kind.model_validate_json((folder / name).read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(
            f"{folder} is no adapter: the file {name} must be there; give the best/ folder of a "
            "search, or the folder of another PEFT adapter"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(
            f"{folder / name}: {where}{': ' if where else ''}{problem}; give the "
            "adapter's folder as it was written"
        ) from None
