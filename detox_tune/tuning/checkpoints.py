"""Checkpoints that are whole: sealed when they are written, checked before they are used.

A process can die while its checkpoint is copied to the run's folder, and a disk can damage it
later. A seal, a file in the checkpoint, says what the others must hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detox_tune.files import write_json

_SEAL = "seal.json"


class SealedCheckpoint(NamedTuple):
    """A whole checkpoint, and the report that came with it."""

    report: dict[str, Any]
    folder: Path


def seal(folder: Path, report: Mapping[str, Any]) -> None:
    """Add the seal to a checkpoint that is complete: its report, and the SHA-256 of its files."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    write_json(folder / _SEAL, {"report": report, "files": files})


def find_checkpoint(
    sessions: Path, trial: str, rank: Callable[[Mapping[str, Any]], float]
) -> SealedCheckpoint | None:
    """The checkpoint of a trial whose report ranks highest, among those that are whole.

    Args:
        sessions: RUN/ray, where each start of the search has a folder of its own.
        trial: the trial's name.
        rank: of a report; the first of equal ones is taken.
    """
    found = []
    for path in sorted(sessions.glob(f"*/{trial}/checkpoint_*/{_SEAL}")):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # half-written, or just removed by Tune
        found.append((content, path.parent))
    for content, folder in sorted(found, key=lambda one: -rank(one[0]["report"])):
        if all(_is_whole(folder / name, sha256) for name, sha256 in content["files"].items()):
            return SealedCheckpoint(content["report"], folder)
    return None


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
