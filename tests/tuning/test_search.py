"""The command from end to end: real Ray, real processes, one of them killed."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from detox_tune.evaluation.system import evaluate
from peft import PeftModel
from transformers import AutoTokenizer

from detox_tune.config import SearchConfig, validated
from detox_tune.data.embedded import embedded_pairs
from detox_tune.model.base import load_base
from detox_tune.model.vocabulary import CutTokenizer, cut_vocabulary
from detox_tune.tuning.task import build_task, load_corpus

SPACE = """
lexicon: {lexicon}
data: {data}
base_model: {base}
max_tokens: 32
validation_share: 0.1
trials: 2
steps: 36
eval_every: 4
validation_pairs: 12
grace_steps: 36
collapse_grace: 36
max_copy_rate: 1.0
cpus_per_trial: {cpus}
trial:
  learning_rate: {{range: [1.0e-3, 1.0e-2], log: true}}
  lora: {{choice: [first, second]}}
  gamma: {{zero_or: [0.1, 1.0]}}
  mask_strategy: {{choice: [none, toxic_only]}}
  batch_size: 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with a space, pairs and a lexicon."""
    folder = tmp_path_factory.mktemp("search")
    pairs = [pair for pair in embedded_pairs() if pair.language == "en"][:160]
    lines = [
        json.dumps({"toxic": p.source, "neutral": p.references[0], "lang": "en"}) for p in pairs
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "en.txt").write_text("damn\nidiot\nmoron\nshut up\nstupid\n", encoding="utf-8")
    # one trial at a time: only then does a search repeat itself
    space = SPACE.format(
        data=folder / "pairs.jsonl",
        lexicon=folder / "en.txt",
        base=tiny_base,
        cpus=os.cpu_count(),
    )
    (folder / "space.yaml").write_text(space, encoding="utf-8")
    return folder


def start(
    folder: Path, name: str, space: str = "space.yaml", *flags: str
) -> "subprocess.Popen[str]":
    """The command, as a user starts it."""
    arguments = [space, "--name", name, "--out", "runs", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "detox_tune.search", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], Any], driver: "subprocess.Popen[str]") -> Any:
    """What `condition` returns once that is true; fails if the driver ends before."""
    while not (value := condition()):
        try:
            driver.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the search ended early:\n{driver.communicate()[0]}")
    return value


def trial_processes(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Ray's processes that run a trial for this driver."""
    descendants = psutil.Process(driver.pid).children(recursive=True)
    return [process for process in descendants if _title(process).startswith("ray::ImplicitFunc")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def plain_run(folder: Path) -> Path:
    """The results of a search that nothing disturbed."""
    driver = start(folder, "plain")
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    (folder / "plain.log").write_text(output, encoding="utf-8")
    return folder / "runs" / "plain"


@pytest.fixture(scope="module")
def killed_run(folder: Path, plain_run: Path) -> Path:
    """The results of the same search, whose first trial was killed after its first checkpoint."""
    driver = start(folder, "killed")
    run = folder / "runs" / "killed"
    results = run / "ray" / "trial_001" / "result.json"
    # not just its checkpoint: the driver must have heard of it
    wait_until(lambda: results.is_file() and results.read_text(encoding="utf-8"), driver)
    victims = wait_until(lambda: trial_processes(driver), driver)
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pids(run: Path, trial: str) -> set[int]:
    lines = (run / "ray" / trial / "result.json").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["pid"] for line in lines}


def test_a_killed_trial_goes_on_and_ends_with_the_same_numbers(
    plain_run: Path, killed_run: Path
) -> None:
    assert len(pids(plain_run, "trial_001")) == 1
    assert len(pids(killed_run, "trial_001")) == 2  # it really was another process that went on
    undisturbed, continued = rows(plain_run), rows(killed_run)
    for row in (*undisturbed, *continued):
        assert float(row.pop("seconds")) > 0
    assert continued == undisturbed  # with the second trial: a search repeats itself, too


def test_the_exported_adapters_of_both_runs_are_the_same(plain_run: Path, killed_run: Path) -> None:
    for name in ("adapter_model.safetensors", "samples.tsv", "metrics.json"):
        assert (plain_run / "best" / name).read_bytes() == (killed_run / "best" / name).read_bytes()


def test_splits_and_settings_stand_in_search_json(plain_run: Path, killed_run: Path) -> None:
    plain, killed = (
        json.loads((run / "search.json").read_text(encoding="utf-8"))
        for run in (plain_run, killed_run)
    )
    assert plain["data"] == killed["data"]
    assert sum(split["pairs"] for split in plain["data"].values()) == 160
    assert plain["search"]["steps"] == 36
    assert plain["space"]["gamma"]["zero_or"] == [0.1, 1.0]
    assert plain["versions"]["ray"]
    assert plain["wall_seconds"] > 0
    assert plain["winner"] in ("trial_001", "trial_002")


def test_every_trial_has_a_row_with_settings_scores_and_its_end(plain_run: Path) -> None:
    first, second = rows(plain_run)
    assert (first["trial"], second["trial"]) == ("trial_001", "trial_002")
    for row in (first, second):
        assert (row["ended"], row["steps"]) == ("finished", "36")
        assert row["reason"]
        assert int(row["best_step"]) in range(4, 37, 4)
        assert row["mask_strategy"] in ("none", "toxic_only")
        assert 0 <= float(row["j"]) <= 1
        labels = ("rewritten", "copied", "sentinel", "empty", "repeated")
        assert sum(float(row[label]) for label in labels) == pytest.approx(1)
        assert (float(row["trained_share"]) == 1) == (row["mask_strategy"] == "none")


