"""Damaged and hostile inputs for everything that reads what users give.

    python -m tests.fuzz INPUTS [SEED]

Each input is a good one, changed at a few random places. It must be read, or refused in one line
(`UserError`, or a parser's exit with code 2); anything else is a fault, which is printed with the
input that showed it. Of files whose rows are lines, each line must be a row that is counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model

from detox_tune import load_adapter
from detox_tune.cli import quiet_environment, run_command
from detox_tune.data.embedded import embedded_sentences
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import load_pairs
from detox_tune.data.spans import load_spans
from detox_tune.errors import UserError
from detox_tune.evaluation.references import load_references
from detox_tune.evaluation.submission import load_outputs
from detox_tune.model.base import load_base
from detox_tune.model.pocket import pocket_base
from detox_tune.search import chosen, parser
from detox_tune.tuning.space_file import load_space

Reader = Callable[[Path], None]

YAML = b"""data: embedded
languages: [en]
trials: 2
steps: 4
eval_every: 2
grace_steps: 2
trial:
  gamma: {zero_or: [0.1, 1.0], log: true}
  learning_rate: {choice: [1.0e-3, 2.0e-3]}
  mask_strategy: {choice: [none, toxic_context]}
  context_window: {range: [1, 3], when: {mask_strategy: toxic_context}}
"""
ROWS = [('you damn fool, "go" home', "please go home"), ("what the hell", "what"), ("a\\tb", "c")]
TSV = "".join(f"{a}\t{b}\n" for a, b in [("toxic", "neutral"), *ROWS]).encode()
CSV = b'toxic,neutral\n"you, damn fool","please, ""go"" home"\nwhat the hell,what\n'
JSONL = "".join(json.dumps({"toxic": a, "neutral": [b], "lang": "en"}) + "\n" for a, b in ROWS)
SPANS = b'Sentence,spans\n"you damn fool","[4, 5, 6, 7]"\nwhat the hell,"hell, what"\n'
COMMAND = "pocket gamma=3 --trials 3 --steps 9 --seed 1 --name a --hours 2 --out /tmp/x"
TOKENS = [b"\x00", b"\xff", b'"', b"'", b"\t", b"\n", b"\r\n", b",", b"{", b"[", b"]", b": "]
TOKENS += [b"</s>", b"<extra_id_0>", b"\xef\xbb\xbf", b"true", b"null", b"-1", b"&a", b"*a", b"!!x"]
TOKENS += [b"\xe2\x80\xae", b"\x1b[2J", b"../../x", b"nan", "ß\u0301中".encode(), b" " * 50]
TOKENS += [b"9" * 400, b"1e999"]


def parquet() -> bytes:
    """A small table of pairs."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"toxic": ["you fool"] * 3, "neutral": ["you", "me", None]}), sink)
    return sink.getvalue()


