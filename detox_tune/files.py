"""Writing files whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detox_tune.errors import UserError

# Of the system, of a quota, of SQLite, of torch: not all of them have an error number.
_DISK_FULL = (
    "No space left on device",
    "Disk quota exceeded",
    "database or disk is full",
    ". unexpected pos ",
)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that a disk has no room left."""
    text = "".join(traceback.format_exception(error))
    return any(message in text for message in _DISK_FULL)


def check_can_write(path: Path, flag: str) -> None:
    """Refuse a file that cannot be written, before work is done for it.

    Args:
        path: what will be written; folders above it that are not there will be made.
        flag: what to change, for the message.

    Raises:
        UserError: with the reason.
    """
    try:
        path = path.absolute()
        parent = next(folder for folder in path.parents if folder.exists())
        with tempfile.TemporaryDirectory(dir=parent) as trial:
            (trial / path.relative_to(parent)).mkdir(parents=True)
        reason = "it is a folder" if path.is_dir() else None
    except OSError as error:
        reason = str(error.strerror).lower()
    if reason:
        raise UserError(f"{path} cannot be written ({reason}): choose another {flag}")


def give_umask_permissions(folder: Path) -> None:
    """Let others read a folder as they read what else is written here.

    Some writers make files and folders that their user alone can read.
    """
    umask = _umask()
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file beside `path`, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's own mode keeps others from reading
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return umask


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], delimiter: str = ","
) -> None:
    """Write rows of named columns as csv or tsv, atomically; absent values stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
