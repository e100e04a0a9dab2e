"""python benchmarks/vocabulary.py PAIRS --lexicon LEXICON --texts TEXTS: what the cut changes.

A pocket base with a vocabulary of many languages, of which the pairs need a part, stands in for
mT5. The same trials run on all its tokens and on the cut ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from operator import ne
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from tables import commit, markdown_table, output_file
from torch import Tensor
from transformers import PrinterCallback

from detox_tune.cli import OneLineParser, quiet_environment, run_command
from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.toxicity import load_toxicity_data
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import score_outputs
from detox_tune.files import write_text
from detox_tune.model.lora import adapted
from detox_tune.model.pocket import pocket_base
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.corpus import Corpus, denoising_sentences, load_corpus
from detox_tune.tuning.space_file import load_space
from detox_tune.tuning.task import Task, build_task
from detox_tune.tuning.trial import training_arguments, trial_trainer

SPACE = Path(__file__).parent.parent / "search_spaces" / "paradetox_pocket.yaml"
TRIALS: dict[str, dict[str, Any]] = {
    "no mask": {"mask_strategy": "none", "gamma": 0.0},
    "no mask, penalty": {"mask_strategy": "none", "gamma": 0.5},
    "toxic_context": {"mask_strategy": "toxic_context", "context_window": 4, "gamma": 0.0},
    "toxic_context, penalty": {"mask_strategy": "toxic_context", "context_window": 4, "gamma": 0.5},
}
LONGEST = 120
"""Characters of a text in another language: the base learns on sentences."""
SETTINGS: dict[str, Any] = {"batch_size": 32, "learning_rate": 3e-3, "lora": "second"}
ABOUT = """\
`loss` and `gradient` are those of one batch under the same trained adapter, without dropout: of all
tokens, of the cut ones, and the angle between the two gradients as its cosine. `j`, on the test
split: of an adapter trained and asked with all tokens; trained and asked with the cut ones; trained
with the cut ones and asked with all. `other outputs`: of the last two, how many outputs differ:
there the full head chose a token that the cut one lacks.
"""


@dataclass(frozen=True)
class Trained:
    """A trial that has run."""

    adapter: dict[str, Tensor]
    outputs: list[str]
    """On the test split, with the tokens that it was trained with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the base, run each trial twice, write the page."""
    options = _parser().parse_args(arguments)
    quiet_environment()
    code = commit()  # before minutes pass in which it may change
    overrides = {"data": str(options.pairs), "lexicon": str(options.lexicon)}
    cut, _ = load_space(SPACE, overrides | {"steps": options.steps})
    corpus = load_corpus(cut)
    base = mixed_base(cut, corpus, options)
    full = cut.model_copy(update={"vocabulary": "full"})
    prefixes = {TrialConfig(**SETTINGS).task_prefix}
    tasks = {
        name: build_task(config, corpus, base, task_prefixes=prefixes)
        for name, config in (("full", full), ("cut", cut))
    }
    rows = []
    for name, changes in TRIALS.items():
        trial = TrialConfig(**SETTINGS | changes)
        rows.append([name, *compared(trial, {"full": full, "cut": cut}, tasks, corpus)])
        print(" | ".join(rows[-1]), flush=True)
    write_text(options.out, page(rows, tasks, corpus, options, code))
    return 0


def mixed_base(config: SearchConfig, corpus: Corpus, options: argparse.Namespace) -> str:
    """A pocket base whose tokens serve the pairs and texts of many languages."""
    of_language: dict[str, list[str]] = {}
    labelled = load_toxicity_data(options.texts)
    for text, language in zip(labelled.texts, labelled.languages, strict=True):
        if len(text) <= LONGEST:
            of_language.setdefault(language, []).append(text)
    others = [t for texts in of_language.values() for t in texts[: options.texts_each]]
    mixed = list(dict.fromkeys([*denoising_sentences(config, corpus), *others]))
    return str(
        pocket_base(mixed, vocabulary=options.pieces, steps=options.base_steps, seed=config.seed)
    )


def compared(
    trial: TrialConfig,
    searches: Mapping[str, SearchConfig],
    tasks: Mapping[str, Task],
    corpus: Corpus,
) -> list[str]:
    """The figures of one trial, as cells."""
    runs = {name: trained(trial, searches[name], tasks[name], corpus) for name in searches}
    batch = {
        name: loss_and_gradient(trial, searches[name], tasks[name], runs["full"].adapter)
        for name in searches
    }
    (full_loss, full_gradient), (cut_loss, cut_gradient) = batch["full"], batch["cut"]
    cosine = torch.cosine_similarity(full_gradient, cut_gradient, dim=0).item()
    with on_base(trial, searches["full"], tasks["full"]) as (model, tokenizer):
        set_peft_model_state_dict(model, runs["cut"].adapter)
        on_full = outputs(model, tokenizer, trial, searches["full"], corpus)
    scored = [
        score_outputs(
            texts, corpus.splits.test, lexicon=corpus.lexicon, scorers=tasks["full"].scorers
        )
        for texts in (runs["full"].outputs, runs["cut"].outputs, on_full)
    ]
    return [
        f"{full_loss:.4f}",
        f"{cut_loss:.4f}",
        f"{full_gradient.norm():.4f}",
        f"{cut_gradient.norm():.4f}",
        f"{cosine:.5f}",
        *(f"{frame['j'].mean():.3f}" for frame in scored),
        str(sum(map(ne, on_full, runs["cut"].outputs))),
    ]


def trained(trial: TrialConfig, config: SearchConfig, task: Task, corpus: Corpus) -> Trained:
    """Train one trial to its end without a checkpoint, and ask it for the test split."""
    with on_base(trial, config, task) as (model, tokenizer):
        trainer_of(trial, config, task, model).train()
        texts = outputs(model, tokenizer, trial, config, corpus)
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        adapter = {name: weight.clone() for name, weight in state.items()}
    return Trained(adapter, texts)


def loss_and_gradient(
    trial: TrialConfig, config: SearchConfig, task: Task, adapter: dict[str, Tensor]
) -> tuple[float, Tensor]:
    """Loss of the first batch, and its gradient with respect to all of the adapter's weights."""
    with on_base(trial, config, task) as (model, _):
        set_peft_model_state_dict(model, adapter)
        for name, module in model.named_modules():
            if ".lora_dropout." in name:
                module.p = 0.0  # type: ignore[assignment]  # typed as a tensor or a module
        trainer = trainer_of(trial, config, task, model)
        batches, counts = trainer.get_batch_samples(
            iter(trainer.get_train_dataloader()), 1, trainer.args.device
        )
        model.train()
        loss = trainer.training_step(model, batches[0], counts)
        weights = [w for w in model.parameters() if w.requires_grad]
        return loss.item(), torch.cat([w.grad.flatten() for w in weights if w.grad is not None])


