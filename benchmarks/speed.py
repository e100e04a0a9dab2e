"""python benchmarks/speed.py --out results: the fast path against the stock recipe.

Both sides run in turn in the same run, and each figure is a median. Writes `speed.json`, a list of
rows, and `speed.md`, the same as tables. Everything is made here: mt5-base's shape with random
weights, and the pocket base.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from decoding import decoding_rows
from one_path import Spec
from report import Row, markdown
from rich.console import Console
from start import start_rows
from stock import computes_bfloat16
from tables import commit
from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

from detox_tune.cli import OneLineParser, quiet_environment, run_command
from detox_tune.files import write_json, write_text
from detox_tune.tuning.base import find_base
from detox_tune.tuning.corpus import load_corpus
from detox_tune.tuning.space_file import load_space

HERE = Path(__file__).parent
POCKET = HERE.parent / "search_spaces" / "pocket.yaml"
KEPT = 30_000
"""Tokens of the cut vocabulary at mt5-base's shape."""
PROFILES: dict[str, list[dict[str, float]]] = {}
"""What a step's time goes to, stock and fast, by what was measured."""
PARTS = ("steps", "decoding", "start", "search")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for, print each row as it comes, write both files."""
    options = _parser().parse_args(arguments)
    quiet_environment()
    measured = {"machine": machine(options.device), "commit": commit(), "date": str(date.today())}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "mt5-base"
        pocket = Path(build_pocket())
        if {"steps", "start"}.intersection(options.parts):
            random_mt5_base(base, pocket)
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "steps": lambda: step_rows({"mt5-base": base, "pocket": pocket}, options),
            "decoding": lambda: decoding_rows(pocket, POCKET, options.device, options.repeats),
            "start": lambda: start_rows({"mt5-base": base, "pocket": pocket}, POCKET, options),
            "search": lambda: search_rows(Path(folder), options),
        }
        for part in options.parts:
            for row in parts[part]():
                print(f"{row.name}: {row.stock:.3g} -> {row.fast:.3g} {row.unit}", flush=True)
                rows.append(row)
                write_json(options.out / "speed.json", [r.record(measured) for r in rows])
    write_text(options.out / "speed.md", markdown(rows, PROFILES, measured, sys.argv[1:]))
    return 0


def step_rows(bases: dict[str, Path], options: argparse.Namespace) -> Iterator[Row]:
    """A training step: seconds, and memory beyond the weights."""
    for shape, folder in bases.items():
        for pairs in options.pairs:
            guide = shape == "mt5-base" and computes_bfloat16(options.device)
            for mask, prepared in product(("none", "toxic_only"), (False, True)[: 1 + guide]):
                name = f"training step, {shape}, {pairs} pairs of 32+32 tokens, {mask}"
                name += ", stock prepared by PEFT's guide" if prepared else ""
                seconds, last = steps_in_turn(folder, pairs, mask, options, prepared=prepared)
                yield Row(name, "s", *(statistics.median(s) for s in seconds))
                yield Row(f"{name}: memory", "MiB", *(end["peak_bytes"] / 2**20 for end in last))
                if not prepared:
                    PROFILES[name] = [end["profile"] for end in last]


def steps_in_turn(
    checkpoint: Path, pairs: int, mask: str, options: argparse.Namespace, *, prepared: bool
) -> tuple[list[list[float]], list[dict[str, Any]]]:
    """Seconds of the steps, and last words, of stock and fast; first and last step don't count."""
    spec = {
        "checkpoint": str(checkpoint),
        "quantized": computes_bfloat16(options.device),
        "device": options.device,
        "pairs": pairs,
        "mask": mask,
        "kept": KEPT,
        "steps": 2 + options.repeats,
    }
    stock = path_process(path="stock", prepared=prepared, **spec)
    with stock as one, path_process(path="fast", **spec) as other:
        both = (one, other)
        for process in both:
            read_answer(process)  # ready
        seconds = [[step(process) for process in both] for _ in range(1 + options.repeats)]
        last = []
        for process in both:  # one must be gone before the other's last step, which is profiled
            step(process)
            last.append(read_answer(process))
            process.wait()
        return [list(times) for times in zip(*seconds[1:], strict=True)], last


def step(process: subprocess.Popen[str]) -> float:
    """Let a process take its next step; its seconds."""
    assert process.stdin is not None
    process.stdin.write("step\n")
    process.stdin.flush()
    return float(read_answer(process)["seconds"])


@contextmanager
def path_process(**spec: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of one_path.py, gone afterwards."""
    command = [sys.executable, str(HERE / "one_path.py"), Spec(**spec).model_dump_json()]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_answer(process: subprocess.Popen[str]) -> Any:
    """The next line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args}: ended without an answer")
    return json.loads(line)


def search_rows(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The same trials of the pocket search, none stopped early: how many in an hour?"""
    space = yaml.safe_load(POCKET.read_text(encoding="utf-8"))
    steps = options.search_steps
    whole = {"steps": steps, "grace_steps": steps, "collapse_grace": steps, "eval_every": 45}
    space |= whole | {"trials": options.trials, "sampler": "random", "max_copy_rate": 1.0}
    if options.device.startswith("cuda"):
        space["gpus_per_trial"] = 0.125
    file = folder / "speed.yaml"
    file.write_text(yaml.safe_dump(space), encoding="utf-8")
    commands = (
        [str(HERE / "stock_search.py"), str(file)],
        ["-m", "detox_tune.search", str(file), "--out", str(folder / "runs")],
    )
    per_hour = []
    for command in commands:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        per_hour.append(3600 * options.trials / (time.perf_counter() - started))
    name = f"whole pocket search, {options.trials} trials of {steps} steps"
    yield Row(name, "trials/h", *per_hour, higher_is_better=True)


def random_mt5_base(folder: Path, pocket: Path) -> None:
    """A checkpoint of mt5-base's true shape with random weights, and some tokenizer."""
    config = MT5Config(
        vocab_size=250_112,
        d_model=768,
        d_kv=64,
        d_ff=2048,
        num_layers=12,
        num_heads=12,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = MT5ForConditionalGeneration(config)
        # The constructor ties the head, whatever it is told; mT5's own is not tied.
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
        model.save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    AutoTokenizer.from_pretrained(pocket).save_pretrained(folder)


def build_pocket() -> str:
    """The pocket base of the default search, from the cache if it is there."""
    config, _ = load_space(POCKET, {})
    return find_base(config, load_corpus(config), Console(stderr=True))


def machine(device: str) -> str:
    """What the figures were measured on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0))
    numbers = "" if computes_bfloat16(device) else " that emulate bfloat16"
    return f"{cores} CPU cores ({platform.machine()}){numbers}, torch {torch.__version__}"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/speed.py",
        description="Measure the fast path against the stock recipe; takes about 25 minutes.",
    )
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--pairs", type=int, nargs="+", default=[16], help="pairs of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="measurements a median is of")
    parser.add_argument("--trials", type=int, default=12, help="of the whole search")
    parser.add_argument("--search-steps", type=int, default=135, help="of each of its trials")
    return parser


if __name__ == "__main__":
    run_command(main)
