"""The study's claims, each with the comparisons that test it. Written before the results were seen.

A comparison holds if the whole 95% interval lies on the claimed side of its bound, does not hold if
the whole interval lies on the other side, and is open in between.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Comparison(NamedTuple):
    """A score of an arm, or by how much it differs from another arm's."""

    claim: int
    arm: str
    """As `experiment/arm`."""
    score: str
    side: Literal["above", "below"]
    bound: float = 0.0
    against: str | None = None
    """The arm that it is paired with, sentence by sentence and seed by seed."""
    language: str | None = None
    """Of the sentences; None for all."""


CLAIMS = {
    1: "Original loss, LoRA on q and v, no prefix: the model only copies",
    2: "The same with a toxic penalty of .15 and the prefix: it copies still",
    3: "A mask prevents identity mapping",
    4: "A mask focuses learning: edits are made, the rest is kept",
    6: "A mask converges better (steps to 95% of its best j)",
    7: "Masks work across languages without tuning for one",
    8: "toxic_context keeps the words around an edit coherent; inverse_toxic raises fluency and "
    "keeps toxic words from being reinforced",
    9: "A penalty on logits has a gradient where one on probabilities has none",
    10: "It is easy to see which tokens the model learns to modify",
}
ONLY_COPIES = 0.9  # copy rate from which we say that a model only copies
KEPT = -0.02  # of the kept words, what may be lost where "the rest is kept"

_NONE, _CONTEXT = "claims/default", "claims/mask_anchor=answers mask_strategy=toxic_context"
_ONLY = "claims/mask_anchor=answers mask_strategy=toxic_only"
_INVERSE = "claims/mask_strategy=inverse_toxic"
_FIRST = ("tries/default", "tries/learning_rate=0.0003", "claims/lora=first")
_SECOND = (
    "tries/gamma=0.15 task_prefix=detoxify",
    "tries/gamma=0.15 learning_rate=0.0003 task_prefix=detoxify",
    "claims/gamma=0.15 lora=first task_prefix=detoxify",
)
_UNMASKED, _MASKED = "languages/default", "languages/mask_strategy=toxic_context"
COMPARISONS = (
    *(Comparison(1, arm, "copy_rate", "above", ONLY_COPIES) for arm in _FIRST),
    *(Comparison(2, arm, "copy_rate", "above", ONLY_COPIES) for arm in _SECOND),
    *(
        Comparison(3, arm, "copy_rate", "below", against=_NONE)
        for arm in (
            "claims/mask_anchor=labels mask_strategy=toxic_only",
            _ONLY,
            "claims/mask_anchor=edits mask_strategy=toxic_only",
            "claims/mask_anchor=labels mask_strategy=toxic_context",
            _CONTEXT,
            "claims/mask_anchor=edits mask_strategy=toxic_context",
            _INVERSE,
        )
    ),
    *(
        comparison
        for arm in (_ONLY, _CONTEXT)
        for comparison in (
            Comparison(4, arm, "edit_recall", "above", against=_NONE),
            Comparison(4, arm, "kept", "above", KEPT, against=_NONE),
        )
    ),
    *(Comparison(6, arm, "steps_to_95", "below", 1.0, _NONE) for arm in (_ONLY, _CONTEXT)),
    *(
        comparison
        for code in ("en", "es", "de", "ru", "uk")
        for comparison in (
            Comparison(7, _MASKED, "copy_rate", "below", against=_UNMASKED, language=code),
            Comparison(7, _MASKED, "j", "above", against=_UNMASKED, language=code),
        )
    ),
    Comparison(8, _CONTEXT, "sim", "above", against=_ONLY),
    Comparison(8, _CONTEXT, "kept", "above", against=_ONLY),
    Comparison(8, _INVERSE, "fl", "above", against=_NONE),
    Comparison(8, _INVERSE, "toxic_retention", "below", against=_NONE),
    *(
        comparison
        for gamma in (1, 20)
        for comparison in (
            Comparison(
                9, f"claims/gamma={gamma}", "toxic_retention", "below",
                against=f"claims/gamma={gamma} remedy=probability",
            ),
            Comparison(
                9, f"claims/gamma={gamma}", "j", "above",
                against=f"claims/gamma={gamma} remedy=probability",
            ),
        )
    ),
    *(Comparison(10, arm, "dropped_toxic", "above", 0.5) for arm in (_NONE, _CONTEXT)),
)  # fmt: skip
"""Claim 5, on time, is measured by `verdict_steps.py`. `steps_to_95` is compared as a ratio."""
