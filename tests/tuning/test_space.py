"""Search spaces: what is sampled, under which conditions, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.tuning.space import SearchSpace, first_samples
from detox_tune.tuning.space_file import load_space

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))

FULL = """
lora: {choice: [first, second]}
gamma: {zero_or: [0.05, 2.0], log: true}
learning_rate: {range: [1.0e-4, 1e-2], log: true}
context_window: {range: [1, 4], when: {mask_strategy: toxic_context}}
mask_strategy: {choice: [none, toxic_only, toxic_context, inverse_toxic]}
mask_anchor: {choice: [edits, labels], when: {mask_strategy: [toxic_only, toxic_context]}}
batch_size: 8
"""


def samples(text: str, n: int) -> list[dict[str, Any]]:
    space = SearchSpace(yaml.safe_load(text))
    return list(first_samples(space, SearchConfig(name="x", sampler="random"), n))


def test_samples_keep_bounds_conditions_and_fixed_values() -> None:
    drawn = samples(FULL, 300)
    for settings in drawn:
        TrialConfig(**settings)  # refuses whatever the mask strategy would not read
        assert settings["batch_size"] == 8
        assert 1e-4 <= settings["learning_rate"] <= 1e-2
        assert settings["gamma"] == 0 or 0.05 <= settings["gamma"] <= 2.0
        assert ("context_window" in settings) == (settings["mask_strategy"] == "toxic_context")
        has_anchor = settings["mask_strategy"] in ("toxic_only", "toxic_context")
        assert ("mask_anchor" in settings) == has_anchor
    windows = {s["context_window"] for s in drawn if "context_window" in s}
    assert windows == {1, 2, 3, 4}
    assert 100 < sum(s["gamma"] == 0 for s in drawn) < 200
    # log-uniform: half of the draws lie below the geometric mean
    assert 110 < sum(s["learning_rate"] < 1e-3 for s in drawn) < 190


def test_the_space_can_be_written_down_and_read_again() -> None:
    space = SearchSpace(yaml.safe_load(FULL))
    again = SearchSpace(json.loads(json.dumps(space.describe())))
    config = SearchConfig(name="x")
    assert list(first_samples(space, config, 10)) == list(first_samples(again, config, 10))


def test_a_condition_may_hang_on_a_setting_that_has_one_itself() -> None:
    drawn = samples(
        "mask_strategy: {choice: [none, toxic_context]}\n"
        "mask_anchor: {choice: [edits, labels], when: {mask_strategy: toxic_context}}\n"
        "context_window: {range: [1, 9], when: {mask_anchor: labels, "
        "mask_strategy: toxic_context}}\n",
        100,
    )
    for settings in drawn:
        assert ("context_window" in settings) == (settings.get("mask_anchor") == "labels")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma: {rang: [0, 1]}", r"gamma has rang, but .* exactly one of choice, range, zero_or"),
        ("gamma: {range: [0, 1], choice: [1]}", r"exactly one of choice, range, zero_or"),
        ("gamma: {range: [0, 1], lgo: true}", r"gamma: lgo=True"),
        ("gamma: {range: [1]}", r"gamma: range"),
        ("gamma: {range: [0, 1], log: true}", r"lower bound 0, which must be above 0"),
        ("gamma: {range: [-1, 1]}", r"gamma=-1: .*greater than or equal to 0"),
        ("lora: {range: [0, 1]}", r"lora is not a number, so it takes choice"),
        ("lora: {choice: []}", r"lora: choice=\[\]"),
        ("lora: {choice: [first, frist]}", r"lora='frist': .*'first', 'second' or 'all'"),
        ("batch_size: {range: [1.5, 4]}", r"batch_size counts whole things"),
        ("mask_strategy: toxc_only", r"mask_strategy='toxc_only'"),
        (
            "mask_strategy: {choice: [none, toxic_context]}\ncontext_window: {range: [1, 2]}",
            r"context_window=1 is only read .* add `when: \{mask_strategy: toxic_context\}`",
        ),
        (
            "lora: {choice: [first, second]}\ngamma: {range: [0, 1], when: {lora: fourth}}",
            r"gamma waits for lora='fourth', which no trial has; valid: first, second",
        ),
        ("gamma: {range: [0, 1], when: {lora: first}}", r"depends on 'lora', which the space"),
        (
            "gamma: {range: [0, 1]}\nlora: {choice: [first], when: {gamma: 0}}",
            r"lora depends on gamma, which is a range",
        ),
        (
            "lora: {choice: [first], when: {task_prefix: a}}\n"
            "task_prefix: {choice: [a], when: {lora: first}}",
            r"conditions of lora, task_prefix depend on each other in a circle",
        ),
    ],
)
def test_wrong_spaces_are_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SearchSpace(yaml.safe_load(text), "my.yaml: trial")
    assert str(caught.value).startswith("my.yaml: trial: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_shipped_spaces_are_valid(path: Path) -> None:
    config, space = load_space(path, {})
    for settings in first_samples(space, config, 50):
        TrialConfig(**settings)


def test_the_two_tries_are_what_the_study_started_from() -> None:
    first, second = (load_space(p, {})[1].fixed for p in SPACES if p.stem.endswith("_try"))
    assert (first["lora"], first["gamma"], first["task_prefix"]) == ("first", 0.0, "")
    assert (second["lora"], second["gamma"]) == ("first", 0.15)
    assert second["task_prefix"] == "detoxify: "


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("trials: 3\nsteps: 200\ntrial: {gamma: 0.5}\n", encoding="utf-8")
    config, space = load_space(path, {"trials": 5})
    assert (config.name, config.trials, config.steps) == ("mine", 5, 200)
    assert space.fixed == {"gamma": 0.5}


def test_no_trial_is_judged_before_its_warm_up_and_two_reports(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"

    def load(grace: int, steps: int = 1000) -> int:
        path.write_text(
            f"steps: {steps}\neval_every: 50\ngrace_steps: 50\ncollapse_grace: {grace}\n"
            "trial: {warmup_share: {choice: [0.01, 0.1]}}\n",
            encoding="utf-8",
        )
        return load_space(path, {})[0].collapse_grace

    assert load(200) == 200
    with pytest.raises(UserError, match=r"collapse_grace=199 must be .*100 steps.*raise it to 200"):
        load(199)
    assert load(50, steps=100) == 50  # there no report is judged that comes after it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", r"must map setting names to values"),
        (b"trial: 3\n", r"trial=3 must map settings"),
        (b"name: \xff\n", r"is not UTF-8 text \(byte 6\)"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_space(path, {})
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; give the path of a YAML space"):
        load_space(tmp_path, {})
