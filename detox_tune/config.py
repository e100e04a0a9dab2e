"""Every setting once: unit, default and rule.

`TrialConfig` is what one trial trains with (and what a search may vary); `SearchConfig` is what all
trials of a search share. Both refuse unknown names, and settings that nothing would read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from detox_tune.errors import UserError
from detox_tune.settings import ReadWith, Settings

LoraApproach = Literal["first", "second", "all"]
MaskStrategy = Literal["none", "toxic_only", "toxic_context", "inverse_toxic"]
MaskAnchor = Literal["labels", "answers", "edits"]
MASK_STRATEGIES: tuple[MaskStrategy, ...] = get_args(MaskStrategy)
"""Trained label positions: all; toxic ones; those and their neighbours; all but toxic words."""
MASK_ANCHORS: tuple[MaskAnchor, ...] = get_args(MaskAnchor)
"""A label position is toxic if it lies in a toxic span of the reference (`labels`), if it does or
answers a toxic span of the source (`answers`), or if it does or answers any edit (`edits`)."""
LORA_APPROACHES: tuple[LoraApproach, ...] = get_args(LoraApproach)
"""Adapted layers: q and v; q, k, v and o; all linear layers of the blocks."""
TrainerName = Literal["original", "toxic_penalty_v1", "toxic_mask_v1"]
"""Cross-entropy; that plus gamma x toxic penalty; masked cross-entropy plus gamma x penalty."""
Quoting = Literal["auto", "quoted", "plain"]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
PathText = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, in which `~` is the home folder: no shell reads a YAML file."""


class TrialConfig(Settings):
    """The settings of one trial: adapter, input, loss and optimiser."""

    lora: LoraApproach = "all"
    """`first` adapts q and v, `second` q, k, v and o, each with r 8; `all` every linear layer."""
    lora_r: Annotated[
        Annotated[int, Field(ge=1, le=256)] | None, ReadWith("lora", ("all",), default=32)
    ] = None
    """Rank of the adapters, 32 by default; read by lora `all`."""
    lora_alpha: Annotated[
        PositiveInt | None,
        ReadWith("lora", ("all",), default=lambda settings: 2 * settings["lora_r"]),
    ] = None
    """Scale of the adapters times their rank, 2 x `lora_r` by default; read by lora `all`."""
    lora_dropout: Annotated[
        Annotated[float, Field(ge=0.0, lt=1.0)] | None, ReadWith("lora", ("all",), default=0.05)
    ] = None
    """Dropout before each adapter, 0.05 by default; read by lora `all`."""
    lora_variant: Literal["lora", "rslora", "dora"] = "lora"
    """`rslora` scales adapters by alpha / sqrt(r), not alpha / r; `dora` also trains magnitudes."""
    task_prefix: str = "detoxify: "
    """Text put before every source sentence; empty for none."""
    mask_strategy: MaskStrategy = "none"
    """Label positions that are trained: all, toxic ones, those and neighbours, all but toxic."""
    mask_anchor: Annotated[
        MaskAnchor | None,
        ReadWith("mask_strategy", ("toxic_only", "toxic_context"), default="answers"),
    ] = None
    """What makes a position toxic: `labels`, `answers` (default) or `edits`; for toxic_* masks."""
    context_window: Annotated[
        Annotated[int, Field(ge=1)] | None,
        ReadWith("mask_strategy", ("toxic_context",), default=2),
    ] = None
    """Neighbours (tokens) trained on either side, 2 by default; read by mask toxic_context."""
    masked_weight: Annotated[
        Rate | None, ReadWith("mask_strategy", MASK_STRATEGIES[1:], default=0.0)
    ] = None
    """Weight of the positions that a mask leaves out: 0 (default) masks, 1 is no mask."""
    gamma: NonNegativeFloat = 0.0
    """Weight of the toxic penalty in the loss; 0 leaves it out, 20 is strong (docs/verdict.md)."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after the warm-up: down to 0 over `steps`, or not at all."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of AdamW, on the adapters' matrices."""
    batch_size: PositiveInt = 16
    """Pairs in one forward pass."""
    gradient_accumulation: PositiveInt = 1
    """Forward passes in one optimiser step."""
    warmup_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of `steps` in which the learning rate rises from 0."""

    @model_validator(mode="before")
    @classmethod
    def _fill_where_read(cls, values: Any) -> Any:
        """Give settings that depend on another one their default, or refuse them."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name, rule in READ_WITH.items():
            other = str(filled.get(rule.setting, cls.model_fields[rule.setting].default))
            if other in rule.values:
                if filled.get(name) is None:
                    default = rule.default
                    filled[name] = default(filled) if callable(default) else default
            elif filled.get(name) is not None:
                raise UserError(unread_setting(name, filled[name], other))
        return filled

    @property
    def trainer_name(self) -> TrainerName:
        """The simplest trainer that reads these settings."""
        if self.mask_strategy != "none":
            return "toxic_mask_v1"
        return "toxic_penalty_v1" if self.gamma > 0 else "original"


READ_WITH: dict[str, ReadWith] = {
    name: rule
    for name, field in TrialConfig.model_fields.items()
    for rule in field.metadata
    if isinstance(rule, ReadWith)
}
"""The settings of a trial that are only read with some values of another one."""


