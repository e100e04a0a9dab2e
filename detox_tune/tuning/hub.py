"""The Hugging Face hub: may this be sent there, and sending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from detox_tune.errors import UserError
from detox_tune.tuning.card import CARD

Files = dict[str, Path | bytes]
"""Names in a repository, and where the file is here or what it holds."""


def check_repo_id(name: str, what: str) -> None:
    """Refuse what cannot be the name of a repository.

    Args:
        name: OWNER/NAME.
        what: what it is the name of, for the message.

    Raises:
        UserError: with the rule.
    """
    try:
        validate_repo_id(name)
        malformed = name.count("/") != 1
    except HFValidationError:
        malformed = True
    if malformed:
        raise UserError(
            f"{what} {name!r} must be OWNER/NAME, each of letters, digits, single `-` and `.`, and "
            "`_`: give such a name"
        )


def check_access() -> None:
    """Refuse what cannot reach the hub, or may not write to it, before anything is done.

    Raises:
        UserError: if the hub's libraries are told to stay offline, or have no token.
    """
    if is_offline_mode():
        raise UserError(
            "HF_HUB_OFFLINE is set, so nothing can be published: unset it, or see with --dry-run "
            "what would go up"
        )
    if not get_token():
        raise UserError(
            "there is no token for the hub: log in with `hf auth login`, or set HF_TOKEN to a "
            "token that may write"
        )


def send(files: Files, repo_id: str, *, private: bool, unwanted: Sequence[str] = ()) -> str:
    """Send files as one commit, to a repository that is made if need be.

    Args:
        files: a card is among them.
        repo_id: OWNER/NAME.
        private: the repository must be.
        unwanted: files that are removed from the repository if it has them and `files` does not.

    Returns:
        The address of the repository.

    Raises:
        UserError: if the hub cannot be reached, or does not take them.
    """
    try:
        _check_card(files)
        return _send(files, repo_id, private, unwanted)
    except HfHubHTTPError as error:
        raise UserError(_refused(error, repo_id)) from error
    except (httpx2.TransportError, ConnectionError) as error:  # the second while files go up
        raise UserError(
            f"{constants.ENDPOINT} cannot be reached ({error}): check the connection, and "
            "HF_ENDPOINT if it is set"
        ) from error


def _check_card(files: Mapping[str, Path | bytes]) -> None:
    """Have the hub look at the card before there is a repository."""
    card = files[CARD]
    assert isinstance(card, bytes)
    try:
        ModelCard(card.decode()).validate()
    except ValueError as error:
        raise UserError(
            f"the hub does not take the metadata of {CARD} ({error}): correct it, or --license"
        ) from error


def _send(files: Files, repo_id: str, private: bool, unwanted: Sequence[str]) -> str:
    api = HfApi()
    url = api.create_repo(repo_id, private=private or None, exist_ok=True)
    there = api.model_info(repo_id)
    if private and not there.private:
        raise UserError(
            f"{repo_id} is there and is public, so --private cannot hold: make it private at "
            f"{url}/settings, or name another repository"
        )
    names = {file.rfilename for file in there.siblings or ()}
    removed = [name for name in unwanted if name in names and name not in files]
    if removed:
        print(f"removing {', '.join(removed)}, which the history of {repo_id} keeps")
    api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, content) for name, content in files.items()),
            *map(CommitOperationDelete, removed),
        ],
        commit_message="Adapter, card, metrics and samples",
    )
    return str(url)


def _refused(error: HfHubHTTPError, repo_id: str) -> str:
    """What to do about an answer of the hub."""
    status = error.response.status_code
    said = f"the hub answers {status}"
    if error.server_message:
        said += f" ({error.server_message})"
    if status == 401:
        return f"{said}: it does not know the token: `hf auth login`, or set HF_TOKEN to another"
    if status == 403:
        return (
            f"{said}: the token may not write to {repo_id}: take one that may, or name a "
            "repository of your own"
        )
    if status >= 500 or status == 429:
        return f"{said}: try again later"
    return f"{said}: {error}"
