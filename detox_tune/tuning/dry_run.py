"""What a search would do, without doing it."""

from __future__ import annotations

from rich.console import Console

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.model.base import load_tokenizer
from detox_tune.training.masking import marked, trained_positions
from detox_tune.tuning.prepare import build_base_with_progress, describe_data
from detox_tune.tuning.space import SearchSpace, first_samples
from detox_tune.tuning.task import Task, build_task, load_corpus

_SAMPLES = 5
_PAIRS = 2


def dry_run(config: SearchConfig, space: SearchSpace) -> None:
    """Print the resolved search, the first trials, and what their masks would train."""
    console = Console()
    console.print("[bold]search[/bold]")
    for name, value in config.model_dump().items():
        console.print(f"  {name}: {value!r}", highlight=False)
    console.print("[bold]space[/bold]")
    for name, domain in space.describe().items():
        console.print(f"  {name}: {domain!r}", highlight=False)
    console.print(f"[bold]first {_SAMPLES} trials[/bold] (before any result is known)")
    samples = [TrialConfig(**s) for s in first_samples(space, config, _SAMPLES)]
    for number, sample in enumerate(samples, start=1):
        settings = {k: v for k, v in sample.model_dump().items() if v is not None}
        console.print(f"  trial_{number:03d}: {settings}", highlight=False)
    corpus = load_corpus(config)
    describe_data(corpus, console)
    base = build_base_with_progress(config, corpus, Console(stderr=True))
    show_masks(
        build_task(config, corpus, base, task_prefixes=space.task_prefixes()), samples, console
    )


def show_masks(task: Task, samples: list[TrialConfig], console: Console) -> None:
    """References of a few pairs with the tokens marked that each mask strategy trains."""
    tokenizer = load_tokenizer(task.base)
    masks = {(s.mask_strategy, s.mask_anchor, s.context_window) for s in samples}
    chosen = [i for i, toxic in enumerate(task.positions["edits"]) if any(toxic)][:_PAIRS]
    console.print("[bold]what each mask trains[/bold] ([[...]] marks trained tokens)")
    for index in chosen:
        example = task.examples[index]
        console.print(
            f"  source: {task.train[example.pair].source}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        for strategy, anchor, window in sorted(masks, key=str):
            trained = trained_positions(
                strategy,
                toxic=task.positions[anchor or "edits"][index],
                label_toxic=example.label_toxic,
                context_window=window,
            )
            tokens = tokenizer.convert_ids_to_tokens(example.label_ids)
            name = " ".join(str(part) for part in (strategy, anchor, window) if part is not None)
            console.print(
                f"    {name}: {marked(tokens, trained)}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
