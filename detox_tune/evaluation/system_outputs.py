"""The outputs of systems that are compared: read from files, or decoded by tuned models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detox_tune.config import Quoting, TrialConfig
from detox_tune.evaluation.comparison import BASELINES
from detox_tune.evaluation.references import Key, References
from detox_tune.evaluation.submission import load_outputs
from detox_tune.long_work import progress_of
from detox_tune.plain_console import PlainConsole

if TYPE_CHECKING:
    from detox_tune.evaluation.adapters import TunedModel


class SystemOutputs(NamedTuple):
    """What one system made of the references' sources."""

    outputs: dict[Key, str]
    """By language and source; sentinels left in."""
    task_prefix: str
    """What stood before the sources."""
    cut: int = 0
    """How many were not done at the system's `max_tokens`."""
    max_tokens: int = 0


def outputs_of_systems(
    references: References,
    *,
    submissions: Sequence[Path],
    adapters: Sequence[Path],
    models: Sequence[str],
    task_prefix: str | None,
    base_model: str | None,
    device: str,
    quoting: Quoting,
) -> Iterator[tuple[str, SystemOutputs]]:
    """Name and outputs of each system.

    Args:
        references: the sources.
        submissions: files of outputs.
        adapters: folders of adapters.
        models: hub names or folders of checkpoints that are tuned as a whole.
        task_prefix: of all that do not bring their own; by default that of the study for files,
            and none for models.
        base_model: the adapters' base, where it has moved.
        device: a torch device.
        quoting: of the files.

    Raises:
        UserError: what can't be read, or does not fit the references.
    """
    names = system_names([*map(str, submissions), *map(str, adapters), *models])
    for file in submissions:
        prefix = TrialConfig().task_prefix if task_prefix is None else task_prefix
        outputs = load_outputs(file, references, quoting=quoting)
        yield next(names), SystemOutputs(outputs, prefix)
    if not adapters and not models:
        return
    from detox_tune.evaluation.adapter_files import METRICS
    from detox_tune.evaluation.adapters import load_adapter, load_whole_model

    several = len(submissions) + len(adapters) + len(models) > 1
    for folder in adapters:
        own = several and (folder / METRICS).exists()
        tuned = load_adapter(
            folder,
            base_model=base_model,
            task_prefix=None if own else task_prefix,
            device=device,
        )
        yield next(names), _decoded(tuned, references)
    for name in models:
        tuned = load_whole_model(name, task_prefix=task_prefix or "", device=device)
        yield next(names), _decoded(tuned, references)


def system_names(paths: Sequence[str]) -> Iterator[str]:
    """What systems are called: the last part of a path that is no other's, else the whole of it.

    The folder best/ of a run has the name of the run. No system has the name of a baseline.
    """
    if len(paths) == 1:
        return iter(["system"])
    short = [_short_name(Path(path)) for path in paths]
    taken = [*short, *BASELINES]
    return (
        name if taken.count(name) == 1 else path if path not in BASELINES else f"./{path}"
        for path, name in zip(paths, short, strict=True)
    )


def _short_name(path: Path) -> str:
    whole = path.resolve()
    return whole.parent.name if whole.name == "best" else whole.name


def _decoded(tuned: TunedModel, references: References) -> SystemOutputs:
    keys = list(dict.fromkeys(row.key for row in references.rows if row.key[1]))
    log = PlainConsole(stderr=True)
    with progress_of("rewriting", "sentences", len(keys), log) as progress:
        answers = tuned.answers([source for _, source in keys], progress)
    outputs = {key: answer.text for key, answer in zip(keys, answers, strict=True)}
    cut = sum(answer.cut for answer in answers)
    return SystemOutputs(outputs, tuned.task_prefix, cut, tuned.max_tokens)