def test_the_adapter_loads_with_plain_peft_and_scores_as_reported(
    folder: Path, plain_run: Path, tiny_base: Path
) -> None:
    metrics = json.loads((plain_run / "best" / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((plain_run / "search.json").read_text(encoding="utf-8"))
    config = validated(SearchConfig, record["search"], "search.json")
    corpus = load_corpus(config)
    task = build_task(config, corpus, str(tiny_base), task_prefixes=["", "detoxify: "])

    base, _ = load_base(str(tiny_base), quantization="nf4")
    model = PeftModel.from_pretrained(base, str(plain_run / "best"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)

    def scores(speaks: Any) -> dict[str, float]:
        return evaluate(
            model,
            speaks,
            task.validation,
            task_prefix=metrics["settings"]["task_prefix"],
            max_tokens=config.max_tokens,
            lexicon=task.lexicon,
            scorers=task.scorers,
        ).summary()

    # what was reported while it trained is on the cut base, what is exported on the full one
    assert scores(tokenizer) == pytest.approx(metrics["validation"]["reloaded"])
    assert task.vocabulary is not None
    cut_vocabulary(base, task.vocabulary)
    reported = metrics["validation"]["reported"]
    on_cut = scores(CutTokenizer(tokenizer, task.vocabulary))
    assert {name: on_cut[name] for name in on_cut if name in reported} == pytest.approx(
        {name: value for name, value in reported.items() if name != "step"}
    )
    assert metrics["vocabulary"]["kept"] == len(task.vocabulary.kept) < metrics["vocabulary"]["of"]


def test_the_plain_path_gives_the_same_trials(folder: Path) -> None:
    exact = "quantization: none\nvocabulary: full\n"  # bfloat16 would round differently
    space = (folder / "space.yaml").read_text(encoding="utf-8").replace("trials: 2", "trials: 1")
    (folder / "exact.yaml").write_text(exact + space, encoding="utf-8")
    found = {}
    for name, flags in (("fast", []), ("stock", ["--no-fast"])):
        driver = start(folder, name, "exact.yaml", *flags)
        output, _ = driver.communicate(timeout=600)
        assert driver.returncode == 0, output
        (row,) = rows(folder / "runs" / name)
        found[name] = {key: value for key, value in row.items() if key not in ("seconds", "reason")}
        record = json.loads((folder / "runs" / name / "search.json").read_text(encoding="utf-8"))
        assert record["search"]["fast"] is (name == "fast")
    assert list(found["fast"]) == list(found["stock"])
    for key, value in found["stock"].items():
        same = found["fast"][key] == value
        assert same or float(found["fast"][key]) == pytest.approx(float(value), abs=1e-4), key
    samples = [(folder / "runs" / n / "best" / "samples.tsv").read_text() for n in found]
    assert samples[0] == samples[1]


def test_the_export_holds_what_a_user_needs(plain_run: Path) -> None:
    best = plain_run / "best"
    metrics = json.loads((best / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["test"]) == ["tuned", "base", "delete", "copy"]
    assert metrics["test"]["copy"]["exact_copy_rate"] == 1
    with (best / "samples.tsv").open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file, delimiter="\t"))
    assert 8 <= len(samples) <= 20
    assert all(sample["source"] and sample["reference"] for sample in samples)
    card = (best / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: peft\n")
    assert f"| tuned | {metrics['test']['tuned']['j']:.3f} |" in card


def test_what_is_printed_is_only_what_matters(folder: Path, plain_run: Path) -> None:
    lines = (folder / "plain.log").read_text(encoding="utf-8").splitlines()
    printed = [line for line in lines if line.strip()]
    assert printed[0].startswith("pairs: ")
    assert "training examples are longer than max_tokens=32" in printed[1]
    assert [line[:5] for line in printed[2:4]] == ["[1/2]", "[2/2]"]
    assert any(line.startswith("winner: trial_00") for line in printed)
    assert len(printed) < 20
    assert not any("Warning" in line or "\x1b" in line for line in printed)


def test_the_adapter_rewrites_from_the_command_line(plain_run: Path) -> None:
    command = [sys.executable, "-m", "detox_tune.rewrite", str(plain_run / "best")]
    texts = ["shut up and listen.", "the damn bus was late."]
    given = subprocess.run([*command, *texts], capture_output=True, text=True, check=True)
    piped = subprocess.run(
        command, input="\n".join(texts), capture_output=True, text=True, check=True
    )
    assert given.stdout == piped.stdout
    assert len(given.stdout.splitlines()) == 2
    assert given.stderr == ""


def test_a_dry_run_shows_settings_trials_and_masks_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    command = [
        sys.executable,
        "-m",
        "detox_tune.search",
        "space.yaml",
        "--dry-run",
        "--steps",
        "48",
    ]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "steps: 48" in shown
    assert "gamma: {'zero_or': (0.1, 1.0)}" in shown
    assert "trial_005: " in shown
    assert "[[" in shown
    assert sorted(folder.rglob("*")) == before
