"""The official scorers on tiny models of the same kinds, and what a user is told without them."""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation import official
from detox_tune.evaluation.official import PINS, OfficialScorers, load_official
from detox_tune.evaluation.scorers import load_scorers
from detox_tune.evaluation.scores import score_outputs

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[official.Pin, Path]:
    """A tiny model for every pin, in a folder whose name stands for a commit."""
    root = tmp_path_factory.mktemp("models")
    found = {pin: root / f"{place:040x}" for place, pin in enumerate(PINS)}
    for folder in found.values():
        folder.mkdir()
    save_tokenizer(found[official.CLASSIFIER])
    save_classifier(found[official.CLASSIFIER], seed=1)
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


PAIR = Pair("a b c", ("a b",), "en")


def neutral(scorers: OfficialScorers, texts: list[str]) -> np.ndarray:
    return scorers.neutral(texts, [PAIR] * len(texts))


def test_neutral_is_the_probability_of_label_0(folders: dict[official.Pin, Path]) -> None:
    folder = folders[official.CLASSIFIER]
    model = XLMRobertaForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for text in TEXTS:  # one by one, without padding
        ids = [1, *(len(SPECIALS) + LETTERS.index(letter) for letter in text.split()), 2]
        logits = model(input_ids=torch.tensor([ids])).logits[0].detach().double().numpy()
        expected.append(np.exp(logits[0]) / np.exp(logits).sum())
    values = neutral(OfficialScorers(folders, device="cpu"), TEXTS)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(values) > 0.01


def test_long_texts_are_cut(folders: dict[official.Pin, Path]) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    long, cut = "a " * 600, "a " * 510
    assert neutral(scorers, [long])[0] == pytest.approx(neutral(scorers, [cut])[0], abs=1e-6)


def test_a_text_has_one_value_whatever_stands_beside_it(
    folders: dict[official.Pin, Path],
) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    alone = neutral(scorers, ["a b c"])[0]
    among = neutral(scorers, ["a b c", "j " * 50, "a b c"])
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
    model = XLMRobertaModel(XLMRobertaConfig.from_pretrained(folders[official.CLASSIFIER]))
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


# --- together ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_sentence_transformers")
def test_load_official_scores_a_system(hub: list[str], folders: dict[official.Pin, Path]) -> None:
    scorers = load_scorers("official", (), Lexicon({"en": ()}), seed=0, device="cpu")
    assert hub == [f"{pin.name}@{pin.revision}" for pin in PINS]
    assert scorers.name == "official"
    assert scorers.models == {pin.name: folders[pin].name for pin in PINS}
    pairs = [Pair("a b c", ("a b", "b c"), "en"), Pair("d e f", ("d",), "en")]
    frame = score_outputs(["a b", "d e f"], pairs, lexicon=Lexicon({"en": ["c"]}), scorers=scorers)
    np.testing.assert_allclose(frame["j"], frame["sta"] * frame["sim"] * frame["fl"])
    assert frame["sim"][1] == pytest.approx(1)
    assert frame["j_2025"].isna().all()


@pytest.mark.usefixtures("with_sentence_transformers")
def test_models_are_not_pickled_with_the_scorers(folders: dict[official.Pin, Path]) -> None:
    scorers = OfficialScorers(folders, device="cpu")
    expected = neutral(scorers, TEXTS)
    content = cloudpickle.dumps(scorers)
    assert len(content) < 10_000
    again = cloudpickle.loads(content)
    assert np.array_equal(neutral(again, TEXTS), expected)


@pytest.mark.usefixtures("with_sentence_transformers", "hub")
def test_models_go_to_the_device_that_was_asked_for() -> None:
    scorers = load_official(device="meta")
    scorers.similarity(["a"], ["b"])
    assert LetterCounts.device == "meta"
    # Weights on this device have no values: that the classifier went there shows when it is asked.
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        neutral(scorers, ["a"])


def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, hub: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install sentence-transformers.*embedded scorers"):
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
    scorers = OfficialScorers({**folders, official.CLASSIFIER: tmp_path}, device="cpu")
    with pytest.raises(UserError, match=r"toxicity-classifier' .*cannot be read.*--force-download"):
        neutral(scorers, ["a"])


def test_a_classifier_with_other_labels_is_refused(
    folders: dict[official.Pin, Path], tmp_path: Path
) -> None:
    save_classifier(tmp_path, seed=1, labels=3)
    scorers = OfficialScorers({**folders, official.CLASSIFIER: tmp_path}, device="cpu")
    with pytest.raises(UserError, match="it has 3 labels instead of two"):
        neutral(scorers, ["a"])


def test_revisions_are_commits() -> None:
    assert all(len(pin.revision) == 40 for pin in PINS)
