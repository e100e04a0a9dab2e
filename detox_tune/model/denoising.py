"""Pre-training of the pocket base: a denoiser that learns to copy, words it never saw included.

Denoising as in T5 (Raffel et al., 2020), with little noise: in some sentences a word is inserted,
dropped or replaced, or a word or two become a sentinel, and the target is the clean sentence. Any
one word is far more likely to be right than noise, so the model copies; but it has seen what comes
after an edit, which is what tuning asks of it. A corpus that is small enough for a laptop has few
words, and a model that knows them all by heart writes one of them where it meets a new one. So in
most sentences many words are swapped for others or for coined ones, in source and target alike:
what stands there can then only be read off the source.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import regex
import torch
from transformers import MT5ForConditionalGeneration

BATCH_SIZE = 64
"""Sentences in one optimiser step."""

_PEAK_RATE = 2e-2  # of both optimisers
_MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al.
_NOISY_SHARE = 0.4  # of the sentences that are changed at one place
_NATURAL_SHARE = 0.15  # of the sentences left as they are
_SWAPPED_SHARE = 0.6  # of the words in the others
_COINED_SHARE = 0.5  # of the swapped words
_WORD = regex.compile(r"[\p{L}\p{M}]{3,}")


def with_unfamiliar_words(sentences: Sequence[str], rng: random.Random) -> list[str]:
    """The sentences, most of them with many words swapped for other words or coined ones.

    A coined word is the beginning of one word of the corpus and the end of another. Words shorter
    than three letters stay.
    """
    words: list[str] = sorted({word for sentence in sentences for word in _WORD.findall(sentence)})

    def swapped(match: regex.Match[str]) -> str:
        if rng.random() > _SWAPPED_SHARE:
            return str(match[0])
        first: str = rng.choice(words)
        second: str = rng.choice(words)
        if rng.random() > _COINED_SHARE:
            return first
        return first[: rng.randint(2, len(first) - 1)] + second[-rng.randint(1, len(second) - 2) :]

    return [
        sentence if rng.random() < _NATURAL_SHARE else _WORD.sub(swapped, sentence)
        for sentence in sentences
    ]


def word_pieces(ids: Sequence[int], starts_word: Sequence[bool]) -> list[list[int]]:
    """The ids of a sentence, without its end token, as a list of pieces for each word."""
    words: list[list[int]] = []
    for piece in ids[:-1]:
        if starts_word[piece] or not words:
            words.append([])
        words[-1].append(piece)
    return words


def pretrain(
    model: MT5ForConditionalGeneration,
    draw: Callable[[], Sequence[list[list[int]]]],
    *,
    sentinel: int,
    end: int,
    steps: int,
    rng: random.Random,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Muon and AdamW with a short warm-up and linear decay, batches of like length.

    Muon (Jordan et al., 2024) orthogonalises the updates of the layers' matrices; copying is
    learnt in about half the steps that AdamW alone takes. Embedding, head, norms and position
    biases are AdamW's.

    Args:
        model: trained in place, on the CPU; left in evaluation mode.
        draw: gives the clean sentences of an epoch, a list of word pieces for each word, without
            the end token.
        sentinel: id that stands for hidden words.
        end: id of the end token.
        steps: optimiser steps.
        rng: decides order and noise.
        progress: called with the number of steps done.
    """
    optimizers = _optimizers(model)
    warm_up = max(1, min(50, steps // 10))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm_up, max(0.02, 1 - step / steps))
        )
        for optimizer in optimizers
    ]
    model.train()
    for step, batch in enumerate(itertools.islice(_batches(draw, rng), steps), start=1):
        noisy = [
            [*_noise(words, rng.choice(rng.choice(batch)), sentinel, rng), end] for words in batch
        ]
        clean = [[*itertools.chain(*words), end] for words in batch]
        input_ids = _padded(noisy, 0)
        loss = model(
            input_ids=input_ids, attention_mask=(input_ids != 0).long(), labels=_padded(clean, -100)
        ).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if progress:
            progress(step)
    model.eval()


def _optimizers(model: MT5ForConditionalGeneration) -> list[torch.optim.Optimizer]:
    tables = ("shared", "lm_head", "relative_attention_bias")
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        is_matrix = weight.ndim == 2 and not any(table in name for table in tables)
        (matrices if is_matrix else others).append(weight)
    return [
        _Muon(matrices, lr=_PEAK_RATE),
        torch.optim.AdamW(others, lr=_PEAK_RATE, betas=(0.9, 0.98)),
    ]


class _Muon(torch.optim.Optimizer):
    """torch's Muon in float32, without weight decay, matrices of one shape in one go.

    `torch.optim.Muon` orthogonalises in bfloat16, which processors without such instructions
    emulate: there a step of pre-training took 1.5 s, five sixths of it for that.
    """

    def __init__(self, matrices: Sequence[torch.nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes no closure
        """Move every matrix against its orthogonalised momentum (Nesterov's)."""
        (group,) = self.param_groups
        of_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for weight in group["params"]:
            of_shape.setdefault(weight.shape, []).append(weight)
        for (rows, columns), weights in of_shape.items():
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            gradient_nrc = torch.stack(gradients)
            momentum_nrc = self.state[weights[0]].setdefault("m", torch.zeros_like(gradient_nrc))
            momentum_nrc.lerp_(gradient_nrc, 1 - _MOMENTUM)
            update_nrc = _orthogonalised(gradient_nrc.lerp(momentum_nrc, _MOMENTUM))
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            for weight, update in zip(weights, update_nrc, strict=True):
                weight.sub_(rate * update)


def _orthogonalised(matrices_nrc: torch.Tensor) -> torch.Tensor:
    """About U V^T of each matrix U S V^T, by five quintic Newton-Schulz steps."""
    rows, columns = matrices_nrc.shape[1:]
    x: torch.Tensor = matrices_nrc.mT if rows > columns else matrices_nrc
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if rows > columns else x


def _batches(
    draw: Callable[[], Sequence[list[list[int]]]], rng: random.Random
) -> Iterator[list[list[list[int]]]]:
    """Endless batches: shuffled, then sorted by length within windows of 16 batches."""
    window = BATCH_SIZE * 16
    while True:
        sentences = draw()
        order = list(range(len(sentences)))
        rng.shuffle(order)
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=lambda i: sum(map(len, sentences[i])))
            batches = [near[i : i + BATCH_SIZE] for i in range(0, len(near), BATCH_SIZE)]
            rng.shuffle(batches)
            for batch in batches:
                yield [sentences[i] for i in batch]


def _noise(
    words: list[list[int]], other: list[int], sentinel: int, rng: random.Random
) -> list[int]:
    """The pieces of a sentence's words after at most one change."""
    if rng.random() > _NOISY_SHARE:
        return list(itertools.chain(*words))
    place = rng.randrange(len(words))
    insert, drop, replace = (
        [*words[:place], other, *words[place:]],
        [*words[:place], *words[place + 1 :]],
        [*words[:place], other, *words[place + 1 :]],
    )
    hide = [*words[:place], [sentinel], *words[place + rng.randint(1, 2) :]]
    return list(itertools.chain(*rng.choice((insert, drop, replace, hide))))


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
