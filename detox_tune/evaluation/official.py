"""The official models of PAN's text detoxification task of 2024, where they can be loaded.

STA is textdetox/xlmr-large-toxicity-classifier, SIM sentence-transformers/LaBSE; FL is chrF and
needs no model. The target label, the lengths and the cosine are those of the organisers' code (see
`pan`). No code from a model's repository is run, and weights are safetensors (LaBSE's dense layer
may be a torch file, which is read as weights only).

The score of 2025 needs XCOMET-lite, which is not part of this package: `NO_2025` says what to do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.scores import OncePerItem

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEUTRAL_LABEL = 0
"""The classifiers' label for neutral; 1 is toxic."""
_MOST_TOKENS = 512
_BATCH = 32
_SETTINGS = ("*.json", "*.txt", "*.model")
_REMEDY = "or score with the embedded scorers"


@dataclass(frozen=True)
class Pin:
    """A model on the Hugging Face hub at one revision."""

    name: str
    revision: str
    """A commit."""
    files: tuple[str, ...]
    """Patterns of the files that are needed."""


CLASSIFIER = Pin(
    "textdetox/xlmr-large-toxicity-classifier",
    "b9c7c563427c591fc318d91eb592381ae2fbde66",
    (*_SETTINGS, "model.safetensors"),
)
ENCODER = Pin(
    "sentence-transformers/LaBSE",
    "836121a0533e5664b21c7aacc5d22951f2b8b25b",
    (*_SETTINGS, "*.safetensors", "1_Pooling/*", "2_Dense/*", "3_Normalize/*"),
)
PINS = (CLASSIFIER, ENCODER)
"""Everything that `load_official` fetches."""
NO_2025 = (
    "j_2025: not scored, it needs XCOMET-lite, which is not part of this package; write the "
    "outputs with --write-outputs FILE.tsv and hand that file to the organisers' script "
    "(github.com/pan-webis-de/pan-code, clef25/text-detoxification/evaluation)"
)


class OfficialScorers:
    """`Scorers` by the official models, each loaded when it is first asked for.

    Pickled without its models, so that a worker process loads its own.
    """

    def __init__(self, folders: Mapping[Pin, Path], *, device: str) -> None:
        """Score with models that lie in folders; `load_official` fetches them.

        Args:
            folders: A folder for each of `PINS`; its name is recorded as the revision, which it
                is in the hub's cache.
            device: A torch device.
        """
        self.name = "official"
        self.models = {pin.name: folders[pin].name for pin in PINS}
        self._folders = dict(folders)
        self._device = device
        self._neutral = OncePerItem[str](self._classify)
        self._embedding = OncePerItem[str](self._embed)

    def __reduce__(self) -> tuple[Callable[..., OfficialScorers], tuple[dict[Pin, Path], str]]:
        return _on_device, (self._folders, self._device)

    def neutral(self, texts: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier, whatever the pair; shape (texts,).

        Raises:
            UserError: The classifier cannot be loaded.
        """
        return self._neutral(texts)

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Cosine, in [-1, 1], of the LaBSE embeddings; shape (texts,).

        Raises:
            UserError: LaBSE cannot be loaded.
        """
        left_nd, right_nd = self._embedding(texts), self._embedding(others)
        norms = np.linalg.norm(left_nd, axis=-1) * np.linalg.norm(right_nd, axis=-1)
        return np.asarray((left_nd * right_nd).sum(-1) / norms, dtype=np.float64)

    def fluency_2025(
        self, sources: Sequence[str], texts: Sequence[str], references: Sequence[str]
    ) -> None:
        """None: see `NO_2025`."""

    def _classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return self._classifier.neutral_probability(texts)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(
            self._encoder.encode(list(texts), batch_size=_BATCH, show_progress_bar=False)
        )

    @cached_property
    def _classifier(self) -> _Classifier:
        with _reading(CLASSIFIER):
            return _Classifier.load(self._folders[CLASSIFIER], device=self._device)

    @cached_property
    def _encoder(self) -> SentenceTransformer:
        with _reading(ENCODER):
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(self._folders[ENCODER]), device=self._device)


def load_official(*, device: str) -> OfficialScorers:
    """Fetch the official models, from the hub or its cache, and score with them.

    Both are fetched now (about 4 GB), so that a missing one shows before anything is scored; each
    is read into memory when it is first asked for.

    Args:
        device: A torch device, such as `cpu` or `cuda`.

    Raises:
        UserError: A package or a model is missing, with what to do.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UserError(
            "the official scorers need sentence-transformers, which is not installed: run "
            f"`pip install sentence-transformers` {_REMEDY}"
        )
    folders = {}
    for pin in PINS:
        with _fetching(pin):
            folders[pin] = Path(
                snapshot_download(pin.name, revision=pin.revision, allow_patterns=list(pin.files))
            )
    return OfficialScorers(folders, device=device)


def _on_device(folders: dict[Pin, Path], device: str) -> OfficialScorers:
    return OfficialScorers(folders, device=device)


class _Classifier:
    """A sequence classifier with the labels neutral and toxic."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, *, device: str) -> _Classifier:
        model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
        if model.config.num_labels != 2:
            raise ValueError(f"it has {model.config.num_labels} labels instead of two")
        return cls(model.to(device).eval(), AutoTokenizer.from_pretrained(folder))

    @torch.no_grad()
    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of neutral, shape (texts,), in batches of like length."""
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        probability_n = np.zeros(len(texts))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            inputs = self._tokenizer(
                [texts[place] for place in batch],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=_MOST_TOKENS,
            ).to(self._model.device)
            logits_bl = self._model(**inputs).logits
            probability_n[batch] = logits_bl.softmax(-1)[:, NEUTRAL_LABEL].cpu().numpy()
        return probability_n


@contextmanager
def _fetching(pin: Pin) -> Iterator[None]:
    """Turn what goes wrong while a model is fetched into a line for the user."""
    try:
        yield
    except OSError as error:  # the hub's own errors are such, too
        raise UserError(
            f"the official model {pin.name!r} (revision {pin.revision}) cannot be fetched: "
            f"{_reason(error)}; it must be on the Hugging Face hub or in its cache (HF_HOME), so "
            f"check the connection or fetch it with `hf download {pin.name} --revision "
            f"{pin.revision}`, {_REMEDY}"
        ) from error


@contextmanager
def _reading(pin: Pin) -> Iterator[None]:
    """Turn what is wrong with a model's files into a line for the user."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"the official model {pin.name!r} (revision {pin.revision}) cannot be read: "
            f"{_reason(error)}; fetch it again with `hf download {pin.name} --revision "
            f"{pin.revision} --force-download`, {_REMEDY}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
