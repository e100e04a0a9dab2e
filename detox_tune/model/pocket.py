"""The pocket base: an mT5 small enough to be pre-trained on a laptop, and to show the collapse.

Architecture and special tokens are mT5's (gated feed-forward, untied head, sentinels, pad 0, end
1); vocabulary and weights are made here from given sentences. Pre-training is denoising (Raffel et
al., 2020): pieces are dropped or replaced, at times a span becomes a sentinel, and the target is
the clean sentence, so that the base ends up copying whatever it is given, which is the state that a
large multilingual model is in before it is tuned for detoxification.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import sentencepiece
import torch
from filelock import FileLock
from platformdirs import user_cache_path
from transformers import MT5Config, MT5ForConditionalGeneration, T5Tokenizer

from detox_tune.errors import UserError
from detox_tune.model.base import quiet_libraries, sentinel_ids

RECIPE = 1
"""Raised whenever a change here makes other weights from the same sentences."""

_BATCH = 64
_PEAK_RATE = 4e-3
_LONGEST = 48
_NOISE = 0.07
_SPAN_SHARE = 0.15
_N_SENTINELS = 4


def pocket_base(
    sentences: Sequence[str],
    *,
    vocabulary: int,
    steps: int,
    seed: int,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """The folder of the pocket base for these sentences; built on first use, then cached.

    Args:
        sentences: what it learns to copy; natural ones, since what precedes must help to predict.
        vocabulary: pieces of its SentencePiece model, special tokens included.
        steps: optimiser steps of pre-training.
        cache: folder of built bases; by default `DETOX_TUNE_CACHE`, else the user's cache folder.
        progress: called with the number of steps done.

    Raises:
        UserError: if there are too few sentences for the vocabulary.
    """
    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"pocket-{_content_key(sentences, vocabulary, steps, seed)}"
    with FileLock(str(folder) + ".lock"):
        if not (folder / "config.json").is_file():
            building = Path(tempfile.mkdtemp(dir=cache, prefix="building-"))
            try:
                _build(sentences, vocabulary, steps, seed, building, progress)
                building.replace(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where built bases are kept: `DETOX_TUNE_CACHE`, else the user's cache folder."""
    given = os.environ.get("DETOX_TUNE_CACHE")
    return Path(given) if given else user_cache_path("detox_tune")


def _content_key(sentences: Sequence[str], vocabulary: int, steps: int, seed: int) -> str:
    settings = json.dumps([RECIPE, torch.__version__, vocabulary, steps, seed])
    digest = hashlib.sha256(settings.encode())
    for sentence in sentences:
        digest.update(sentence.encode() + b"\n")
    return digest.hexdigest()[:16]


def _build(
    sentences: Sequence[str],
    vocabulary: int,
    steps: int,
    seed: int,
    folder: Path,
    progress: Callable[[int], None] | None,
) -> None:
    quiet_libraries()
    tokenizer = train_tokenizer(sentences, vocabulary, folder)
    ids = [x for x in tokenizer(list(sentences)).input_ids if 2 < len(x) <= _LONGEST]
    if len(ids) < _BATCH:
        raise UserError(
            f"the pocket base needs at least {_BATCH} sentences of at most {_LONGEST} pieces, but "
            f"got {len(ids)}: give more data, or name a checkpoint with --base-model"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(len(tokenizer))
        _pretrain(model, ids, sentinel_ids(tokenizer), steps, seed, progress)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_tokenizer(sentences: Sequence[str], vocabulary: int, folder: Path) -> T5Tokenizer:
    """A SentencePiece unigram model (Kudo, 2018) in mT5's layout, written to `folder`.

    Raises:
        UserError: if the sentences can't fill the vocabulary.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocabulary,
            model_type="unigram",
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            user_defined_symbols=[f"<extra_id_{i}>" for i in reversed(range(_N_SENTINELS))],
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"pocket_vocabulary={vocabulary} does not fit {len(sentences)} sentences: lower it or "
            f"give more data ({' '.join(str(error).split())[-120:]})"
        ) from error
    (folder / "spiece.model").write_bytes(model.getvalue())
    return T5Tokenizer.from_pretrained(folder, extra_ids=0)


def new_model(vocabulary: int) -> MT5ForConditionalGeneration:
    """An untrained pocket mT5 of about 1.3M weights, started so that copying is learned quickly.

    The head starts as a small multiple of the embedding (though untied), and two encoder heads start
    out looking at the piece before: what a model needs in order to find where it is in the source.
    From T5's own starting point the same ability takes several times as many steps.
    """
    config = MT5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    config.tie_word_embeddings = False  # transformers' MT5Config sets True whatever it is given
    model = MT5ForConditionalGeneration(config)
    previous_piece = 1  # T5's relative-position bucket of distance -1
    with torch.no_grad():
        model.shared.weight.normal_(0.0, 0.5)
        model.lm_head.weight.copy_(0.2 * model.shared.weight)
        attention = model.encoder.block[0].layer[0].SelfAttention
        attention.relative_attention_bias.weight[previous_piece, :2] += 5.0
    return model


def _pretrain(
    model: MT5ForConditionalGeneration,
    ids: Sequence[list[int]],
    sentinels: Sequence[int],
    steps: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> None:
    """AdamW with a short warm-up and linear decay, batches of like length."""
    rng = random.Random(seed)
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
    window = _BATCH * 16
    while True:
        order = list(range(len(ids)))
        rng.shuffle(order)
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=lambda i: len(ids[i]))
            batches = [near[i : i + _BATCH] for i in range(0, len(near), _BATCH)]
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
        body = [*body[:start], sentinels[0], *body[start + rng.randint(1, 3) :]]
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
