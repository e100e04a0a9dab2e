"""detox-tune, or python -m detox_tune: every command by its name."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import shtab

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import SCRIPT

COMMANDS = {
    "search": "run the trials of a space, export the best adapter",
    "checks": "check data, lexicon, masks, base and a few steps before a search",
    "evaluate": "score an adapter, or a file of outputs, between baselines",
    "report": "write the page about a run, or about several side by side",
    "merge": "write an adapter and its base as one model, in 16 bits",
    "publish": "send an adapter and its card to the Hugging Face hub",
    "rewrite": "rewrite texts with an adapter",
    "schema": "print the JSON schema of a space file, for editors",
}
COMPLETION = "completion"


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand over to a command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == COMPLETION:
        print(shtab.complete(_whole_parser(), shell=_shell(options.rest)))
        return 0
    # As if the command had been started by itself: what is typed is kept in search.json.
    sys.argv = [sys.argv[0], *options.rest]
    code: int = _module(options.command).main(options.rest)
    return code


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    lines.append(f"  {COMPLETION:<12}print the completion of {', '.join(shtab.SUPPORTED_SHELLS)}")
    parser = OneLineParser(
        prog=SCRIPT,
        description="Find, by search, the fine-tuning that really rewrites toxic sentences.",
        epilog="\n".join(["commands (each has --help):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=[*COMMANDS, COMPLETION], metavar="command")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...")
    return parser


def _shell(rest: Sequence[str]) -> str:
    parser = OneLineParser(prog=f"{SCRIPT} {COMPLETION}")
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return str(parser.parse_args(rest).shell)


def _whole_parser() -> argparse.ArgumentParser:
    """The command lines of all commands as one."""
    whole = argparse.ArgumentParser(prog=SCRIPT)
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        of_command: argparse.ArgumentParser = _module(name).parser()
        for action in of_command._actions:
            if action.type is path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(name, help=text, parents=[of_command], add_help=False)
    return whole


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"detox_tune.{name}")


def run() -> None:
    """The entry point of the installed command."""
    run_command(main)


if __name__ == "__main__":
    run()
