"""The official scorers on tiny models of the same kinds, and what a user is told without them."""

import importlib.machinery
import importlib.util
import random
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detox_tune.evaluation.xcomet import WORD_LAYER, XcometLite
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from detox_tune.errors import UserError
from detox_tune.evaluation import official
from detox_tune.evaluation.official import PINS, OfficialScorers, load_official
from detox_tune.evaluation.pan import PanScorers, pan_scores
from detox_tune.evaluation.scores import sentence_chrf

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
LETTERS = list("abcdefghij")
TEXTS = ["a b c", "d", "a a a b j i h g f e", "c d"]


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of single letters."""
    vocabulary = {token: place for place, token in enumerate([*SPECIALS, *LETTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def spread_weights(model: torch.nn.Module, seed: int) -> None:
    """Random weights large enough that texts get clearly different values."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if not name.endswith("LayerNorm.weight"):
            weight.data.normal_(0, 0.3, generator=generator)


def save_classifier(folder: Path, seed: int, labels: int = 2) -> None:
    settings: dict[str, Any] = {"num_labels": labels}
    config = XLMRobertaConfig(
        vocab_size=len(SPECIALS) + len(LETTERS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=520,
        pad_token_id=0,
        **settings,
    )
    model = XLMRobertaForSequenceClassification(config)
    spread_weights(model, seed)
    model.save_pretrained(folder)


def save_xcomet(weights: Path, base: Path) -> None:
    # What mDeBERTa's own configuration says; the class takes it without naming all of it.
    attention: dict[str, Any] = {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    }
    config = DebertaV2Config(
        vocab_size=len(SPECIALS) + len(LETTERS),
        hidden_size=16,
        num_hidden_layers=WORD_LAYER + 1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        type_vocab_size=0,
        **attention,
    )
    config.save_pretrained(base)
    model: Any = XcometLite(config, (12, 6), AutoTokenizer.from_pretrained(base))
    spread_weights(model, seed=3)
    with torch.no_grad():  # so that words keep their own states, some of them errors
        for weight in model.encoder["model"].encoder.layer.parameters():
            weight.mul_(0.2 if weight.ndim > 1 else 1)
        for name, weight in model.encoder["model"].named_parameters():
            if name.endswith("bias"):
                weight.zero_()
        model.hidden2tag.weight.mul_(6)
        model.hidden2tag.bias.zero_()
        model.estimator["ff"][-1].weight.mul_(3)
        model.estimator["ff"][-1].bias.fill_(1.38)  # some parts of a score exceed 1 and are clipped
    state = {name: values.contiguous() for name, values in model.state_dict().items()}
    # What a checkpoint of the original has besides.
    state["layerwise_attention.dropout_mask"] = torch.zeros(WORD_LAYER + 2)
    state["layerwise_attention.dropout_fill"] = torch.full((WORD_LAYER + 2,), -1e20)
    state["wordloss.weight"] = torch.tensor([0.08, 0.486, 0.505, 0.533])
    save_file(state, weights / "model.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[official.Pin, Path]:
    """A tiny model for every pin, in a folder whose name stands for a commit."""
    root = tmp_path_factory.mktemp("models")
    found = {pin: root / f"{place:040x}" for place, pin in enumerate(PINS)}
    for folder in found.values():
        folder.mkdir()
    for pin in (official.CLASSIFIER_2024, official.TOKENIZER_2025, official.FLUENCY_BASE):
        save_tokenizer(found[pin])
    save_classifier(found[official.CLASSIFIER_2024], seed=1)
    save_classifier(found[official.CLASSIFIER_2025], seed=2)
    save_xcomet(found[official.FLUENCY], found[official.FLUENCY_BASE])
    return found


class LetterCounts:
    """In place of a sentence encoder: how often each letter stands in the text, and a constant."""

    encoded = 0
    device = ""

    def __init__(self, folder: str, device: str) -> None:
        assert Path(folder).is_dir()
        LetterCounts.device = device

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        LetterCounts.encoded += len(texts)
        return np.array([[1, *map(text.count, LETTERS)] for text in texts], dtype=np.float32)


@pytest.fixture
def with_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, or rather a module with its one class that is used."""
    module = types.ModuleType("sentence_transformers")
    module.__spec__ = importlib.machinery.ModuleSpec("sentence_transformers", None)
    module.__dict__["SentenceTransformer"] = LetterCounts
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, folders: dict[official.Pin, Path]) -> list[str]:
    """A hub that has the tiny models, and a list of what was fetched from it."""
    fetched = []

    def download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        fetched.append(f"{name}@{revision}")
        return str(next(folder for pin, folder in folders.items() if pin.name == name))

    monkeypatch.setattr(official, "snapshot_download", download)
    return fetched


# --- the classifiers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "pin"),
    [
        (OfficialScorers.neutral, official.CLASSIFIER_2024),
        (OfficialScorers.neutral_2025, official.CLASSIFIER_2025),
    ],
)
def test_neutral_is_the_probability_of_label_0(
    folders: dict[official.Pin, Path],
    score: Callable[[OfficialScorers, Sequence[str]], np.ndarray],
    pin: official.Pin,
) -> None:
    model = XLMRobertaForSequenceClassification.from_pretrained(folders[pin]).eval()
    expected = []
    for text in TEXTS:  # one by one, without padding
        ids = [1, *(len(SPECIALS) + LETTERS.index(letter) for letter in text.split()), 2]
        logits = model(input_ids=torch.tensor([ids])).logits[0].detach().double().numpy()
        expected.append(np.exp(logits[0]) / np.exp(logits).sum())
    values = score(OfficialScorers(folders, device="cpu"), TEXTS)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(values) > 0.01


def test_long_texts_are_cut(folders: dict[official.Pin, Path]) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    long, cut = "a " * 600, "a " * 510
    assert scorers.neutral([long])[0] == pytest.approx(scorers.neutral([cut])[0], abs=1e-6)


def test_a_text_has_one_value_whatever_stands_beside_it(
    folders: dict[official.Pin, Path],
) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    alone = scorers.neutral_2025(["a b c"])[0]
    among = scorers.neutral_2025(["a b c", "j " * 50, "a b c"])
    assert among[0] == among[2] == alone  # exactly


# --- meaning ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_sentence_transformers")
def test_similarity_is_the_cosine(folders: dict[official.Pin, Path]) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    before = LetterCounts.encoded
    values = scorers.similarity(["a b", "a", "c"], ["a b", "b", "c c"])
    cosine = [1, 1 / 2, (1 + 2) / np.sqrt(2 * 5)]
    np.testing.assert_allclose(values, cosine, atol=1e-6)
    assert LetterCounts.encoded - before == 5  # "a b" once


def test_similarity_with_a_real_sentence_encoder(
    folders: dict[official.Pin, Path], tmp_path: Path
) -> None:
    package = pytest.importorskip("sentence_transformers", reason="needs the extra `pan`")
    from transformers import XLMRobertaModel

    save_tokenizer(tmp_path / "encoder")
    model = XLMRobertaModel(XLMRobertaConfig.from_pretrained(folders[official.CLASSIFIER_2024]))
    spread_weights(model, seed=5)
    model.save_pretrained(tmp_path / "encoder")
    parts = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    transformer = parts.Transformer(str(tmp_path / "encoder"))
    pooling = parts.Pooling(16, pooling_mode="cls")
    encoder = package.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    encoder.save(str(tmp_path / "whole"))
    scorers = OfficialScorers({**folders, official.ENCODER: tmp_path / "whole"}, device="cpu")
    a, b = encoder.encode(["a b c"])[0], encoder.encode(["j"])[0]
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    values = scorers.similarity(["a b c", "j"], ["j", "j"])
    np.testing.assert_allclose(values, [expected, 1], atol=1e-5)


# --- XCOMET-lite ------------------------------------------------------------------------------


def slow_xcomet(model: Any, source: str, output: str, reference: str) -> float:
    """One sample without padding, the errors collected as spans, as unbabel-comet does."""

    def ids(text: str) -> list[int]:
        return [len(SPECIALS) + LETTERS.index(letter) for letter in text.split()][:34]

    mt, src, ref = ids(output), ids(source), ids(reference)
    inputs = [
        ([1, *mt, 2, *src, 2], 0.12, 0.1667),
        ([1, *mt, 2, *ref, 2], 0.33, 0.3333),
        ([1, *mt, 2, *src, 2, *ref, 2], 0.33, 0.5),
    ]
    score, probability = 0.0, np.zeros((len(mt) + 2, 4))
    for row, share, weight in inputs:
        states = model.encoder["model"](
            input_ids=torch.tensor([row[:38]]), output_hidden_states=True
        ).hidden_states
        mix = np.exp([float(w) for w in model.layerwise_attention.scalar_parameters])
        mix /= mix.sum()
        sentence = sum(float(m) * state[:, 0] for m, state in zip(mix, states, strict=True))
        value = model.estimator["ff"](sentence * model.layerwise_attention.gamma)
        score += share * min(1.0, float(value))
        tags = model.hidden2tag(states[8])[0, : len(mt) + 2]
        probability += weight * torch.softmax(tags, -1).detach().numpy()
    spans, span = [], []
    for label in probability.argmax(-1):
        if label:
            span.append(label)
        elif span:
            spans.append(span)
            span = []
    points = sum({1: 1, 2: 5, 3: 10}[span[0]] for span in spans)
    return score + 0.22 * (25 - min(25, points)) / 25


@pytest.fixture(scope="module")
def xcomet(folders: dict[official.Pin, Path]) -> XcometLite:
    return XcometLite.load(folders[official.FLUENCY], folders[official.FLUENCY_BASE], device="cpu")


def test_xcomet_equals_one_sample_at_a_time(xcomet: XcometLite) -> None:
    generator = random.Random(0)
    samples = [
        tuple(" ".join(generator.choices(LETTERS, k=length)) for length in lengths)
        for lengths in [(3, 4, 5), (0, 0, 0), (9, 1, 2), (1, 0, 4), (20, 20, 20), (2, 60, 3)]
        for _ in range(4)
    ]
    sources, outputs, references = map(list, zip(*samples, strict=True))
    values = xcomet.score(sources, outputs, references, batch_size=5)
    expected = [slow_xcomet(xcomet, *sample) for sample in samples]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(values) > 0.05
    assert values.max() <= 1


@pytest.mark.parametrize(
    ("labels", "freedom"),
    [
        ([0, 0, 0], 1),
        ([0, 1, 0], 24 / 25),
        ([0, 2, 3, 3, 0], 20 / 25),  # one error, as severe as its first token
        ([0, 3, 0, 1, 0], 14 / 25),
        ([0, 3, 0, 3, 0, 3, 0], 0),  # 30 points count as 25
        ([0, 0, 3], 1),  # runs to the end: the original drops it
        ([1, 0, 2], 24 / 25),
    ],
)
def test_marked_errors_cost_points(labels: list[int], freedom: float) -> None:
    from detox_tune.evaluation.xcomet import _freedom

    assert _freedom(labels) == pytest.approx(freedom)


def test_no_samples_have_no_scores(xcomet: XcometLite) -> None:
    assert xcomet.score([], [], []).shape == (0,)


def test_weights_of_another_model_are_refused(
    folders: dict[official.Pin, Path], tmp_path: Path
) -> None:
    save_file({"some.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    scorers = OfficialScorers({**folders, official.FLUENCY: tmp_path}, device="cpu")
    with pytest.raises(UserError, match=r"'myyycroft/XCOMET-lite'.*no layers estimator\.ff\.0"):
        scorers.fluency_2025(["a"], ["b"], ["c"])


# --- together ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_sentence_transformers")
def test_load_official_scores_a_system(hub: list[str], folders: dict[official.Pin, Path]) -> None:
    scorers: PanScorers = load_official(device="cpu")
    assert hub == [f"{pin.name}@{pin.revision}" for pin in PINS]
    assert scorers.name == "official"
    assert scorers.models == {pin.name: folders[pin].name for pin in PINS}
    sources, references = ["a b c", "d e f"], [["a b", "b c"], ["d"]]
    scores = pan_scores(["a b", "d e f"], sources, references, scorers)
    np.testing.assert_array_equal(scores.fl, sentence_chrf(["a b", "d e f"], references))
    np.testing.assert_allclose(scores.j, scores.sta * scores.sim * scores.fl)
    assert scores.sim[1] == pytest.approx(1)
    # The second output is a copy: it ties, so its STA of 2025 is (p + 1) / 2, or 1.
    p, p_reference = scorers.neutral_2025(["d e f", "d"])
    sta = 1 if p_reference <= p else (p + 1) / 2
    meaning = 0.4 + 0.6 * scorers.similarity(["d e f"], ["d"])[0]
    fluency = scorers.fluency_2025(["d e f"], ["d e f"], ["d"])[0]
    assert scores.j_2025[1] == pytest.approx(sta * meaning * fluency, abs=1e-5)


@pytest.mark.usefixtures("with_sentence_transformers", "hub")
def test_models_go_to_the_device_that_was_asked_for() -> None:
    scorers = load_official(device="meta")
    scorers.similarity(["a"], ["b"])
    assert LetterCounts.device == "meta"
    # Weights on this device have no values: that the classifier went there shows when it is asked.
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        scorers.neutral(["a"])


def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, hub: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'detox-tune\[pan\]'.*embedded scorers"):
        load_official(device="cpu")
    assert hub == []


@pytest.mark.usefixtures("with_sentence_transformers")
def test_a_model_that_cannot_be_fetched_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(name: str, **_: Any) -> str:
        raise FileNotFoundError("cannot find\nthe files in the cache, and no connection")

    monkeypatch.setattr(official, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"xlmr-large-toxicity-classifier' .*hf download") as error:
        load_official(device="cpu")
    assert "\n" not in str(error.value)


def test_damaged_weights_are_named(folders: dict[official.Pin, Path], tmp_path: Path) -> None:
    save_classifier(tmp_path, seed=1)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    scorers = OfficialScorers({**folders, official.CLASSIFIER_2024: tmp_path}, device="cpu")
    with pytest.raises(UserError, match="'textdetox/xlmr-large-toxicity-classifier'"):
        scorers.neutral(["a"])


def test_a_classifier_with_other_labels_is_refused(
    folders: dict[official.Pin, Path], tmp_path: Path
) -> None:
    save_classifier(tmp_path, seed=1, labels=3)
    scorers = OfficialScorers({**folders, official.CLASSIFIER_2025: tmp_path}, device="cpu")
    with pytest.raises(UserError, match="it has 3 labels instead of two"):
        scorers.neutral_2025(["a"])


def test_revisions_are_commits_where_one_is_known() -> None:
    unknown = {pin.name for pin in PINS if pin.revision == "main"}
    assert unknown == {
        "textdetox/xlmr-large-toxicity-classifier-v2",
        "cardiffnlp/twitter-xlm-roberta-large-2022",
        "myyycroft/XCOMET-lite",
    }
    assert all(len(pin.revision) == 40 for pin in PINS if pin.name not in unknown)
