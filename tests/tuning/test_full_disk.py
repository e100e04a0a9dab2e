"""A disk that gets full: small ones in memory, each in a mount namespace of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.small_search import read, rows

# The first trial has ended and the second is running when the disk is full. Then it gets larger.
SEARCH = """
"$@" -m detox_tune.search space.yaml --name small --out full; echo "ended with $?"
cp full/small/trials.csv before.csv
mount -o remount,size=100m full
"$@" -m detox_tune.search --resume full/small; echo "ended with $?"
cp -r full/small kept
"""
WRITERS = """
import os, sqlite3, sys
import torch
from pyarrow import fs
from safetensors.torch import save_file
from detox_tune.files import disk_is_full, write_text

content = {"weight": torch.zeros(1_000_000)}
save_file(content, "kept")
here = fs.LocalFileSystem()

def write_rows():
    connection = sqlite3.connect("full/file")
    connection.execute("create table texts(text)")
    connection.execute("insert into texts values(?)", ("x" * 3_000_000,))

for write in (
    lambda: torch.save(content, "full/file"),
    lambda: save_file(content, "full/file"),
    lambda: fs.copy_files("kept", "full/file", here, here),
    lambda: write_text(Path("full/file"), "x" * 3_000_000),
    write_rows,
):
    try:
        write()
    except Exception as error:
        print(disk_is_full(error))
    for name in os.listdir("full"):
        os.unlink(f"full/{name}")
"""


def with_small_disk(folder: Path, script: str, size: str) -> str:
    """Run a script of the shell, with Python as $@, beside `full`, a disk; returns its output."""
    space = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*space, "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    (folder / "full").mkdir()
    mount = f"mount -t tmpfs -o size={size} none full || exit 99\n"
    command = [*space, "sh", "-c", mount + script, "sh", sys.executable]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_errors_that_mean_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "writers.py").write_text("from pathlib import Path\n" + WRITERS)
    assert with_small_disk(tmp_path, '"$@" writers.py', "1m").split() == ["True"] * 5


@pytest.mark.slow
def test_a_search_stops_and_goes_on_when_there_is_room(folder: Path) -> None:
    output = with_small_disk(folder, SEARCH, "2m")
    assert "error: a disk is full ([errno 28] No space left on device): free some" in output
    assert "detox_tune.search --resume" in output.partition("ended with 2")[0]
    assert output.rstrip().endswith("ended with 0")
    before = (folder / "before.csv").read_text(encoding="utf-8")
    after = (folder / "kept" / "trials.csv").read_text(encoding="utf-8")
    assert after.startswith(before)
    assert [row["ended"] for row in rows(folder / "kept")] == ["finished", "finished"]
    assert len(read(folder / "kept" / "search.json")["resumed"]) == 1
