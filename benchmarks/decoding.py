"""Greedy decoding of sentences: `generate` against drafting from the source.

Three models on the pocket base: the untouched base, which copies; one that was tuned to delete the
lexicon's words; one that was tuned on the references, and rewrites.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from report import Row
from stock import computes_bfloat16, stock_model

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.evaluation.scores import delete_outputs
from detox_tune.model.base import load_base
from detox_tune.model.lora import TARGETS, adapted
from detox_tune.tuning.corpus import Corpus, load_corpus
from detox_tune.tuning.space_file import load_space
from detox_tune.tuning.task import build_task
from detox_tune.tuning.trial import training_arguments, trial_trainer

SENTENCES = 256
COMPARED = 1000
"""Sentences whose output ids are compared, in float32."""
TRIAL = TrialConfig(learning_rate=3e-3, batch_size=32, task_prefix="")
STEPS = 300


def decoding_rows(pocket: Path, space_file: Path, device: str, repeats: int) -> Iterator[Row]:
    """Seconds for 256 sentences of each kind, and how many of 1,000 outputs are the same."""
    config, _ = load_space(space_file, {"vocabulary": "full", "steps": STEPS, "grace_steps": 1})
    corpus = load_corpus(config)
    texts = [pair.source for pair in (*corpus.splits.test, *corpus.splits.train)][:COMPARED]
    with tempfile.TemporaryDirectory() as folder:
        for kind, targets in (("copy", None), ("delete", _deletions), ("rewrite", lambda c: c)):
            adapter = None
            if targets is not None:
                adapter = str(_tuned(config, targets(corpus), pocket, Path(folder) / kind))
            stock, fast, ids = _models(pocket, adapter, texts, device)
            name = f"decoding {SENTENCES} sentences, pocket, {kind}"
            for size in (8, 32):
                seconds = _in_turn(
                    repeats,
                    partial(_greedy, stock, ids[:SENTENCES], size),
                    partial(_draft, fast, ids[:SENTENCES]),
                )
                yield Row(f"{name}, batches of {size} for stock", "s", *seconds)
            same = _same(pocket, adapter, ids, device)
            yield Row(f"outputs of {COMPARED} that are the same, {kind}", "share", 1.0, same)


def _models(
    pocket: Path, adapter: str | None, texts: Sequence[str], device: str
) -> tuple[Any, Any, list[list[int]]]:
    """Stock and fast model, of nf4 layers where they make sense, and the ids of the sentences."""
    quantized = computes_bfloat16(device)
    base, tokenizer = load_base(
        str(pocket), quantization="nf4" if quantized else "none", device=device
    )
    stock = stock_model(str(pocket), TARGETS["second"], quantized=quantized, device=device)
    plain = stock.unload()
    models = [
        m if adapter is None else PeftModel.from_pretrained(m, adapter) for m in (plain, base)
    ]
    return models[0], models[1], [tokenizer(text).input_ids for text in texts]


def _same(pocket: Path, adapter: str | None, ids: Sequence[Sequence[int]], device: str) -> float:
    """Share of outputs that `generate` and drafting have in common, in float32."""
    base, _ = load_base(str(pocket), quantization="none", device=device)
    model = base if adapter is None else PeftModel.from_pretrained(base, adapter)
    both = zip(_greedy(model, ids, 32), _draft(model, ids), strict=True)
    return sum(one == other for one, other in both) / len(ids)


def _greedy(model: Any, ids: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    return greedy_decode(model, ids, max_new_tokens=56, batch_size=size)


def _draft(model: Any, ids: Sequence[Sequence[int]]) -> list[list[int]]:
    return draft_decode(model, ids, max_new_tokens=56)


def _in_turn(repeats: int, *sides: Callable[[], object]) -> tuple[float, ...]:
    """Median seconds of each side, after a first time that does not count."""
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(1 + repeats):
        for side, times in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            side()
            times.append(time.perf_counter() - started)
    return tuple(statistics.median(times[1:]) for times in seconds)


def _deletions(corpus: Corpus) -> Corpus:
    """The corpus with references that only lack the lexicon's words."""

    def deleted(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        texts = delete_outputs(pairs, corpus.lexicon)
        return tuple(
            dataclasses.replace(pair, references=(text,))
            for pair, text in zip(pairs, texts, strict=True)
            if text and text != pair.source
        )

    splits = dataclasses.replace(corpus.splits, train=deleted(corpus.splits.train))
    return dataclasses.replace(corpus, splits=splits)


def _tuned(config: SearchConfig, corpus: Corpus, pocket: Path, folder: Path) -> Path:
    """An adapter trained for some steps on the corpus."""
    task = build_task(config, corpus, str(pocket), task_prefixes=[""])
    base, _ = load_base(str(pocket), quantization="none")
    with adapted(base, TRIAL, seed=0) as model, tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(TRIAL, config, Path(scratch), "cpu")
        trial_trainer(TRIAL, model, arguments, config, task, task.rows(TRIAL)).train()
        model.save_pretrained(str(folder))
    return folder
