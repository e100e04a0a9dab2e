"""The denoiser's data: unfamiliar words, one change at most, and training that learns."""

import itertools
import random

import regex
import torch

from detox_tune.data.embedded import embedded_sentences
from detox_tune.model.denoising import (
    _Muon,
    _noise,
    _orthogonalised,
    pretrain,
    with_unfamiliar_words,
    word_pieces,
)
from detox_tune.model.pocket import new_model

SENTENCES = embedded_sentences()[:2000]


def test_most_sentences_get_unfamiliar_words_in_the_same_places() -> None:
    changed = with_unfamiliar_words(SENTENCES, random.Random(0))
    known = {word for sentence in SENTENCES for word in regex.findall(r"\p{L}+", sentence)}
    coined = 0
    for before, after in zip(SENTENCES, changed, strict=True):
        skeleton = [regex.sub(r"\p{L}{3,}", "W", text) for text in (before, after)]
        assert skeleton[0] == skeleton[1]
        coined += any(word not in known for word in regex.findall(r"\p{L}+", after))
    untouched = sum(map(str.__eq__, SENTENCES, changed)) / len(SENTENCES)
    assert 0.1 < untouched < 0.3
    assert coined / len(SENTENCES) > 0.5
    assert changed == with_unfamiliar_words(SENTENCES, random.Random(0))


def test_words_are_split_where_they_start() -> None:
    starts_word = [False, False, False, True, False, True]
    assert word_pieces([3, 4, 4, 5, 3, 1], starts_word) == [[3, 4, 4], [5], [3]]


def test_noise_changes_one_place_at_most_and_half_of_the_sentences_not_at_all() -> None:
    words = [[10, 11], [12], [13, 14], [15]]
    rng = random.Random(1)
    seen = {tuple(_noise(words, [20, 21], 3, rng)) for _ in range(500)}
    possible: set[tuple[int, ...]] = {(10, 11, 12, 13, 14, 15)}
    flat: list[tuple[int, ...]] = [tuple(word) for word in words]
    for i in range(len(words)):
        for middle in (((20, 21), flat[i]), (), ((20, 21),), ((3,),)):
            possible.add(tuple(itertools.chain(*flat[:i], *middle, *flat[i + 1 :])))
        possible.add(tuple(itertools.chain(*flat[:i], (3,), *flat[i + 2 :])))
    assert seen == possible
    clean = sum(tuple(_noise(words, [20], 3, rng)) == (10, 11, 12, 13, 14, 15) for _ in range(1000))
    assert 500 < clean < 700


def test_training_lowers_the_loss_and_leaves_the_model_in_evaluation_mode() -> None:
    rng = random.Random(0)
    sentences = [[[rng.randrange(5, 20)] for _ in range(6)] for _ in range(128)]
    torch.manual_seed(0)
    model = new_model(20)
    ids = torch.tensor([[piece for word in words for piece in word] + [1] for words in sentences])

    def loss() -> float:
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    before = loss()
    pretrain(model, lambda: sentences, sentinel=3, end=1, steps=30, rng=rng)
    assert loss() < 0.8 * before
    assert not model.training


def test_muon_takes_torch_s_steps_in_float32() -> None:
    shapes = [(8, 8), (8, 8), (16, 4), (4, 16)]
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    optimizers = [_Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        gradients = [torch.randn(shape, generator=generator) for shape in shapes]
        for weights, optimizer in zip((ours, theirs), optimizers, strict=True):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert (one - other).norm() < 0.02 * moved  # torch computes in bfloat16


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 12, 6, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(_orthogonalised(matrices))
    assert ((values > 0.5) & (values < 1.3)).all()
