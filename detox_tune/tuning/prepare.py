"""Between data and trials: say what was read, build the base, refuse what cannot work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from detox_tune.config import SearchConfig
from detox_tune.data.tokenise import encode_sources
from detox_tune.errors import UserError
from detox_tune.evaluation.drafting import exact_copies
from detox_tune.model.base import load_base
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.task import Corpus, Task, build_base


def describe_data(corpus: Corpus, console: Console) -> None:
    """Say what was read, split and dropped."""
    splits = corpus.splits
    if corpus.loaded is not None and corpus.loaded.bad_rows:
        console.print(corpus.loaded.report(), markup=False, highlight=False, soft_wrap=True)
    languages = sorted({pair.language for pair in splits.train})
    console.print(
        f"pairs: {len(splits.train)} train, {len(splits.validation)} validation, "
        f"{len(splits.test)} test ({', '.join(languages)}); lexicon: {len(corpus.lexicon)} entries",
        highlight=False,
    )


def describe_task(config: SearchConfig, task: Task, console: Console) -> None:
    """Say what is trained on, if something had to be left out."""
    if task.over_long:
        console.print(
            f"{task.over_long} of {task.over_long + len(task.examples)} training examples are "
            f"longer than max_tokens={config.max_tokens} and left out",
            highlight=False,
        )


def build_base_with_progress(config: SearchConfig, corpus: Corpus, console: Console) -> str:
    """`build_base` with a progress bar; on no terminal, a line."""
    if config.base_model != "pocket":
        return build_base(config, corpus)
    if not console.is_terminal:
        console.print("pocket base: built on first use (a minute or two), then cached")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("pocket base", total=config.pocket_steps, visible=False)
        return build_base(
            config, corpus, lambda step: progress.update(bar, completed=step, visible=True)
        )


def describe_base(config: SearchConfig, task: Task, console: Console) -> None:
    """Say whether a pocket base has learnt what its pre-training is for: to copy what it reads."""
    if config.base_model != "pocket":
        return
    base, tokenizer = load_base(task.base, quantization="none")
    sources = encode_sources([pair.source for pair in task.validation], tokenizer, "")
    copied = sum(exact_copies(base, sources)) / len(sources)
    console.print(
        f"pocket base: copies {copied:.2f} of {len(sources)} validation sentences word for word",
        highlight=False,
    )


def check_penalty(space: SearchSpace, task: Task) -> None:
    """Refuse a search over gamma where no token is toxic: the penalty would be 0 throughout."""
    if any(float(g or 0) > 0 for g in space.possible("gamma")) and not task.forbidden_token_ids:
        raise UserError(
            "gamma weighs a penalty on toxic tokens, but none was found in the training data: give "
            "a --lexicon whose words occur there, lower min_purity, or fix gamma: 0"
        )


def check_anchor(space: SearchSpace, task: Task) -> None:
    """Refuse a search over an anchor that finds no position: each of its trials would fail."""
    if "labels" in space.possible("mask_anchor") and not any(map(any, task.positions["labels"])):
        raise UserError(
            "mask_anchor=labels trains where references hold toxic words, but the lexicon finds "
            f"none in {len(task.train)} training pairs: leave it out, or give another --lexicon"
        )
