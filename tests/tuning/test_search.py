"""The command from end to end: real Ray, real processes, some of them killed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import PreTrainedModel

from detox_tune import load_adapter
from detox_tune.config import SearchConfig
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.model.vocabulary import CutTokenizer, cut_vocabulary
from detox_tune.settings import validated
from detox_tune.tuning.corpus import load_corpus
from detox_tune.tuning.task import build_task
from tests.tuning.small_search import EVERY, MAX_TOKENS, PAIRS, SPACE, STEPS, read, rows, wait_until


def start(folder: Path, name: str, *settings: str) -> "subprocess.Popen[str]":
    """The command, as a user starts it."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "detox_tune.search", "space.yaml"),
            *(*settings, "--name", name, "--out", "runs"),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def plain_run(folder: Path) -> Path:
    """The results of a search that nothing disturbed."""
    driver = start(folder, "plain")
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    (folder / "plain.log").write_text(output, encoding="utf-8")
    return folder / "runs" / "plain"


def resume(folder: Path, name: str, *flags: str) -> "subprocess.Popen[str]":
    """The command, from elsewhere."""
    return subprocess.Popen(
        [sys.executable, "-m", "detox_tune.search", "--resume", folder / "runs" / name, *flags],
        cwd=folder / "runs",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def resumed_run(folder: Path, plain_run: Path) -> Path:
    """The same search: a trial is killed, then the driver, and the last checkpoint is damaged.

    Then it goes on without time, and at last to its end.
    """
    driver = start(folder, "resumed")
    run = folder / "runs" / "resumed"
    trial = run / "ray" / "session_1" / "trial_001"
    results = trial / "result.json"
    # not just its checkpoint: the driver must have heard of it
    wait_until(lambda: results.is_file() and "\n" in results.read_text(encoding="utf-8"), driver)
    os.kill(reports(run, "trial_001")[0]["pid"], signal.SIGKILL)
    wait_until(lambda: len({one["pid"] for one in reports(run, "trial_001")}) == 2, driver)
    driver.kill()
    driver.communicate()
    sealed = max(trial.glob("checkpoint_*/seal.json"))
    sealed.with_name("optimizer.pt").write_bytes(b"half")
    late = resume(folder, "resumed", "--hours", "0.0001")
    output, _ = late.communicate(timeout=600)
    # The first trial is under way, and may come to its end; what it can do by then may win or not.
    assert late.returncode == (0 if (run / "best" / "metrics.json").is_file() else 1), output
    assert re.search("hours=0.0001 are over: [01] of 2 trials ended; go on with: ", output), output
    assert rows(run)[0]["ended"] in ("unfinished", "finished")
    last = resume(folder, "resumed")
    output, _ = last.communicate(timeout=600)
    assert last.returncode == 0, output
    return run


def reports(run: Path, trial: str) -> list[dict[str, Any]]:
    lines = (
        (run / "ray" / "session_1" / trial / "result.json").read_text(encoding="utf-8").splitlines()
    )
    return [json.loads(line) for line in lines]


def test_a_search_whose_trial_and_driver_were_killed_goes_on_as_if_they_had_not(
    plain_run: Path, resumed_run: Path
) -> None:
    assert len({report["pid"] for report in reports(plain_run, "trial_001")}) == 1
    first, *others = reports(resumed_run, "trial_001")
    repeated = next(report for report in others if report["pid"] != first["pid"])
    # another process went on, not from the start: it first repeats the last checkpoint's report
    assert repeated["step"] > first["step"] or repeated["seconds"] == first["seconds"]

    check_equal(plain_run, resumed_run)
    assert read(resumed_run / "search.json")["winner"] == read(plain_run / "search.json")["winner"]


def check_equal(plain: Path, disturbed: Path) -> None:
    """The same trials and the same winner, to the bit."""
    found = [rows(run) for run in (plain, disturbed)]
    for row in (*found[0], *found[1]):
        assert float(row.pop("seconds")) > 0
    assert found[0] == found[1]
    for name in ("adapter_model.safetensors", "samples.tsv", "metrics.json", "scorers.json"):
        assert (plain / "best" / name).read_bytes() == (disturbed / "best" / name).read_bytes()
    assert read(plain / "search.json")["data"] == read(disturbed / "search.json")["data"]


def test_ctrl_c_exports_the_best_so_far_and_the_search_can_go_on_and_grow(
    folder: Path, plain_run: Path
) -> None:
    driver = start(folder, "stopped")
    run = folder / "runs" / "stopped"
    wait_until((run / "trials.csv").is_file, driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it, too
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 130, output
    assert "interrupted: 1 of 2 trials ended" in output
    assert f"python -m detox_tune.search --resume {run}" in output
    assert read(run / "best" / "metrics.json")["trial"] == "trial_001"
    longer = resume(folder, "stopped", "--trials", "3")
    output, _ = longer.communicate(timeout=600)
    assert longer.returncode == 0, output
    assert "[2/3] trial_002 finished" in output
    assert [row["ended"] for row in rows(run)] == ["finished"] * 3
    for row, plain in zip(rows(run), rows(plain_run), strict=False):
        assert row | {"seconds": ""} == plain | {"seconds": ""}


def test_a_second_ctrl_c_ends_the_search_at_once(folder: Path) -> None:
    driver = start(folder, "twice", "beams=8")  # so that scoring takes a while
    run = folder / "runs" / "twice"
    wait_until((run / "trials.csv").is_file, driver)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.stdout
    while "interrupted: 1 of 2 trials ended" not in driver.stdout.readline():
        assert driver.poll() is None
    os.killpg(driver.pid, signal.SIGINT)  # while it loads and scores the best so far
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, output
    assert output.splitlines()[-1] == "interrupted"
    assert f"python -m detox_tune.search --resume {run}" in output
    assert not (run / "best").exists()
    assert "winner" not in read(run / "search.json")


def test_every_trial_has_a_row_with_settings_scores_and_its_end(plain_run: Path) -> None:
    found = rows(plain_run)
    assert [row["trial"] for row in found] == ["trial_001", "trial_002"]
    for row in found:
        assert (row["ended"], row["steps"]) == ("finished", str(STEPS))
        assert row["reason"] == f"all {STEPS} steps are done"
        assert int(row["best_step"]) in range(EVERY, STEPS + 1, EVERY)
        assert row["mask_strategy"] in ("none", "toxic_only")
        assert 0 <= float(row["j"]) <= 1
        labels = ("rewritten", "copy_rate", "sentinel", "empty", "repeated")
        assert sum(float(row[label]) for label in labels) == pytest.approx(1)
        assert (float(row["trained_share"]) == 1) == (row["mask_strategy"] == "none")


def test_the_record_and_the_export_hold_what_a_user_needs(plain_run: Path) -> None:
    record, best = read(plain_run / "search.json"), plain_run / "best"
    assert sum(split["pairs"] for split in record["data"].values()) == PAIRS
    assert record["search"]["steps"] == STEPS
    assert record["space"]["gamma"]["zero_or"] == [0.1, 1.0]
    assert record["versions"]["ray"]
    assert record["wall_seconds"] > 0
    metrics = read(best / "metrics.json")
    assert record["winner"] == metrics["trial"]
    assert list(metrics["test"]) == ["tuned", "base", "delete", "copy", "reference"]
    for system, scores in metrics["test"].items():
        for name in ("j", "copy_rate"):
            low, high = metrics["intervals"][system][name]
            assert low <= scores[name] <= high
    assert metrics["test"]["copy"]["exact_copy_rate"] == 1
    with (best / "samples.tsv").open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file, delimiter="\t"))
    assert len(samples) == record["data"]["test"]["pairs"]
    assert all(sample["source"] and sample["reference"] for sample in samples)
    card = (best / "README.md").read_text(encoding="utf-8")
    assert ModelCard(card).data.to_dict()["language"] == ["en"]
    assert f"| tuned | {metrics['test']['tuned']['j']:.3f} |" in card
    # what may be published names no path of this machine
    assert "base_model:" not in card
    assert "`, a folder that is not on the Hugging Face hub" in card
    assert str(plain_run.parents[1]) not in card + json.dumps(metrics)
    umask = os.umask(0)
    os.umask(umask)
    for path in (plain_run, *plain_run.rglob("*")):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.is_symlink() or path.stat().st_mode & 0o777 == wanted, path


