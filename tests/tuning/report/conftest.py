"""Runs as a search leaves them, in a folder of the test's own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.tuning.report.made_run import made_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`made_run`, in a folder of the test's own."""
    return partial(made_run, tmp_path)
