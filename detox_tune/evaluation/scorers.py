"""The sets of scorers, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.scores import OncePerItem, Scorers, sentence_chrf
from detox_tune.evaluation.toxicity_classifier import ToxicityClassifier, fit_pairs

SCORERS = ("embedded", "official")
"""The names: models fitted on the corpus at hand; the models of the shared task."""


class EmbeddedScorers:
    """Scorers without a download: fitted toxicity classifiers, and sentence chrF for the rest.

    chrF to the source stands for similarity, and chrF to the reference for the fluency of 2025.
    """

    def __init__(
        self,
        classifiers: Mapping[str, ToxicityClassifier],
        name_of: Callable[[Pair], str] | None = None,
    ) -> None:
        """Score with classifiers fitted elsewhere.

        Args:
            classifiers: By name.
            name_of: The name of the classifier for a pair; by default the pair's language.
        """
        self.name = "embedded"
        self.models: dict[str, str] = {}
        self.classifiers = dict(classifiers)
        self._name_of = name_of
        self._chrf = OncePerItem[tuple[str, str]](_pair_chrf)

    def neutral(self, texts: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier for each pair, shape (texts,).

        Raises:
            UserError: There is no classifier for a pair, as no pair of its language was fitted on.
        """
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            name = self._name_of(pair) if self._name_of else pair.language
            places.setdefault(name, []).append(place)
        probabilities = np.zeros(len(texts))
        for name, of_name in places.items():
            if name not in self.classifiers:
                raise UserError(
                    f"language {pairs[of_name[0]].language!r}: the embedded toxicity classifier "
                    f"was fitted on pairs in {', '.join(sorted(self.classifiers))} only; give "
                    "training pairs in it, or leave the language out"
                )
            probabilities[of_name] = self.classifiers[name].neutral_probability(
                [texts[place] for place in of_name]
            )
        return probabilities

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Sentence chrF of each text and the other one at its place, shape (texts,)."""
        return self._chrf(list(zip(texts, others, strict=True)))

    def fluency_2025(
        self, sources: Sequence[str], texts: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64]:
        """Sentence chrF of each text and its reference; the source plays no part."""
        return self.similarity(texts, references)


def load_scorers(
    name: str, train: Sequence[Pair], lexicon: Lexicon, *, seed: int, device: str
) -> Scorers:
    """A set of scorers by its name.

    Args:
        name: one of SCORERS.
        train: pairs that the embedded set is fitted on; no other split.
        lexicon: has their languages.
        seed: of the fit.
        device: a torch device for the official models.

    Raises:
        UserError: an unknown name, too few pairs in a language, or official models that cannot be
            loaded.
    """
    if name not in SCORERS:
        raise UserError(f"scorers {name!r} are not known; choose among {', '.join(SCORERS)}")
    if name == "official":
        from detox_tune.evaluation.official import load_official

        return load_official(device=device)
    languages = sorted({pair.language for pair in train})
    return EmbeddedScorers(
        {
            language: fit_pairs(
                [pair for pair in train if pair.language == language],
                language=language,
                lexicon=lexicon,
                seed=seed,
            )
            for language in languages
        }
    )


def _pair_chrf(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    return sentence_chrf([text for text, _ in pairs], [[other] for _, other in pairs])
