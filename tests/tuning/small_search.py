"""A small search of the real command: its space, and how tests wait for it and read its files."""

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS, EVERY, PAIRS, MAX_TOKENS = 24, 4, 76, 28

# One trial at a time: only then does a search repeat itself.
SPACE = f"""
data: pairs.jsonl
lexicon: en.txt
base_model: base
max_tokens: {MAX_TOKENS}
validation_share: 0.1
trials: 2
steps: {STEPS}
eval_every: {EVERY}
validation_pairs: 8
grace_steps: {STEPS}
collapse_grace: {STEPS}
max_copy_rate: 1.0
min_purity: 0.7
cpus_per_trial: {os.cpu_count()}
trial:
  learning_rate: {{range: [1.0e-3, 1.0e-2], log: true}}
  lora: {{choice: [first, second]}}
  gamma: {{zero_or: [0.1, 1.0]}}
  mask_strategy: {{choice: [none, toxic_only]}}
  batch_size: 4
"""


def wait_until(condition: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    """Fails if the driver ends before."""
    while not condition():
        try:
            driver.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the search ended early:\n{driver.communicate()[0]}")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
