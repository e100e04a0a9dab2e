"""What is said before the trials start."""

import io
from pathlib import Path

import pytest
from detox_tune.tuning.prepare import describe_base
from rich.console import Console

from detox_tune.config import SearchConfig
from detox_tune.tuning import prepare
from detox_tune.tuning.task import Task, build_task, load_corpus


@pytest.fixture(scope="module")
def task(tiny_base: Path) -> Task:
    config = SearchConfig(name="x", languages=("en",), validation_pairs=5, max_tokens=40)
    return build_task(config, load_corpus(config), str(tiny_base), task_prefixes=[""])


@pytest.mark.parametrize(("copies", "share"), [([True] * 4 + [False], "0.80"), ([False] * 5, "0")])
def test_a_pocket_base_is_said_to_copy_as_much_as_it_does(
    task: Task, copies: list[bool], share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "exact_copies", lambda base, sources: copies[: len(sources)])
    console = Console(file=io.StringIO(), width=200)
    describe_base(SearchConfig(name="x"), task, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"copies {share}" in said
    assert "of 5 validation sentences word for word" in said


def test_nothing_is_said_of_another_base(task: Task, tiny_base: Path) -> None:
    console = Console(file=io.StringIO())
    describe_base(SearchConfig(name="x", base_model=str(tiny_base)), task, console)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
