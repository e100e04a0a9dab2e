"""Checkpoints that are whole: sealed when they are written, checked before they are used.

A process can die while its checkpoint is copied to the run's folder, and a disk can damage it
later. A seal, a file in the checkpoint, says what the others must hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs
from ray.tune import Checkpoint

from detox_tune.evaluation.adapter_files import CONFIG, WEIGHTS
from detox_tune.files import write_json
from detox_tune.tuning.storage import Storage

_SEAL = "seal.json"
OUTPUTS_FILE = "outputs.jsonl"
"""In a checkpoint: what the trial made of the validation sample, of which a report shows it."""


class SealedCheckpoint(NamedTuple):
    """A whole checkpoint, and the report that came with it."""

    report: dict[str, Any]
    checkpoint: Checkpoint


def seal(folder: Path, report: Mapping[str, Any]) -> None:
    """Add the seal to a checkpoint that is complete: its report, and the SHA-256 of its files."""
    here = fs.LocalFileSystem()
    files = {path.name: _sha256(here, str(path)) for path in sorted(folder.iterdir())}
    write_json(folder / _SEAL, {"report": report, "files": files})


def find_checkpoint(
    storage: Storage, trial: str, rank: Callable[[Mapping[str, Any]], float]
) -> SealedCheckpoint | None:
    """The checkpoint of a trial whose report ranks highest, among those that are whole."""
    return next(find_checkpoints(storage, trial, rank), None)


def find_checkpoints(
    storage: Storage, trial: str, rank: Callable[[Mapping[str, Any]], float]
) -> Iterator[SealedCheckpoint]:
    """The whole checkpoints of a trial, that whose report ranks highest first.

    Args:
        storage: where each start of the search has a folder of its own.
        trial: the trial's name.
        rank: of a report; the first of equal ones comes first.
    """
    filesystem = storage.filesystem
    found = _sealed(storage, trial)
    for folder, content in sorted(found, key=lambda one: -rank(one[1]["report"])):
        if all(_is_whole(filesystem, f"{folder}/{n}", s) for n, s in content["files"].items()):
            yield SealedCheckpoint(content["report"], Checkpoint(folder, filesystem))


def drop_training_state(storage: Storage, trial: str) -> None:
    """Leave of the checkpoints of a trial that has ended the adapter and its outputs.

    The state of the optimiser is twice as large.
    """
    filesystem, needed = storage.filesystem, (WEIGHTS, CONFIG, OUTPUTS_FILE)
    for folder, content in _sealed(storage, trial):
        kept = {n: sha256 for n, sha256 in content["files"].items() if n in needed}
        with filesystem.open_output_stream(f"{folder}/.{_SEAL}") as file:
            file.write(json.dumps(content | {"files": kept}).encode())
        filesystem.move(f"{folder}/.{_SEAL}", f"{folder}/{_SEAL}")
        for name in content["files"].keys() - kept:
            filesystem.delete_file(f"{folder}/{name}")


def _sealed(storage: Storage, trial: str) -> list[tuple[str, dict[str, Any]]]:
    """The checkpoints of a trial that have a seal, oldest first: path, and what the seal says."""
    found = []
    for session in storage.names():
        for name in storage.names(f"{session}/{trial}"):
            folder = f"{storage.path}/{session}/{trial}/{name}"
            try:
                with storage.filesystem.open_input_file(f"{folder}/{_SEAL}") as file:
                    found.append((folder, json.loads(file.read())))
            except (FileNotFoundError, NotADirectoryError, ValueError):
                continue  # no checkpoint, one half-written, or one that Tune just removed
    return found


def _is_whole(filesystem: fs.FileSystem, path: str, sha256: str) -> bool:
    try:
        return _sha256(filesystem, path) == sha256
    except FileNotFoundError:
        return False


def _sha256(filesystem: fs.FileSystem, path: str) -> str:
    with filesystem.open_input_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
