"""What the speed measurements found, as rows of JSON and as tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tables import markdown_table

ABOUT = """\
Stock: Hugging Face's trainer, PEFT, nf4 layers of bitsandbytes, gradient checkpointing, the logits
of all positions over the whole vocabulary, `generate`, one trial at a time
(`benchmarks/stock.py`). "Prepared by PEFT's guide" adds `prepare_model_for_kbit_training`, which
that guide asks for and which turns embedding and head into float32. Medians; both sides ran in turn
in the same run. Memory is what steps take beyond weights and optimiser. The whole search runs in
float32 on either side, as its space says. So does all else on a CPU that emulates bfloat16.
"""


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


def markdown(
    rows: Sequence[Row],
    profiles: Mapping[str, Sequence[Mapping[str, float]]],
    measured: Mapping[str, str],
    arguments: Sequence[str],
) -> str:
    """The tables, with the command and the commit that made them."""
    command = shlex.join(["python", "benchmarks/speed.py", *arguments])
    table = markdown_table(
        ["what", "unit", "stock", "fast", "times better"],
        [
            [row.name, row.unit, f"{row.stock:.3g}", f"{row.fast:.3g}", f"{row.ratio:.2f}"]
            for row in rows
        ],
        texts=2,
    )
    return (
        "# The fast path against the stock recipe\n\n"
        f"`{command}`, commit {measured['commit']}, {measured['date']}, {measured['machine']}.\n\n"
        f"{ABOUT}\n{table}" + "".join(_profile(name, *both) for name, both in profiles.items())
    )


def _profile(name: str, stock: Mapping[str, float], fast: Mapping[str, float]) -> str:
    """What a step's time went to."""
    rows = [
        [one, f"{stock[one]:.0%}", other, f"{fast[other]:.0%}"]
        for one, other in zip(stock, fast, strict=False)
    ]
    table = markdown_table(["stock", "share", "fast", "share"], rows)
    return f"\n## Where the time goes: {name}\n\n{table}"
