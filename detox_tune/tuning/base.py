"""The base of a search: built or found on the driver, loaded once in each worker process."""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers import PreTrainedModel

from detox_tune.config import SearchConfig
from detox_tune.long_work import progress_of
from detox_tune.model.base import Quantization, load_base
from detox_tune.model.pocket import pocket_base
from detox_tune.model.vocabulary import CutTokenizer, Vocabulary, cut_vocabulary
from detox_tune.tuning.corpus import Corpus, denoising_sentences


def find_base(config: SearchConfig, corpus: Corpus, console: Console) -> str:
    """Hub name or folder of the base model; a pocket base is built if no cache has it.

    Args:
        config: of the search.
        corpus: its training split is what a pocket base learns to copy.
        console: shows the progress of building.
    """
    if config.base_model != "pocket":
        path = Path(config.base_model)
        return str(path.resolve()) if path.is_dir() else config.base_model
    with progress_of("pocket base", "steps", config.pocket_steps, console) as progress:
        folder = pocket_base(
            denoising_sentences(config, corpus),
            vocabulary=config.pocket_vocabulary,
            steps=config.pocket_steps,
            seed=config.seed,
            progress=progress,
        )
    return str(folder)


def read_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Names and contents of the files in a folder."""
    return tuple((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))


def base_on_this_node(base: str, files: tuple[tuple[str, bytes], ...]) -> str:
    """The base's hub name or folder on the node that asks.

    Args:
        base: what it is on the driver's node.
        files: of a pocket base, which are written here if that folder is not seen; else empty.
    """
    return base if Path(base).is_dir() or not files else _written(files).name


@lru_cache(maxsize=1)
def _written(files: tuple[tuple[str, bytes], ...]) -> TemporaryDirectory[str]:
    """The files in a folder that goes with this process."""
    folder: TemporaryDirectory[str] = TemporaryDirectory(prefix="detox_tune-base-")
    for name, content in files:
        Path(folder.name, name).write_bytes(content)
    return folder


@lru_cache(maxsize=1)
def load_cut_base(
    name: str, quantization: Quantization, device: str, vocabulary: Vocabulary
) -> tuple[PreTrainedModel, CutTokenizer]:
    """The frozen base that trials train on, and a tokenizer with its ids.

    The process keeps it: whoever puts adapters on it takes them off again, as `adapted` does.

    Args:
        name: hub name or folder of the full base.
        quantization: see `load_base`.
        device: a torch device.
        vocabulary: the tokens that trials train with.
    """
    base, tokenizer = load_base(name, quantization=quantization, device=device)
    cut_vocabulary(base, vocabulary)
    # Each trainer begins with a collection of garbage. It spent half a second on objects that stay
    # for good: those of the libraries, the base and the task.
    gc.collect()
    gc.freeze()
    return base, CutTokenizer(tokenizer, vocabulary)
