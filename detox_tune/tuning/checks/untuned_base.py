"""What the untouched base is: its head, and its answers before any tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.collapse import OutputLabel, label_output
from detox_tune.tuning.checks.result import CheckResult, Status

_POCKET_LIKE_WEIGHTS = 10_000_000
"""The pocket base has a million weights, the smallest published T5 sixteen million."""

_ONLY_SENTINELS = 0.9
_MANY_SENTINELS = 0.5
_SAYS_NOTHING = 0.5


def is_pocket_like(base: PreTrainedModel) -> bool:
    """Whether a base is small enough to be pre-trained here, until it copies."""
    return base.num_parameters() < _POCKET_LIKE_WEIGHTS


def head_check(base: PreTrainedModel) -> CheckResult:
    """Fails where `lm_head` is the embedding although the architecture has a head of its own.

    mT5, umT5 and T5 1.1 (gated feed-forward) were trained with an untied head; T5 1.0 with a tied
    one. transformers ties a head that a checkpoint lacks, and its default for mT5 is tied.
    """
    config: Any = base.config
    head = cast(torch.nn.Linear, base.get_output_embeddings()).weight
    embedding = cast(torch.nn.Embedding, base.get_input_embeddings()).weight
    shared = head.data_ptr() == embedding.data_ptr()
    same = shared or (head.shape == embedding.shape and torch.equal(head, embedding))
    wants_untied = config.model_type != "t5" or config.is_gated_act
    if not same:
        return CheckResult("head", Status.PASS, "lm_head has weights of its own")
    if not wants_untied:
        return CheckResult("head", Status.PASS, "lm_head is the embedding, as in T5 1.0")
    how = "shares the embedding's storage" if shared else "equals the embedding"
    return CheckResult(
        "head",
        Status.FAIL,
        f"lm_head {how} (tied), but {config.model_type} has an untied head: its own was lost",
        "take the original checkpoint (with both shared.weight and lm_head.weight), and set "
        "config.tie_word_embeddings=False before resizing or saving it",
    )


def answer_check(
    outputs: Sequence[str],
    pairs: Sequence[Pair],
    lexicon: Lexicon,
    *,
    task_prefix: str,
    pocket_like: bool,
) -> CheckResult:
    """What the base answers before tuning: how much it copies, and whether it says anything.

    A pocket base that emits nothing but sentinels was not pre-trained to copy, and a short search
    cannot mend that: fail. A raw mT5 answers with `<extra_id_0>` and then a piece of the input,
    because span corruption is all that it was pre-trained on; tuning unlearns it: warn.

    Args:
        outputs: greedy outputs of the base, sentinels left in.
        pairs: what they answer.
        lexicon: tells copies.
        task_prefix: what stood before the sources.
        pocket_like: see `is_pocket_like`.
    """
    count = len(outputs)
    labels = Counter(
        label_output(output, pair, lexicon, task_prefix=task_prefix)
        for output, pair in zip(outputs, pairs, strict=True)
    )
    shares = {label: labels[label] / count for label in OutputLabel}
    with_sentinel = sum("<extra_id_" in output for output in outputs) / count
    seen = (
        f"copy rate {shares[OutputLabel.COPIED]:.2f} on {count} validation pairs before tuning; "
        + ", ".join(f"{label} {share:.2f}" for label, share in shares.items() if label != "copied")
        + f"; a sentinel in {with_sentinel:.2f}"
    )
    if pocket_like and shares[OutputLabel.SENTINEL] >= _ONLY_SENTINELS:
        return CheckResult(
            "base",
            Status.FAIL,
            f"{seen}: the base only emits sentinels",
            "use a base that was pre-trained to copy: --base-model pocket, with more pocket_steps",
        )
    if with_sentinel >= _MANY_SENTINELS:
        return CheckResult(
            "base",
            Status.WARN,
            f"{seen}: the base answers with sentinels, as a raw mT5 or T5 1.1 does, since filling "
            "gaps is all that it was pre-trained on",
            "tuning has to unlearn this first: leave it steps (collapse_grace, grace_steps), and "
            "train all positions in some trials (mask_strategy: none)",
        )
    if shares[OutputLabel.EMPTY] + shares[OutputLabel.REPEATED] >= _SAYS_NOTHING:
        return CheckResult(
            "base",
            Status.WARN,
            f"{seen}: most answers are empty or a loop",
            "use a base that is trained further: more pocket_steps, or another --base-model",
        )
    return CheckResult("base", Status.PASS, seen)
