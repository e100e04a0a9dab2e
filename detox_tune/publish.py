"""python -m detox_tune.publish: an adapter and what belongs to it, to the Hugging Face hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import printable, program
from detox_tune.errors import UserError

if TYPE_CHECKING:
    from detox_tune.tuning.hub import Files

_CARD_LINES = 12  # that a dry run shows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser().parse_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    from huggingface_hub import constants

    from detox_tune.tuning.hub import check_access, check_repo_id, send

    check_repo_id(options.repo_id, "the repository")
    if options.base_model is not None:
        if Path(options.base_model).exists():
            raise UserError(
                f"--base-model {options.base_model} is a folder here: give its name on the hub"
            )
        check_repo_id(options.base_model, "--base-model")
    if not options.dry_run:
        check_access()
    from detox_tune.evaluation.adapter_files import SCORERS_FILE
    from detox_tune.tuning.publishing import files_to_publish

    best = options.adapter / "best"
    folder = best if best.is_dir() else options.adapter
    files = files_to_publish(
        folder,
        options.repo_id,
        base_model=options.base_model,
        license=options.license,
        with_scorers=options.with_scorers,
    )
    _show(files, folder, options)
    if options.dry_run:
        _show_card(files)
        print(f"nothing was sent to {constants.ENDPOINT}: leave --dry-run out to publish")
        return 0
    url = send(files, options.repo_id, private=options.private, unwanted=[SCORERS_FILE])
    print(f"published: {url}")
    return 0


def _show(files: Files, folder: Path, options: argparse.Namespace) -> None:
    """What would go up, how large it is, and what of it is not for every eye."""
    from rich.filesize import decimal

    from detox_tune.evaluation.adapter_files import SAMPLES, SCORERS_FILE

    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    private = ", private" if options.private else ""
    print(f"{options.repo_id}{private}: {len(files)} files, {decimal(sum(sizes.values()))}")
    for name, size in sizes.items():
        print(f"  {name:<32}{decimal(size):>10}")
    if SAMPLES in files:
        print(f"{SAMPLES} holds sentences of the test split, toxic ones among them")
    pieces = "holds the lexicon and pieces of training sentences, toxic ones among them"
    if SCORERS_FILE in files:
        print(f"{SCORERS_FILE} {pieces}")
    elif (folder / SCORERS_FILE).is_file():
        print(f"{SCORERS_FILE} stays here: it {pieces} (--with-scorers sends it, too)")


def _show_card(files: Files) -> None:
    from detox_tune.tuning.card import CARD

    card = files[CARD]
    assert isinstance(card, bytes)
    print(f"{CARD} begins:")
    for line in card.decode().splitlines()[:_CARD_LINES]:
        print(f"  {printable(line)}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("publish"),
        description="Send an adapter to the Hugging Face hub, with its card, metrics and samples, "
        "and with its pocket base. The token is that of `hf auth login`, or HF_TOKEN.",
    )
    parser.add_argument("adapter", type=path, help="a run, or the folder of an adapter")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made if need be")
    parser.add_argument(
        "--license",
        metavar="NAME",
        help="of the adapter, as the hub writes it (apache-2.0, openrail++, …); needed if the card "
        "states none",
    )
    parser.add_argument(
        "--private", action="store_true", help="for you, or your organisation, only"
    )
    parser.add_argument(
        "--base-model", metavar="OWNER/NAME", help="the base on the hub, if it is a folder here"
    )
    parser.add_argument(
        "--with-scorers",
        action="store_true",
        help="scorers.json, too, which `rewrite --candidates` needs; it holds the lexicon and "
        "pieces of training sentences, toxic ones among them",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would go up; needs no network"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
