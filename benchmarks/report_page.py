"""PYTHONPATH=. python benchmarks/report_page.py --against COMMIT: what the page of a search costs.

The page about a made-up run, as this code writes it and as that of another commit does, opened in
turn in headless Chromium until every chart is drawn. CPU seconds of the page's main thread, by
Chrome's DevTools, so that other work on the machine counts little; medians. Writes
`report_page.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from tables import commit, markdown_table

from detox_tune.cli import OneLineParser, run_command
from detox_tune.files import write_text
from tests.tuning.report.made_run import made_run

ROOT = Path(__file__).parents[1]
SENTENCES = 100  # of the validation sample


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, measure them in turn, write the table."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place)
        run = made_run(folder, trials=options.trials, sentences=SENTENCES)
        pages = {
            options.against: written_page(run, old_code(options.against, folder), folder / "a"),
            commit(): written_page(run, ROOT, folder / "b"),
        }
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        costs: dict[str, list[tuple[float, int]]] = {name: [] for name in pages}
        for _ in range(options.repeats):
            for name, page in pages.items():
                costs[name].append(cost(browser, page))
                print(f"{name}: {costs[name][-1][0]:.2f} s")
        browser.close()
        rows = [
            [name, f"{pages[name].stat().st_size / 1e6:.2f}", f"{found[0][1]:,}", *_spread(found)]
            for name, found in costs.items()
        ]
    head = ("commit", "MB", "elements", "CPU s", "lowest", "highest")
    about = (
        "# The page of a search in a browser\n\n"
        f"`PYTHONPATH=. python benchmarks/report_page.py --against {options.against}`, commit "
        f"{commit()}, {date.today()}. A made-up run of {options.trials} trials and {SENTENCES} "
        "sentences; CPU seconds of the page's main thread from opening it until every chart is "
        f"drawn, Chromium {browser.version}, medians of {options.repeats}, opened in turn. The "
        "start of the browser's process for the page is not counted.\n\n"
    )
    write_text(options.out / "report_page.md", about + markdown_table(head, rows))
    return 0


def old_code(revision: str, folder: Path) -> Path:
    """The package as a commit has it; returns the folder that holds it."""
    code = folder / "code"
    code.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision, "detox_tune"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(code)], input=archive.stdout, check=True)
    return code


def written_page(run: Path, code: Path, path: Path) -> Path:
    """The page about a run as some code writes it, moved to `path`.html."""
    command = [sys.executable, "-m", "detox_tune.report", str(run)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    subprocess.run(command, cwd=code, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (run / "report.html").rename(path.with_suffix(".html"))


def cost(browser: Browser, path: Path) -> tuple[float, int]:
    """CPU seconds of the main thread until a page is drawn, and its elements."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=300_000)
    measured = devtools.send("Performance.getMetrics")["metrics"]
    seconds = next(one["value"] for one in measured if one["name"] == "TaskDuration")
    elements = page.locator("*").count()
    context.close()
    return seconds, elements


def _spread(costs: Sequence[tuple[float, int]]) -> list[str]:
    seconds = [one for one, _ in costs]
    return [f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))]


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="PYTHONPATH=. python benchmarks/report_page.py", description=__doc__
    )
    parser.add_argument("--against", required=True, metavar="COMMIT", help="of the other page")
    parser.add_argument("--trials", type=int, default=500, help="of the run (default 500)")
    parser.add_argument("--repeats", type=int, default=7, help="of each page (default 7)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for the table")
    return parser


if __name__ == "__main__":
    run_command(main)
