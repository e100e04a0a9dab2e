"""Checkpoints and results in a storage: a real S3-compatible server, real Ray."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from ray import tune

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.tuning import trial
from detox_tune.tuning.checkpoints import find_checkpoint, seal
from detox_tune.tuning.storage import check_storage, checkpoint_storage, keep_results


def config(storage: str | None) -> SearchConfig:
    return SearchConfig(name="run", storage=storage)


def below(uri: str, path: str) -> str:
    return uri.replace("s3://runs", f"s3://runs/{path}")


def test_a_sealed_checkpoint_is_found_and_read_in_a_bucket(s3: str, tmp_path: Path) -> None:
    storage = checkpoint_storage(config(below(s3, "sealed")), tmp_path)
    for step in (1, 2, 3):
        folder = tmp_path / str(step)
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(step))
        seal(folder, {"step": step})
        target = f"{storage.path}/session_1/trial_001/checkpoint_{step:06d}"
        fs.copy_files(str(folder), target, fs.LocalFileSystem(), storage.filesystem)
    with storage.filesystem.open_output_stream(f"{target}/weights") as file:
        file.write(b"other")
    last = find_checkpoint(storage, "trial_001", lambda report: report["step"])
    assert last is not None
    with last.checkpoint.as_directory() as copy:
        assert Path(copy, "weights").read_bytes() == bytes(last.report["step"]) == bytes(2)
    assert find_checkpoint(storage, "trial_002", lambda report: report["step"]) is None


def test_results_are_copied_to_the_storage_as_they_are(s3: str, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "metrics.json").write_text("{}")
    (tmp_path / "search.json").write_text("[]")
    uri = below(s3, "copies")
    keep_results(config(uri), tmp_path, ("search.json", "best", "absent"))
    server, root = fs.FileSystem.from_uri(uri)
    for name, content in {"best/metrics.json": b"{}", "search.json": b"[]"}.items():
        with server.open_input_file(f"{root}/run/{name}") as file:
            assert file.read() == content
    with pytest.raises(UserError, match="run exists already: choose another --name"):
        check_storage(config(uri), new=True)
    check_storage(config(uri), new=False)
    keep_results(config(None), tmp_path, ("search.json",))  # nowhere to copy to


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("bucket/runs", "must be a URI, such as s3://bucket/folder: name a folder .* --out"),
        ("s3://me:secret@runs/x", r"storage=s3://runs/x: keys in the URI would be written into"),
        ("s3://runs/x?secret_key=secret", r"storage=s3://runs/x: keys in the URI would be"),
        ("ftp://runs/x", "ftp://runs/x' cannot be used .*see docs/cluster.md"),
        ("file:///proc/runs", "cannot be used .*docs/cluster.md"),
    ],
)
def test_a_storage_that_is_none(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_storage(config(uri), new=True)
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)


def test_a_bucket_that_is_not_there(s3: str) -> None:
    with pytest.raises(UserError, match=r"cannot be used \(.*NO_SUCH_BUCKET"):
        check_storage(config(s3.replace("//runs", "//none")), new=True)


def test_a_report_waits_for_a_storage_that_fails_for_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails = iter([True, True, False])
    heard: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], checkpoint: tune.Checkpoint) -> None:
        if next(fails):
            raise OSError("AWS Error SLOW_DOWN")
        heard.append(metrics)

    monkeypatch.setattr(tune, "report", report)
    monkeypatch.setattr(trial, "_WAITS", (0, 0))
    trial.report_patiently({"step": 1}, tmp_path)
    assert heard == [{"step": 1}]
    fails = iter([True] * 3)
    with pytest.raises(OSError, match="SLOW_DOWN"):
        trial.report_patiently({"step": 2}, tmp_path)