@contextmanager
def on_base(
    trial: TrialConfig, config: SearchConfig, task: Task
) -> Iterator[tuple[PeftModel, Any]]:
    """A fresh adapter on the base with the task's tokens, and the tokenizer for these."""
    load_cut_base.cache_clear()
    base, tokenizer = load_cut_base(task.base, config.quantization, "cpu", task.vocabulary)
    with adapted(base, trial, seed=config.seed) as model:
        yield model, tokenizer


def trainer_of(trial: TrialConfig, config: SearchConfig, task: Task, model: PeftModel) -> Any:
    """The trial's trainer, which saves nothing."""
    arguments = training_arguments(trial, config, Path(tempfile.gettempdir()) / "trainer", "cpu")
    arguments.save_strategy = "no"  # type: ignore[assignment]  # it takes the name, too
    trainer = trial_trainer(trial, model, arguments, config, task, task.rows(trial))
    trainer.remove_callback(PrinterCallback)
    return trainer


def outputs(
    model: PeftModel, tokenizer: Any, trial: TrialConfig, config: SearchConfig, corpus: Corpus
) -> list[str]:
    """What the model makes of the test split."""
    sources = [pair.source for pair in corpus.splits.test]
    return rewrite(
        model, tokenizer, sources, task_prefix=trial.task_prefix, max_tokens=config.max_tokens
    )


def page(
    rows: Sequence[Sequence[str]],
    tasks: Mapping[str, Task],
    corpus: Corpus,
    options: argparse.Namespace,
    code: str,
) -> str:
    """The page as markdown."""
    vocabulary = tasks["cut"].vocabulary
    command = (
        f"python benchmarks/vocabulary.py {options.pairs.name} --lexicon {options.lexicon.name} "
        f"--texts {options.texts.name} --pieces {options.pieces} --base-steps "
        f"{options.base_steps} --steps {options.steps}"
    )
    head = ["trial", "loss, all", "cut", "gradient, all", "cut", "cosine"]
    head += ["j, all", "cut", "cut, asked with all", "other outputs"]
    return (
        f"# What the vocabulary cut changes\n\n`{command}`,\ncommit {code}, {date.today()}.\n\n"
        f"A pocket base of {options.pieces} tokens for {len(corpus.splits.train)} English training "
        f"pairs and {options.texts_each} texts in each of many languages; the cut keeps "
        f"{len(vocabulary.kept)}. Trials of {options.steps} steps, one seed; "
        f"{len(corpus.splits.test)} test sentences.\n\n{ABOUT}\n{markdown_table(head, rows)}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/vocabulary.py",
        description="The same trials with all tokens and with the cut ones; about 15 minutes.",
    )
    parser.add_argument("pairs", type=Path, help="English pairs, a file")
    parser.add_argument("--lexicon", type=Path, required=True, help="toxic words: file or folder")
    parser.add_argument("--texts", type=Path, required=True, help="labelled texts: file or folder")
    parser.add_argument("--texts-each", type=int, default=1000, help="of a language in the base")
    parser.add_argument("--pieces", type=int, default=16_000, help="tokens of the base")
    parser.add_argument("--base-steps", type=int, default=1000, help="of the base's pre-training")
    parser.add_argument("--steps", type=int, default=400, help="of a trial")
    parser.add_argument("--out", type=output_file, default="results/vocabulary.md")
    return parser


if __name__ == "__main__":
    run_command(main)
