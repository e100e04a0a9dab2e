"""What the speed measurements found, as rows of JSON and as tables."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A figure of the stock recipe beside that of the fast path."""

    name: str
    unit: str
    stock: float
    fast: float
    higher_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better the fast path is."""
        return self.fast / self.stock if self.higher_is_better else self.stock / self.fast

    def record(self, measured: Mapping[str, str]) -> dict[str, Any]:
        """The row as speed.json holds it, with machine, commit and date."""
        return {
            "name": self.name,
            "unit": self.unit,
            "stock": self.stock,
            "fast": self.fast,
            "ratio": self.ratio,
            **measured,
        }


def markdown(rows: Sequence[Row], measured: Mapping[str, str], arguments: Sequence[str]) -> str:
    """The table, with the command and the commit that made it."""
    command = shlex.join(["python", "benchmarks/speed.py", *arguments])
    lines = [
        "# The fast path against the stock recipe",
        "",
        f"`{command}`, commit {measured['commit']}, {measured['date']}, {measured['machine']}.",
        "",
        "Stock: Hugging Face's trainer, PEFT, nf4 layers of bitsandbytes, gradient checkpointing,",
        "the logits of all positions over the whole vocabulary, `generate`, one trial at a time",
        "(`benchmarks/stock.py`). Medians; both sides ran in turn in the same run. Memory is what",
        "a step takes beyond weights and optimiser.",
        "",
        "| what | unit | stock | fast | times better |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.unit} | {row.stock:.3g} | {row.fast:.3g} | {row.ratio:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """The short hash of the code, with `-dirty` behind it where files have changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
