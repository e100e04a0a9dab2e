"""Train one arm, watch it on the validation sample, and score it once on the test split."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from verdict.experiment import Arm
from verdict.remedies import losses_of, plain_trainer, probability_penalty

from detox_tune.config import SearchConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import words
from detox_tune.evaluation.collapse import comparable
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import mean_scores
from detox_tune.model.base import quiet_libraries
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.training.detox_trainer import DetoxTrainer
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.task import Task
from detox_tune.tuning.trial import training_arguments, trial_trainer, use_device

OWN = ("kept", "dropped_toxic")
"""What is measured here beside the package's scores."""
PER_SENTENCE = ("j", "copy_rate", "sim", "fl", "edit_recall", "toxic_retention", *OWN)
"""What is written of every test sentence, for paired intervals."""
_LOSS_BATCH = 50


class Shared(NamedTuple):
    """What the arms of a seed and a base share."""

    config: SearchConfig
    task: Task
    test: tuple[Pair, ...]


class Result(NamedTuple):
    """Of an arm with a seed."""

    rows: list[dict[str, Any]]
    """One for each report, and the last one for the test split."""
    sentences: dict[str, list[Any]]
    """For each of PER_SENTENCE the values of the test sentences; and their `language`."""


_shared: Shared | None = None


def hold_shared(shared: Shared) -> None:
    """Called once in each worker process."""
    global _shared
    quiet_libraries()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    _shared = shared


def train_arm(arm: Arm) -> Result:
    """Train an arm on the whole or a part of the training split, in a worker process."""
    assert _shared is not None
    config, task, test = _shared
    config = config.model_copy(update=dict(arm.search))
    if arm.pairs is not None:
        examples = tuple(one for one in task.examples if one.pair < arm.pairs)
        task = replace(task, examples=examples)
    device = use_device(config.gpus_per_trial)
    base, tokenizer = load_cut_base(task.base, config.quantization, device, task.vocabulary)
    with (
        adapted(base, arm.trial, seed=config.seed) as model,
        TemporaryDirectory() as folder,
        _penalty(arm.remedy),
    ):
        arguments = training_arguments(arm.trial, config, Path(folder), device)
        arguments.save_strategy = "no"
        arguments.logging_strategy = "steps"
        arguments.logging_steps = config.eval_every
        trainer = _trainer(arm, model, arguments, config, task)
        watch = _Watch(arm, config, task, tokenizer, losses_of(trainer))
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        last, sentences = watch.scored(model, test)
    at_end = {**watch.rows[-1], **last, "split": "test"}
    share = trainer.mask_statistics.share if isinstance(trainer, DetoxTrainer) else 1.0
    return Result([row | {"trained_share": share} for row in (*watch.rows, at_end)], sentences)


@contextmanager
def _penalty(remedy: str | None) -> Iterator[None]:
    if remedy != "probability":
        yield
        return
    with mock.patch("detox_tune.training.detox_trainer.toxic_penalty", probability_penalty):
        yield


def _trainer(
    arm: Arm, model: Any, arguments: TrainingArguments, config: SearchConfig, task: Task
) -> Trainer:
    rows = task.rows(arm.trial)
    if arm.remedy in (None, "probability"):
        return trial_trainer(arm.trial, model, arguments, config, task, rows)
    sources = [{"source_ids": example.source_ids} for example in task.examples]
    return plain_trainer(
        str(arm.remedy),
        model,
        arguments,
        [row | source for row, source in zip(rows, sources, strict=True)],
    )


class _Watch(TrainerCallback):
    """After every `eval_every` steps: losses, and scores of the validation sample."""

    def __init__(
        self, arm: Arm, config: SearchConfig, task: Task, tokenizer: CutTokenizer, loss: str
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._arm, self._config, self._task, self._tokenizer = arm, config, task, tokenizer
        self._loss = loss
        self._since, self._trained = time.monotonic(), 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The clock of training starts."""
        self._since = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, float] | None = None,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Called every `logging_steps`, with the mean losses since the last time."""
        if not logs or "loss" not in logs:
            return
        self._trained += time.monotonic() - self._since
        scores, _sentences = self.scored(model, self._task.validation)
        self.rows.append(
            {
                "split": "validation",
                "step": state.global_step,
                "seconds": round(self._trained, 2),
                "train_loss": logs[self._loss],
                "validation_loss": self._validation_loss(model),
                **scores,
            }
        )
        model.train()
        self._since = time.monotonic()

    def scored(
        self, model: Any, pairs: Sequence[Pair]
    ) -> tuple[dict[str, float], dict[str, list[Any]]]:
        """Mean scores of greedy answers, and the values of each sentence."""
        prefix = self._arm.trial.task_prefix
        outputs = rewrite(
            model,
            self._tokenizer,
            [pair.source for pair in pairs],
            task_prefix=prefix,
            max_tokens=self._config.max_tokens,
        )
        frame = self._task.score(outputs, pairs, prefix)
        answered = list(zip(outputs, pairs, strict=True))
        frame["kept"] = [kept(*one) for one in answered]
        frame["dropped_toxic"] = [dropped_toxic(*one, self._task.lexicon) for one in answered]
        means = {**mean_scores(frame), **frame[list(OWN)].mean().to_dict()}
        frame["language"] = [pair.language for pair in pairs]
        return means, {name: frame[name].tolist() for name in (*PER_SENTENCE, "language")}

    @torch.no_grad()
    def _validation_loss(self, model: nn.Module) -> float:
        """Cross-entropy of the first references, a mean over their tokens, in nats."""
        model.eval()
        total, count = 0.0, 0
        pairs, prefix = self._task.validation, self._arm.trial.task_prefix
        device = next(model.parameters()).device
        for start in range(0, len(pairs), _LOSS_BATCH):
            batch = pairs[start : start + _LOSS_BATCH]
            asked, labels = (
                [torch.tensor(self._tokenizer(text).input_ids) for text in texts]
                for texts in (
                    [prefix + pair.source for pair in batch],
                    [pair.references[0] for pair in batch],
                )
            )
            labels_bt = pad_sequence(labels, True, -100).to(device)
            logits = model(
                input_ids=pad_sequence(asked, True, 0).to(device),
                attention_mask=pad_sequence([torch.ones_like(i) for i in asked], True).to(device),
                labels=labels_bt,
            ).logits
            total += float(
                F.cross_entropy(logits.float().flatten(0, 1), labels_bt.flatten(), reduction="sum")
            )
            count += int((labels_bt != -100).sum())
        return total / count


def kept(output: str, pair: Pair) -> float:
    """Share of the source's words that every reference keeps which the output keeps, too.

    Words are folded as copies are compared, and counted as often as they stand there. nan where no
    word is kept by all references.
    """
    counted = [
        _word_counts(text, pair.language) for text in (pair.source, output, *pair.references)
    ]
    source, made, *references = counted
    for reference in references:
        source = source & reference
    return (source & made).total() / source.total() if source else float("nan")


def dropped_toxic(output: str, pair: Pair, lexicon: Lexicon) -> float:
    """Share of the source's words that the output drops which are toxic words; nan for none.

    Toxic words are those that the lexicon finds in the source.
    """
    dropped = _word_counts(pair.source, pair.language) - _word_counts(output, pair.language)
    found = [pair.source[start:end] for start, end in lexicon.spans(pair.source, pair.language)]
    toxic = _word_counts(" ".join(found), pair.language)
    return (dropped & toxic).total() / dropped.total() if dropped else float("nan")


def _word_counts(text: str, language: str) -> Counter[str]:
    return Counter(word.folded for word in words(comparable(text), language))
