"""The embedded corpus: our own toxic sentences with neutral wordings, from a generator."""

from detox_tune.data.embedded.generator import (
    embedded_lexicon,
    embedded_pairs,
    embedded_sentences,
)

__all__ = ["embedded_lexicon", "embedded_pairs", "embedded_sentences"]
