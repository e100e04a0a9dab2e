"""The pocket base: an mT5 small enough to be pre-trained on a laptop, and to show the collapse.

Architecture and special tokens are mT5's (gated feed-forward, untied head, sentinels, pad 0, end
1); vocabulary and weights are made here from given sentences. It is pre-trained as a denoiser
(`denoising`) until it copies whatever it is given, which is the state that a large multilingual
model is in before it is tuned for detoxification.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
import torch
from filelock import FileLock
from platformdirs import user_cache_path
from transformers import MT5Config, MT5ForConditionalGeneration, T5Tokenizer

from detox_tune.errors import UserError
from detox_tune.files import check_can_write, give_umask_permissions
from detox_tune.machine import cores, threads
from detox_tune.model.base import quiet_libraries, read_text_plainly
from detox_tune.model.denoising import BATCH_SIZE, pretrain, with_unfamiliar_words, word_pieces

RECIPE = 6
"""Raised whenever a change here makes other weights from the same sentences."""

_LONGEST = 32  # pieces; what is longer costs time and teaches nothing new
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
        UserError: if there are too few sentences for the vocabulary, or the cache cannot be
            written.
    """
    cache = cache or cache_folder()
    folder = cache / f"pocket-{_content_key(sentences, vocabulary, steps, seed)}"
    if (folder / "config.json").is_file():  # also in a cache that others wrote
        return folder
    check_can_write(folder, "cache: set DETOX_TUNE_CACHE to a folder that you may write to")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            building = folder.with_name(f"building-{folder.name}")
            shutil.rmtree(building, ignore_errors=True)  # of a build that was killed
            building.mkdir()
            try:
                _build(sentences, vocabulary, steps, seed, building, progress)
                give_umask_permissions(building)
                building.replace(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where built bases are kept: `DETOX_TUNE_CACHE`, else the user's cache folder."""
    given = os.environ.get("DETOX_TUNE_CACHE")
    return Path(given).expanduser() if given else user_cache_path("detox_tune")


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
    rng = random.Random(seed)
    tokenizer = train_tokenizer(with_unfamiliar_words(sentences, rng), vocabulary, folder)
    tokenizer.save_pretrained(folder)
    read_text_plainly(tokenizer)
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    starts_word = [piece.startswith("▁") for piece in pieces]

    def draw() -> list[list[list[int]]]:
        """The sentences of an epoch; every epoch has other unfamiliar words."""
        words = [
            word_pieces(ids, starts_word)
            for ids in tokenizer(with_unfamiliar_words(sentences, rng)).input_ids
            if 2 < len(ids) <= _LONGEST
        ]
        if len(words) < BATCH_SIZE:
            raise UserError(
                f"the pocket base needs at least {BATCH_SIZE} sentences of at most {_LONGEST} "
                f"pieces, but got {len(words)}: give more data, or name a checkpoint with "
                "--base-model"
            )
        return words

    with torch.random.fork_rng(devices=[]), threads(cores()):
        torch.manual_seed(seed)
        model = new_model(len(tokenizer))
        pretrain(
            model,
            draw,
            sentinel=tokenizer.get_vocab()["<extra_id_0>"],
            end=tokenizer.eos_token_id,
            steps=steps,
            rng=rng,
            progress=progress,
        )
    model.save_pretrained(folder)


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
            required_chars=":",  # task prefixes end with it
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
    tokenizer: T5Tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    return tokenizer


def new_model(vocabulary: int) -> MT5ForConditionalGeneration:
    """An untrained pocket mT5 of about a million weights, started so that it soon learns to copy.

    To copy, a model must find where in the source it is: the place whose last few pieces equal
    those that it wrote last. So attention heads start out looking at the first, second and third
    piece before (in the decoder the first and second). The output head starts small.
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
    with torch.no_grad():
        model.shared.weight.normal_(0.0, 0.5)
        # Not the embedding: transformers gives encoder and decoder embeddings of their own here.
        model.lm_head.weight.copy_(0.4 * model.shared.weight)
        _look_back(model.encoder, heads=3)
        _look_back(model.decoder, heads=2)
    return model


def _look_back(stack: torch.nn.Module, *, heads: int) -> None:
    """Head n of a stack's first layer starts out attending n + 1 pieces before."""
    bias = stack.get_parameter("block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    for head in range(heads):
        bias[head + 1, head] += 5.0  # T5's bucket of distance -n is n, for short distances
