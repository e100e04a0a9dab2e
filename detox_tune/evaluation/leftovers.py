"""What rewriting left undone, as far as it shows without a reference: copies and toxic words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detox_tune.data.lexicon import Lexicon
from detox_tune.evaluation.collapse import is_whole_copy
from detox_tune.evaluation.disguise import undisguised
from detox_tune.evaluation.rewriting import has_letter


class Leftovers(NamedTuple):
    """One value per text; None where nothing was asked or nothing can be said."""

    still_copy: list[bool | None]
    """It is all of the source (`is_whole_copy`), be that toxic or not."""
    still_toxic: list[bool | None]
    """It has a word of the lexicon, perhaps disguised as the source's is not."""


def leftovers(
    outputs: Sequence[str],
    texts: Sequence[str | None],
    languages: Sequence[str | None],
    lexicon: Lexicon | None,
    *,
    task_prefix: str,
) -> Leftovers:
    """Look for copies and toxic words.

    Args:
        outputs: what became of each text.
        texts: None or without a letter where a model was not asked.
        languages: of each text, None where it is not known: then its words are not looked up.
        lexicon: of the run; None if there is none.
        task_prefix: what stood before the texts.
    """
    known = {code for code in lexicon.languages if lexicon.entries(code)} if lexicon else set()
    left = Leftovers([], [])
    for output, text, language in zip(outputs, texts, languages, strict=True):
        copied = toxic = None
        if text is not None and has_letter(text):
            copied = is_whole_copy(output, text, language or "", task_prefix=task_prefix)
            if lexicon and language in known:
                plain = undisguised(output, language, known=text)
                toxic = bool(lexicon.spans(plain, language))
        left.still_copy.append(copied)
        left.still_toxic.append(toxic)
    return left
