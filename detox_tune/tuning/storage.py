"""Where trials leave their checkpoints: the run's folder, or a storage that has a URI."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pyarrow
from pyarrow import fs

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError

_KEYS = ("access_key", "secret_key", "session_token")


class Storage(NamedTuple):
    """A folder of a file system that all nodes reach."""

    filesystem: fs.FileSystem
    path: str
    """Holds session_N/trial_NNN/checkpoint_NNNNNN/."""

    def names(self, folder: str = "") -> list[str]:
        """What is in a folder of it, given by its path from here; nothing if it is not there."""
        selector = fs.FileSelector(f"{self.path}/{folder}".rstrip("/"), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))


def checkpoint_storage(config: SearchConfig, run: Path) -> Storage:
    """Where the checkpoints of a run are.

    Args:
        config: of the search.
        run: its folder, absolute.
    """
    if config.storage is None:
        return Storage(fs.LocalFileSystem(), str(run / "ray"))
    filesystem, path = fs.FileSystem.from_uri(config.storage)
    return Storage(filesystem, f"{path.rstrip('/')}/{config.name}/ray")


def keep_results(config: SearchConfig, run: Path, names: Iterable[str]) -> None:
    """Copy files and folders of a run to its storage, where it has one.

    The run's folder is on one machine, which can be lost.
    """
    if config.storage is None:
        return
    filesystem, path = fs.FileSystem.from_uri(config.storage)
    for name in names:
        source = run / name
        if source.exists():
            target = f"{path.rstrip('/')}/{config.name}/{name}"
            fs.copy_files(str(source), target, fs.LocalFileSystem(), filesystem)


def check_storage(config: SearchConfig, *, new: bool) -> None:
    """Find out, before work is done, whether the storage can be used.

    Args:
        config: of the search.
        new: whether nothing of the run may be there yet.

    Raises:
        UserError: if not, with the reason.
    """
    uri = config.storage
    if uri is None:
        return
    parts = urlsplit(uri)
    if not parts.scheme:
        raise UserError(
            f"storage={uri!r} must be a URI, such as s3://bucket/folder: name a folder that all "
            "nodes share with --out"
        )
    if parts.username or parts.password or set(_KEYS) & set(parse_qs(parts.query)):
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        raise UserError(
            f"storage={shown}: keys in the URI would be written into search.json: leave them out, "
            "and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on all nodes"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        run = f"{path.rstrip('/')}/{config.name}"
        there = filesystem.get_file_info(run).type != fs.FileType.NotFound
        with filesystem.open_output_stream(f"{path.rstrip('/')}/.can-write") as file:
            file.write(b"")
        filesystem.delete_file(f"{path.rstrip('/')}/.can-write")
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"storage={uri!r} cannot be used ({reason}): see docs/cluster.md for its form"
        ) from error
    if new and there:
        raise UserError(f"{uri.rstrip('/')}/{config.name} exists already: choose another --name")
