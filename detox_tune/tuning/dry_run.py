"""What a search would do, without doing it."""

from __future__ import annotations

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.tuning.space import SearchSpace, first_samples

_SAMPLES = 5


def dry_run(config: SearchConfig, space: SearchSpace) -> str:
    """The resolved search and the first trials, one setting or trial per line."""
    lines = ["search"]
    lines += [f"  {name}: {value!r}" for name, value in config.model_dump().items()]
    lines.append("space")
    lines += [f"  {name}: {domain!r}" for name, domain in space.describe().items()]
    shown = min(_SAMPLES, config.trials)
    lines.append(f"first {shown} trials (before any result is known)")
    for number, sample in enumerate(first_samples(space, config, shown), start=1):
        settings = TrialConfig.model_validate(sample).model_dump(exclude_none=True)
        lines.append(f"  trial_{number:03d}: {settings}")
    return "\n".join(lines)
