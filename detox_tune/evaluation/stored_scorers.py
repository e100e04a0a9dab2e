"""The scorers and the lexicon of a run as one JSON file, so that an adapter brings them along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, PositiveFloat, model_validator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detox_tune.data.lexicon import Lexicon
from detox_tune.evaluation.adapter_files import SCORERS_FILE, read_checked
from detox_tune.evaluation.scorers import EmbeddedScorers, load_scorers
from detox_tune.evaluation.scores import Scorers
from detox_tune.evaluation.toxicity_classifier import ToxicityClassifier, ngram_features
from detox_tune.files import write_text

_COLUMNS = 3  # n-grams, whether the lexicon knows a word, how many it knows
_ByColumn = Annotated[list[FiniteFloat], Field(min_length=_COLUMNS, max_length=_COLUMNS)]
_Spreads = Annotated[list[PositiveFloat], Field(min_length=_COLUMNS, max_length=_COLUMNS)]


class _Ngrams(BaseModel):
    """One fitted TF-IDF."""

    terms: Annotated[list[str], Field(min_length=1)]
    idf: list[FiniteFloat]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(set(self.terms)) == len(self.terms) == len(self.idf):
            raise ValueError("terms must be different, with one idf for each")
        return self


class _Classifier(BaseModel):
    """A fitted `ToxicityClassifier`, every number as it was."""

    characters: _Ngrams
    words: _Ngrams
    weights: list[FiniteFloat]
    """Of the characters' terms, then of the words'."""
    intercept: FiniteFloat
    means: _ByColumn
    spreads: _Spreads
    column_weights: _ByColumn
    column_intercept: FiniteFloat

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.weights) != len(self.characters.terms) + len(self.words.terms):
            raise ValueError("weights must be as many as terms")
        return self

    @classmethod
    def of(cls, classifier: ToxicityClassifier) -> Self:
        features, regression = (step for _, step in classifier.ngrams.steps)
        scaler, weighing = (step for _, step in classifier.weighing.steps)
        characters, words = (
            _Ngrams(terms=list(fitted.get_feature_names_out()), idf=fitted.idf_.tolist())
            for _, fitted in features.transformer_list
        )
        return cls(
            characters=characters,
            words=words,
            weights=regression.coef_[0].tolist(),
            intercept=float(regression.intercept_[0]),
            means=scaler.mean_.tolist(),
            spreads=scaler.scale_.tolist(),
            column_weights=weighing.coef_[0].tolist(),
            column_intercept=float(weighing.intercept_[0]),
        )

    def restored(self, language: str, lexicon: Lexicon) -> ToxicityClassifier:
        features = ngram_features(n_texts=0)  # their number only decides what is fitted
        stored = (self.characters, self.words)
        for (_, vectorizer), ngrams in zip(features.transformer_list, stored, strict=True):
            vectorizer.vocabulary = ngrams.terms
            vectorizer.idf_ = np.array(ngrams.idf, dtype=np.float32)
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_ = np.array(self.means), np.array(self.spreads)
        weighing = _regression(self.column_weights, self.column_intercept)
        return ToxicityClassifier(
            language,
            lexicon,
            None,
            ngrams=make_pipeline(features, _regression(self.weights, self.intercept)),
            weighing=make_pipeline(scaler, weighing),
        )


class StoredScorers(BaseModel):
    """What a run was scored with."""

    name: Literal["embedded", "official"]
    entries: dict[str, list[str]]
    """The lexicon, without the entries that were ordinary words in the training pairs."""
    classifiers: dict[str, _Classifier]
    """By language; none in the official set, whose models are pinned."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.classifiers.keys() <= self.entries.keys():
            raise ValueError("entries must have the languages of the classifiers")
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that the scorers judge."""
        return tuple(self.classifiers if self.name == "embedded" else self.entries)

    def lexicon(self) -> Lexicon:
        """The lexicon of the run."""
        return Lexicon(self.entries)

    def scorers(self, *, device: str) -> Scorers:
        """Scorers that give what they gave in the search.

        Args:
            device: a torch device for the official models.

        Raises:
            UserError: official models cannot be loaded.
        """
        lexicon = self.lexicon()
        if self.name == "official":
            return load_scorers("official", (), lexicon, seed=0, device=device)
        return EmbeddedScorers(
            {
                language: classifier.restored(language, lexicon)
                for language, classifier in self.classifiers.items()
            }
        )


def write_scorers(path: Path, scorers: Scorers, lexicon: Lexicon) -> None:
    """Write the scorers of a search (`load_scorers`) and its lexicon as JSON, atomically."""
    embedded = scorers.classifiers if isinstance(scorers, EmbeddedScorers) else {}
    stored = StoredScorers(
        name="embedded" if isinstance(scorers, EmbeddedScorers) else "official",
        entries={language: sorted(lexicon.entries(language)) for language in lexicon.languages},
        classifiers={language: _Classifier.of(fitted) for language, fitted in embedded.items()},
    )
    write_text(path, stored.model_dump_json() + "\n")


def read_scorers(folder: Path) -> StoredScorers | None:
    """The scorers and the lexicon that an adapter's folder has; None if it has none.

    Args:
        folder: best/ of a run.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / SCORERS_FILE).exists():
        return None
    return read_checked(folder, SCORERS_FILE, StoredScorers)


def _regression(weights: Sequence[float], intercept: float) -> LogisticRegression:
    """A fitted one of two classes."""
    regression = LogisticRegression()
    regression.classes_ = np.array([False, True])
    regression.coef_ = np.array([weights])
    regression.intercept_ = np.array([intercept])
    return regression