def test_what_is_printed_is_only_what_matters(folder: Path, plain_run: Path) -> None:
    lines = (folder / "plain.log").read_text(encoding="utf-8").splitlines()
    printed = [line for line in lines if line.strip()]
    assert printed[0].startswith("pairs: ")
    assert f"training examples are longer than max_tokens={MAX_TOKENS}" in printed[1]
    # On a slow machine lines of progress stand between them.
    assert [line[:5] for line in printed if line.startswith("[")] == ["[1/2]", "[2/2]"]
    assert any(line.startswith("winner: trial_00") for line in printed)
    assert len(printed) < 30
    assert not any("Warning" in line or "\x1b" in line for line in printed)


def test_the_adapter_read_from_disk_scores_as_reported(
    folder: Path, plain_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    record = read(plain_run / "search.json")
    config = validated(SearchConfig, record["search"], "search.json")
    task = build_task(config, load_corpus(config), "base", task_prefixes=["detoxify: "])
    adapter = load_adapter(plain_run / "best")
    assert isinstance(adapter.model, PeftModel)
    metrics = read(plain_run / "best" / "metrics.json")

    # what was reported while it trained is on the cut base, what is exported on the full one
    sources = [pair.source for pair in task.validation]
    base = adapter.model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    assert base.config.vocab_size == metrics["vocabulary"]["of"]
    assert metrics["vocabulary"]["kept"] == len(task.vocabulary.kept) < metrics["vocabulary"]["of"]
    cut_vocabulary(base, task.vocabulary)
    on_cut = rewrite(
        adapter.model,
        CutTokenizer(adapter.tokenizer, task.vocabulary),
        sources,
        task_prefix=adapter.task_prefix,
        max_tokens=adapter.max_tokens,
    )
    found = task.mean_scores(on_cut, task.validation, adapter.task_prefix)
    sample, whole = metrics["validation"]["sample"], metrics["validation"]["whole"]
    assert sample.pop("step") in range(EVERY, STEPS + 1, EVERY)
    best = {row["trial"]: row for row in rows(plain_run)}
    assert sample["j"] == pytest.approx(float(best[metrics["trial"]]["j"]))
    assert whole == pytest.approx(found)  # the sample is the whole split here
    averaged = metrics["averaged_checkpoints"]
    chosen = (record["winner"], averaged)
    [finalist] = [one for one in record["finalists"] if (one["trial"], one["averaged"]) == chosen]
    assert finalist["whole"]["j"] == whole["j"]


def test_the_adapter_rewrites_from_the_command_line(plain_run: Path) -> None:
    texts = ["shut up and listen.", "the damn bus was late."]
    piped = subprocess.run(
        [sys.executable, "-m", "detox_tune.rewrite", str(plain_run / "best")],
        input="\n".join(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stdout.splitlines() == [
        rewritten.text for rewritten in load_adapter(plain_run / "best").rewrite(texts)
    ]
    # So few steps teach no end: what a terminal shows besides is that answers were cut off.
    *cut, left = piped.stderr.splitlines()
    assert all("cut off at 28 tokens" in line for line in cut)
    # the run's own lexicon was there, and its only language known
    assert re.fullmatch(r"\d of 2 outputs are still a copy, \d still hold a toxic word", left)


def test_a_dry_run_shows_settings_and_trials_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")  # data and base are not there
    code = "import sys; from detox_tune.search import main; main(); print('torch' in sys.modules)"
    *shown, loaded_torch = subprocess.run(
        [sys.executable, "-c", code, "space.yaml", "--dry-run", "--steps", "48"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "  steps: 48" in shown
    assert "  gamma: {'zero_or': (0.1, 1.0)}" in shown
    assert shown[-3] == "first 2 trials (before any result is known)"
    assert shown[-1].startswith("  trial_002: ")
    assert loaded_torch == "False"  # it answers within seconds
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
