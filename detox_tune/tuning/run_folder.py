"""The folder of a run: made for a new search, described, and taken up again."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from detox_tune import __version__
from detox_tune.command_line import program
from detox_tune.config import SearchConfig
from detox_tune.data.split import fingerprint
from detox_tune.errors import UserError
from detox_tune.files import check_can_write, give_umask_permissions
from detox_tune.settings import validated
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.study import STUDY_FILE

RECORD = "search.json"
_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "ray", "optuna")
_KEPT = "trials.csv and best/ stay as they are"


@dataclass(frozen=True)
class StoppedRun:
    """A search that is to go on, as its folder describes it."""

    folder: Path
    """Absolute."""
    config: SearchConfig
    space: SearchSpace
    record: dict[str, Any]
    """The content of search.json."""


def new_folder(config: SearchConfig) -> Path:
    """OUT/NAME, absolute; it must be new.

    Raises:
        UserError: if it holds something, which a new run would mix with, or cannot be written.
    """
    if "://" in config.out:
        raise UserError(
            f"out={config.out!r} must be a folder on this machine: give a URI with --storage"
        )
    folder = Path(os.path.abspath(Path(config.out) / config.name))
    check_can_write(folder / RECORD, "--out or --name")
    if folder.is_dir() and any(folder.iterdir()):
        go_on = f", go on with that search (--resume {folder})"
        raise UserError(
            f"{folder} exists already: choose another --name or --out"
            f"{go_on if (folder / RECORD).is_file() else ''}, or remove it"
        )
    return folder


def stopped_run(folder: Path, changes: Mapping[str, Any]) -> StoppedRun:
    """Read what search.json says of a run.

    Args:
        folder: of the run.
        changes: settings of this command: a higher number of `trials`; `address` and `hours`, which
            hold for one command and are not taken from the earlier one.

    Raises:
        UserError: if the search cannot go on, with the reason.
    """
    folder = folder.absolute()
    record = read_record(folder)
    path = folder / RECORD
    if record["versions"].get("detox_tune") != __version__:
        raise UserError(
            f"{path}: the search is one of detox_tune {record['versions'].get('detox_tune')}, and "
            f"this is {__version__}, whose scores may mean something else: go on with that version"
        )
    before = validated(SearchConfig, record["search"], str(path))
    kept = {name: v for name, v in record["search"].items() if name not in ("address", "hours")}
    settings = {**kept, **changes}
    config = validated(SearchConfig, settings, str(path))
    if config.trials < before.trials:
        raise UserError(
            f"trials={config.trials} is less than the {before.trials} that the search has: give a "
            "higher number, or leave --trials out"
        )
    if "finished" in record and config.trials == before.trials:
        raise UserError(
            f"{folder} has nothing left to do: its {before.trials} trials ended. Give --trials "
            f"{2 * before.trials}, say, for more"
        )
    if (folder / "ray").exists():
        check_study(folder)
    return StoppedRun(folder, config, SearchSpace(record["space"], f"{path}: space"), record)


def check_study(folder: Path) -> None:
    """Find out whether the study of a run can be read.

    Raises:
        UserError: if it is not there, or damaged.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} has no {STUDY_FILE}, which knows the trials: put it back, or start a new "
            f"search; {_KEPT}"
        )
    try:
        with contextlib.closing(sqlite3.connect(path)) as study:
            [found] = study.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise UserError(
            f"{path} is damaged ({found}): put back a copy of it, or start a new search; {_KEPT}"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """The content of search.json.

    Raises:
        UserError: if the folder is none of a run, or the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        what = "is no folder" if not folder.is_dir() else f"has no {RECORD}"
        raise UserError(
            f"{folder} {what}, so no search has begun a trial there: give the folder of a run, "
            "such as results/<run>, or start a new search"
        )
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        record = None
    for name in ("search", "space", "versions", "data"):
        if not isinstance(record, dict) or not isinstance(record.get(name), dict):
            raise UserError(
                f"{path} is damaged: it must be a JSON object with {name}, an object: put the file "
                f"back, or start a new search; {_KEPT}"
            )
    assert isinstance(record, dict)
    return record


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone.

    Raises:
        UserError: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"a search is running in {folder}: wait for its end, or stop it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


def keep_base(config: SearchConfig, base: str, folder: Path) -> str:
    """Keep a pocket base with the run: the adapter needs it, and so do other nodes of a cluster."""
    if config.base_model != "pocket":
        return base
    kept = Path(shutil.copytree(base, folder / "base"))
    give_umask_permissions(kept)
    return str(kept)


def describe_search(config: SearchConfig, space: SearchSpace, corpus: Corpus) -> dict[str, Any]:
    """The content of search.json when a search begins."""
    return {
        "command": [*program("search").split(), *sys.argv[1:]],
        "directory": os.getcwd(),
        "started": now(),
        "search": config.model_dump(),
        "space": space.describe(),
        "versions": _versions(),
        "data": _splits(corpus),
        "bad_rows": len(corpus.loaded.bad_rows) if corpus.loaded else 0,
        "lexicon_entries": len(corpus.lexicon),
        "lexicon_sha256": _lexicon_sha256(corpus),
    }


def check_unchanged(run: StoppedRun, corpus: Corpus) -> str:
    """Which libraries have other versions than when the search began; empty if none.

    Raises:
        UserError: if the data are others than those that its trials had.
    """
    data, lexicon = run.config.data, run.config.lexicon or run.config.data
    now_ = {**_splits(corpus), "lexicon": _lexicon_sha256(corpus)}
    before = {**run.record["data"], "lexicon": run.record.get("lexicon_sha256")}
    for name, value in now_.items():
        if value != before.get(name):
            what = f"the lexicon ({lexicon})" if name == "lexicon" else f"the {name} pairs ({data})"
            raise UserError(
                f"{what} changed since the search in {run.folder} began, so scores would not "
                "compare: put the old data back, or start a new search"
            )
    then = run.record["versions"]
    return ", ".join(
        f"{name} {then.get(name)} then, {version} now"
        for name, version in _versions().items()
        if version != then.get(name)
    )


def _splits(corpus: Corpus) -> dict[str, Any]:
    splits = corpus.splits
    named = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    return {name: {"pairs": len(pairs), "sha256": fingerprint(pairs)} for name, pairs in named}


def _lexicon_sha256(corpus: Corpus) -> str:
    lexicon = corpus.lexicon
    entries = {language: sorted(lexicon.entries(language)) for language in lexicon.languages}
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def now() -> str:
    """The time, in ISO format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    return {
        "detox_tune": __version__,
        "python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in _VERSIONS},
    }
