"""The notebook in docs/: kept without outputs, and run as it stands."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(ROOT / "docs" / "detox_tune.ipynb", as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DETOX_TUNE_CACHE", str(tmp_path / "cache"))
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=800).execute()
    quiet, search, table, answers = [
        cell.outputs for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert quiet == []
    assert not any(output.get("name") == "stderr" for output in (*search, *table, *answers))
    assert search[-1].data["text/plain"] == "0"
    assert "trial_002" in table[-1].data["text/plain"]
    assert len(ast.literal_eval(answers[-1].data["text/plain"])) == 2
    [run] = (tmp_path / "results").iterdir()
    assert (run / "best" / "README.md").is_file()