def changed(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: bytes lost, doubled, moved, replaced or added."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 1, 2, 5, 40)))
        kind = rng.randrange(5)
        if kind == 0:
            del data[start:end]
        elif kind == 1:
            data[start:start] = data[start:end] * rng.randint(1, 20)
        elif kind == 2:
            data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
        elif kind == 3:
            data[start:start] = rng.choice(TOKENS)
        else:
            other = rng.randrange(len(data) + 1)
            data[other:other] = data[start:end]
    return bytes(data)


def read_pairs(path: Path) -> None:
    """Reads pairs; each line of a file that is read line by line must be counted."""
    loaded = load_pairs(str(path), quoting="plain", allow_bad_rows=True)
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    lines = [line for line in text.split("\n" if "\n" in text else "\r") if line.strip()]
    if path.suffix in (".tsv", ".jsonl"):
        expected = len(lines) - (path.suffix == ".tsv")
        assert loaded.n_rows == expected, f"{loaded.n_rows} rows, {expected} lines"


def outputs_reader(scratch: Path) -> Reader:
    """Reads a submission for the rows of `TSV`."""
    good = scratch / "references" / "en.tsv"
    good.parent.mkdir()
    good.write_bytes(TSV)
    references = load_references(str(good))
    return lambda path: void(load_outputs(path, references))


def read_command(path: Path) -> None:
    """Reads the command line that a file holds."""
    words = path.read_bytes().decode(errors="replace").replace("\x00", "").split()

    def main() -> int:
        load_space(*chosen(parser().parse_intermixed_args(words)))
        return 0

    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code in (0, 2), f"exit code {stopped.value.code}"


def surfaces(scratch: Path) -> dict[str, tuple[str, bytes, Reader]]:
    """What is read: its name, the name of its file, a good content, and the reader."""
    return {
        "space": ("space.yaml", YAML, lambda path: void(load_space(path, {}))),
        "tsv": ("en.tsv", TSV, read_pairs),
        "csv": ("en.csv", CSV, lambda path: void(load_pairs(str(path), allow_bad_rows=True))),
        "jsonl": ("en.jsonl", JSONL.encode(), read_pairs),
        "parquet": ("en.parquet", parquet(), read_pairs),
        "lexicon": ("en.txt", b"damn\nfool\nwhat the hell\n", lexicon),
        "spans": ("en.csv", SPANS, lambda path: void(load_spans(path, ["en"]))),
        "outputs": (
            "outputs.tsv",
            TSV.replace(b"toxic", b"toxic_sentence"),
            outputs_reader(scratch),
        ),
        "command": ("command", COMMAND.encode(), read_command),
        **adapters(scratch),
    }


def void(_: object) -> None:
    """For readers whose result is not looked at."""


def lexicon(path: Path) -> None:
    """Reads a lexicon, and looks for its entries."""
    found = Lexicon.load(path, ["en"])
    found.delete("you damn fool, what the hell", "en")


def adapters(scratch: Path) -> dict[str, tuple[str, bytes, Reader]]:
    """An adapter of a tiny base: each of its two files."""
    base = pocket_base(
        embedded_sentences()[:500], vocabulary=300, steps=1, seed=0, cache=scratch / "bases"
    )
    model, _ = load_base(str(base), quantization="none", device="cpu")
    good = scratch / "adapter"
    get_peft_model(model, LoraConfig(r=2, target_modules=["q"])).save_pretrained(str(good))

    def read(path: Path) -> None:
        folder = path.parent / "damaged"
        shutil.copytree(good, folder, dirs_exist_ok=True)
        shutil.copyfile(path, folder / path.name)
        with torch.no_grad():
            load_adapter(folder, base_model=str(base))

    names = ("adapter_config.json", "adapter_model.safetensors")
    return {name: (name, (good / name).read_bytes(), read) for name in names}


SLOW = {"adapter_config.json": 20, "adapter_model.safetensors": 20, "parquet": 4}
"""Of these surfaces, one input in so many: they take longer."""


def fuzz(inputs: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Read so many inputs; returns how many each surface had, and the faults."""
    rng = random.Random(seed)
    counts: dict[str, int] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        kinds = surfaces(Path(name))
        weights = [1 / SLOW.get(kind, 1) for kind in kinds]
        for kind in rng.choices(list(kinds), weights, k=inputs):
            file, good, read = kinds[kind]
            content = changed(good, rng)
            path = Path(name, file)
            path.write_bytes(content)
            counts[kind] = counts.get(kind, 0) + 1
            try:
                with (
                    contextlib.redirect_stderr(io.StringIO()),
                    contextlib.redirect_stdout(io.StringIO()),
                ):
                    read(path)
            except UserError:
                continue
            except Exception as error:  # any other is what is looked for
                faults.append(f"{kind}: {type(error).__name__}: {error}: {content[:2000]!r}")
    return counts, faults


if __name__ == "__main__":
    quiet_environment()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    numbers, found = fuzz(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0)
    for line in found[:20]:
        print(line)
    print(f"{numbers}: {sum(numbers.values())} inputs, {len(found)} faults", end="")
    print(f" after {time.monotonic() - started:.0f} s")
    sys.exit(bool(found))