class SearchConfig(Settings):
    """What all trials of a search share."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; its results go to OUT/NAME/. Letters, digits, `.`, `_` and `-`."""
    out: PathText = "results"
    """Folder that holds runs; on a cluster without `storage`, one that all nodes share."""
    storage: str | None = None
    """URI (s3://, gs://, file://) for checkpoints and a copy of the results; None: in `out`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides sampling, splits, initial adapters, data order and dropout."""

    data: PathText = "embedded"
    """`embedded`, a tsv, csv, jsonl or parquet file, a folder of them, or a hub data set."""
    languages: tuple[str, ...] = ()
    """Language codes to use; empty for all that the data has."""
    source_column: str | None = None
    """Column of the toxic sentence; None to look for a usual name."""
    reference_columns: tuple[str, ...] = ()
    """Columns of the neutral sentences; empty to look for usual names."""
    language_column: str | None = None
    """Column of the language code; None to look for a usual name."""
    quoting: Quoting = "auto"
    """Quotes in tsv and csv data: `quoted` as csv has them, `plain` characters, or as it looks."""
    spans: PathText | None = None
    """File or folder of annotated toxic spans, joined to the pairs by sentence."""
    lexicon: PathText | None = None
    """File or folder with one file per language; None for the embedded corpus's own, or none."""
    allow_bad_rows: bool = False
    """Go on although more than 5% of the rows are bad."""
    validation_share: Share = 0.05
    """Share of the source sentences that steer the search."""
    test_share: Share = 0.10
    """Share of the source sentences kept for the winner."""
    beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Of the decoding of the best trials, the winner's test and `rewrite`; reports are greedy.

    With more than one, the likeliest answer that is no copy of its source is taken."""
    max_tokens: Annotated[int, Field(ge=8, le=1024)] = 96
    """Longest source or reference in tokens (longer pairs are dropped), and longest output."""
    min_purity: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95
    """A token is penalised if this share of its occurrences, with support, lies in toxic spans."""
    lexicon_purity: Rate = 0.5
    """A lexicon entry counts only if references drop it in at least this share of its sources."""

    base_model: PathText = "pocket"
    """`pocket`, or a T5-family checkpoint by hub name or path."""
    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: 4-bit base weights with bfloat16 compute (QLoRA); none: full precision float32."""
    vocabulary: Literal["cut", "full"] = "cut"
    """cut: trials train without the tokens that the data never need; full: with all tokens."""
    token_budget: PositiveInt = 16384
    """Padded tokens of one forward pass; a larger batch goes through in parts, same step."""
    pocket_steps: PositiveInt = 800
    """Optimiser steps of the pocket base's pre-training."""
    pocket_vocabulary: Annotated[int, Field(ge=200, le=32000)] = 1000
    """Pieces of the pocket base's SentencePiece model."""

    scorers: Literal["embedded", "official"] = "embedded"
    """What scores outputs: models fitted on the training split, or the official ones (PAN)."""

    trials: PositiveInt = 12
    """Settings to try."""
    steps: PositiveInt = 300
    """Optimiser steps of a trial that runs to its end."""
    eval_every: PositiveInt = 50
    """Optimiser steps between two reports of a trial."""
    validation_pairs: PositiveInt = 100
    """Size of the fixed validation sample that is decoded at every report."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are proposed: Optuna's TPE, or at random."""
    startup_trials: PositiveInt = 6
    """Random settings before TPE starts to learn from results."""
    grace_steps: PositiveInt = 100
    """Steps before ASHA may stop a trial."""
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0
    """ASHA keeps about one in this many trials at each rung."""
    collapse_grace: PositiveInt = 120
    """Steps after which a trial may be stopped for identity collapse: warm-up and two reports."""
    collapse_threshold: Rate = 0.6
    """Copy rate from which a trial whose copy rate does not fall counts as collapsed."""
    max_copy_rate: Rate = 0.10
    """Highest validation copy rate that a winner may have; ASHA counts what is above it."""
    track: Literal["mlflow"] | None = None
    """Where reports go beside the run's folder: `mlflow` (extra `track`), or None."""
    address: str | None = Field(default_factory=lambda: os.environ.get("RAY_ADDRESS") or None)
    """Ray cluster to join, `auto` or host:port; RAY_ADDRESS by default, None starts Ray here."""
    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs of a trial; fractions share a GPU."""
    cpus_per_trial: PositiveFloat = 1.0
    """CPU cores of a trial."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose process dies is continued from its last checkpoint."""
    hours: PositiveFloat | None = None
    """Stop trials after so many hours, and export the best so far; None for no limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eval_every > self.steps:
            raise UserError(
                f"eval_every={self.eval_every} must not exceed steps={self.steps}, or no trial "
                "would ever report: lower eval_every or raise steps"
            )
        if self.grace_steps > self.steps:
            raise UserError(
                f"grace_steps={self.grace_steps} must not exceed steps={self.steps}: "
                "lower grace_steps or raise steps"
            )
        if self.validation_share + self.test_share >= 1:
            raise UserError(
                f"validation_share + test_share = {self.validation_share + self.test_share:g} "
                "must be below 1, or nothing is left to train on: lower them"
            )
        if self.gpus_per_trial > 1 and self.gpus_per_trial != int(self.gpus_per_trial):
            raise UserError(
                f"gpus_per_trial={self.gpus_per_trial:g} must be a whole number or a fraction "
                "below 1 (Ray's rule): round it"
            )
        return self


def unread_setting(name: str, value: object, other: str) -> str:
    """The line that refuses a setting which nothing reads with this value of the other one."""
    rule = READ_WITH[name]
    readers = " or ".join(rule.values)
    listed = rule.values[0] if len(rule.values) == 1 else f"[{', '.join(rule.values)}]"
    return (
        f"{name}={value!r} is only read with {rule.setting} {readers}, but got {rule.setting} "
        f"{other}: remove it, or in a space add `when: {{{rule.setting}: {listed}}}`"
    )
