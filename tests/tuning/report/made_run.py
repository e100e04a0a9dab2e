"""Runs as a search leaves them, without the search."""

import json
import random
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from detox_tune import __version__
from detox_tune.config import SearchConfig
from detox_tune.files import write_json, write_text
from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.study import SearchStudy

SPACE = {
    "lora": {"choice": ["first", "second"]},
    "gamma": {"zero_or": [0.5, 20.0], "log": True},
    "learning_rate": {"range": [1e-4, 1e-2], "log": True},
    "mask_strategy": {"choice": ["none", "toxic_only", "toxic_context", "inverse_toxic"]},
    "context_window": {"range": [1, 4], "when": {"mask_strategy": "toxic_context"}},
}
WORDS = ("you", "are", "a", "damn", "fine", "idiot", "of", "the", "old", "town")
STEPS, EVERY = 300, 50
LABELS = ("rewritten", "copied", "sentinel", "empty", "repeated")


def shares(labels: list[str]) -> dict[str, float]:
    found = {label: labels.count(label) / len(labels) for label in LABELS}
    return {**found, "copy_rate": found["copied"], "exact_copy_rate": found["copied"] / 2}


def report(step: int, j: float, labels: list[str]) -> dict[str, Any]:
    scores = {"sta": 0.9, "sim": 0.7, "fl": 0.7, "j_2025": 0.5, "edit_recall": 0.7}
    made = {**scores, "j": j, "toxic_retention": 0.1, **shares(labels), "step": step}
    made["feasible_j"] = feasible_j(made, max_copy_rate=0.1, copy_j=0.02)
    return {**made, "trained_share": 0.4, "pairs_dropped": 0, "seconds": 0.2 * step}


def sentence(chance: random.Random, n: int) -> str:
    return " ".join(chance.choices(WORDS, k=n))


def made_run(
    parent: Path,
    name: str = "made",
    trials: int = 8,
    sentences: int = 20,
    winner: bool = True,
    prefix: Any = None,
    source: str = "",
    reason: str = "because others did better",
    scorers: str = "embedded",
) -> Path:
    """Make the folder of a run in `parent`; returns its path.

    Args:
        parent: where.
        name: of the run.
        trials: how many, ended in four ways by turns.
        sentences: of the validation sample.
        winner: whether there is one.
        prefix: `task_prefix` of the space, a text or a choice of texts; none is set without.
        source: what stands before each source.
        reason: why trials ended.
        scorers: their name.
    """
    folder = parent / name
    folder.mkdir()
    chance = random.Random(0)
    space = SearchSpace(SPACE | ({"task_prefix": prefix} if prefix is not None else {}))
    config = SearchConfig(name=name, trials=max(1, trials), steps=STEPS, scorers=scorers)
    study = SearchStudy(folder, space, config.max_copy_rate)
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sources = [source + sentence(chance, 9) for _ in range(sentences)]
    frozen, best = [], ("", -9.0)
    for number in range(trials):
        trial = asked.ask()
        space(trial)
        ended = ("finished", "asha", "collapse", "failed")[number % 4]
        last = STEPS if ended == "finished" else STEPS // 2
        reports, labels = [], ["rewritten"] * sentences
        for step in range(EVERY, last + 1, EVERY):
            copies = 0.9 if ended == "collapse" else chance.random() * 60 / step
            labels = [
                "copied"
                if chance.random() < copies
                else chance.choice(LABELS[:1] * 30 + LABELS[2:])
                for _ in range(sentences)
            ]
            reports.append(report(step, chance.random() * step / STEPS, labels))
        if ended == "finished":
            labels = ["rewritten"] * sentences
            reports[-1] = report(last, 0.6 + chance.random() / 10, labels)
            best = max(best, (f"trial_{number + 1:03d}", reports[-1]["j"]), key=lambda b: b[1])
        history = {"reports": reports, "ended": ended, "reason": reason}
        frozen.append(
            create_trial(
                state=TrialState.FAIL if ended == "failed" else TrialState.PRUNED,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={"history": history},
            )
        )
        rows = [
            {
                "step": max(reports, key=lambda r: r["feasible_j"])["step"],
                "language": "en",
                "source": text,
                "references": [text.replace("damn", "very").replace("idiot", "person")],
                "output": text if label == "copied" else text.replace("damn", f"n{number}"),
                "label": label,
                "j": round(chance.random(), 4),
            }
            for text, label in zip(sources, labels, strict=True)
        ]
        lines = "\n".join(json.dumps(row) for row in rows) + "\n"
        write_text(folder / "outputs" / f"trial_{number + 1:03d}.jsonl", lines)
    study.optuna.add_trials(frozen)
    record = {
        "command": ["python", "-m", "detox_tune.search", "pocket", "--name", name],
        "directory": "/somewhere",
        "started": "2026-01-01T00:00:00+00:00",
        "search": config.model_dump(),
        "space": space.describe(),
        "versions": {"detox_tune": __version__, "torch": "2.13.0"},
        "data": {
            split: {"pairs": sentences, "sha256": "0" * 64}
            for split in ("train", "validation", "test")
        },
        "wall_seconds": 1234.5,
        "finished": "2026-01-01T00:20:00+00:00",
    }
    if winner:
        record["winner"] = best[0]
        write_json(folder / "best" / "metrics.json", metrics(best[0], space, prefix))
    else:
        record["no_winner"] = "no adapter exported: no trial has a validation copy rate of 0.1"
    write_json(folder / "search.json", record)
    return folder


def metrics(trial: str, space: SearchSpace, prefix: Any) -> dict[str, Any]:
    systems = {"copy": 0.05, "base": 0.06, "delete": 0.53, "tuned": 0.6, "reference": 0.7}
    scores = {"sta": 0.9, "sim": 0.7, "fl": 0.7, "copy_rate": 0.08, "n": 250.0}
    return {
        "trial": trial,
        "settings": {"lora": "first", "gamma": 2.5, "task_prefix": prefix or "detoxify: "},
        "base_model": "pocket",
        "scorers": "embedded",
        "test": {name: {**scores, "j": j} for name, j in systems.items()},
        "intervals": {
            name: {"j": [j - 0.02, j + 0.02], "copy_rate": [0.05, 0.12]}
            for name, j in systems.items()
        },
    }
