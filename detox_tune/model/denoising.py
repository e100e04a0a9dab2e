"""Pre-training of the pocket base: a denoiser that learns to copy, words it never saw included.

Denoising as in T5 (Raffel et al., 2020), with little noise: pieces are dropped or replaced, at
times a span becomes a sentinel, and the target is the clean sentence. A corpus that is small enough
for a laptop has few words, and a model that knows them all by heart writes one of them where it
meets a new one. So in most sentences many words are swapped for others or for coined ones, in
source and target alike: what stands there can then only be read off the source.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import regex
import torch
from transformers import MT5ForConditionalGeneration

BATCH_SIZE = 64
"""Sentences in one optimiser step."""

_PEAK_RATE = 4e-3
_NOISE = 0.02  # of the pieces dropped, and as many replaced
_SPAN_SHARE = 0.15  # of the sentences with a span as a sentinel
_NATURAL_SHARE = 0.15  # of the sentences left as they are
_SWAPPED_SHARE = 0.6  # of the words in the others
_COINED_SHARE = 0.5  # of the swapped words
_WORD = regex.compile(r"[\p{L}\p{M}]{3,}")


def with_unfamiliar_words(sentences: Sequence[str], rng: random.Random) -> list[str]:
    """The sentences, most of them with many words swapped for other words or coined ones.

    A coined word is the beginning of one word of the corpus and the end of another. Words shorter
    than three letters stay.
    """
    words = sorted({word for sentence in sentences for word in _WORD.findall(sentence)})

    def swapped(match: regex.Match[str]) -> str:
        if rng.random() > _SWAPPED_SHARE:
            return str(match[0])
        first, second = rng.choice(words), rng.choice(words)
        if rng.random() > _COINED_SHARE:
            return first
        return first[: rng.randint(2, len(first) - 1)] + second[-rng.randint(1, len(second) - 2) :]

    return [
        sentence if rng.random() < _NATURAL_SHARE else _WORD.sub(swapped, sentence)
        for sentence in sentences
    ]


def pretrain(
    model: MT5ForConditionalGeneration,
    ids: Sequence[list[int]],
    sentinels: Sequence[int],
    *,
    steps: int,
    rng: random.Random,
    progress: Callable[[int], None] | None = None,
) -> None:
    """AdamW with a short warm-up and linear decay, batches of like length.

    Args:
        model: trained in place, on the CPU; left in evaluation mode.
        ids: clean sentences, each with its end token.
        sentinels: ids of the sentinels; the last, `<extra_id_0>`, stands for a span.
        steps: optimiser steps.
        rng: decides order and noise.
        progress: called with the number of steps done.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98))
    warm_up = max(1, min(50, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max(0.02, 1 - step / steps))
    )
    model.train()
    for step, batch in enumerate(itertools.islice(_batches(ids, rng), steps), start=1):
        noisy = [_noise(x, model.config.vocab_size, sentinels, rng) for x in batch]
        input_ids = _padded(noisy, 0)
        loss = model(
            input_ids=input_ids, attention_mask=(input_ids != 0).long(), labels=_padded(batch, -100)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress:
            progress(step)
    model.eval()


def _batches(ids: Sequence[list[int]], rng: random.Random) -> Iterator[list[list[int]]]:
    """Endless batches: shuffled, then sorted by length within windows of 16 batches."""
    window = BATCH_SIZE * 16
    while True:
        order = list(range(len(ids)))
        rng.shuffle(order)
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=lambda i: len(ids[i]))
            batches = [near[i : i + BATCH_SIZE] for i in range(0, len(near), BATCH_SIZE)]
            rng.shuffle(batches)
            for batch in batches:
                yield [ids[i] for i in batch]


def _noise(
    ids: list[int], vocabulary: int, sentinels: Sequence[int], rng: random.Random
) -> list[int]:
    """The ids with pieces dropped or replaced, now and then a span as a sentinel; the end stays."""
    body = ids[:-1]
    if len(body) > 4 and rng.random() < _SPAN_SHARE:
        start = rng.randrange(len(body) - 2)
        body = [*body[:start], sentinels[-1], *body[start + rng.randint(1, 3) :]]
    first_piece = 3 + len(sentinels)
    noisy = []
    for piece in body:
        draw = rng.random()
        if draw < _NOISE:
            continue
        noisy.append(rng.randrange(first_piece, vocabulary) if draw < 2 * _NOISE else piece)
    return [*noisy, ids[-1]]


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
