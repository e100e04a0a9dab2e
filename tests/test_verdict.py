"""benchmarks/verdict: experiments, other losses, and what a comparison says."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import verdict_arms as run
import verdict_page as page
from transformers import PreTrainedModel, TrainingArguments
from verdict import arm as arm_module
from verdict.analysis import Effect, effect, steering
from verdict.claims import COMPARISONS, Comparison
from verdict.experiment import read_experiment
from verdict.remedies import copied_on, plain_trainer, probability_penalty

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.model.base import load_base
from detox_tune.training.losses import toxic_penalty

SHIPPED = sorted(run.FOLDER.glob("*.yaml"))
SMALL = """
search:
  {quantization: none, steps: 4, eval_every: 2, validation_pairs: 6, min_purity: 0.7}
seeds: [0]
trial: {lora: all, lora_r: 4, mask_strategy: none, learning_rate: 1.0e-3, batch_size: 4}
arms:
  - {lora: [first, all]}
  - {remedy: [probability, orpo], gamma: 1.0}
  - {pairs: 20, steps: 2}
"""


def write_experiment(folder: Path, text: str) -> Path:
    file = folder / "small.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_lists_are_crossed_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    arms = """
  - {lora: [first, all], gamma: [0.0, 1.0]}
  - {lora: all}
  - {mask_strategy: toxic_context, context_window: [2, 3]}
  - {mask_strategy: toxic_context}
"""
    text = f"search: {{}}\nseeds: [0, 1]\ntrial: {{lora: all, lora_r: 4, gamma: 0.0}}\narms:{arms}"
    experiment = read_experiment(write_experiment(tmp_path, text))
    assert [arm.name for arm in experiment.arms] == [
        *("lora=first", "gamma=1 lora=first", "default", "gamma=1"),
        *(f"context_window={n} mask_strategy=toxic_context" for n in (2, 3)),
    ]
    first = experiment.arms[0].trial
    assert first.lora_r is None  # nothing reads it with lora `first`


def test_an_unknown_remedy_is_refused(tmp_path: Path) -> None:
    text = "search: {}\nseeds: [0]\ntrial: {}\narms:\n  - {remedy: prayer}\n"
    with pytest.raises(UserError, match="remedy='prayer' must be one of probability, unlike"):
        read_experiment(write_experiment(tmp_path, text))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_each_arm_of_a_claim_is_trained(file: Path) -> None:
    experiment = read_experiment(file)
    names = {f"{file.stem}/{arm.name}" for arm in experiment.arms}
    asked = {arm for one in COMPARISONS for arm in (one.arm, one.against) if arm}
    assert {arm for arm in asked if arm.startswith(f"{file.stem}/")} <= names
    assert len(experiment.seeds) >= 3


def test_where_copying_on_is_wrong() -> None:
    deletion = copied_on([5, 6, 7, 1], [5, 7, 1])
    assert deletion == [-100, 6, -100]
    replacement = copied_on([5, 6, 7, 1], [5, 8, 9, 7, 1])
    assert replacement == [-100, 6, -100, -100, -100]
    assert copied_on([5, 6, 1], [5, 6, 1]) == [-100] * 3


def test_the_penalty_on_probabilities() -> None:
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    scored = torch.tensor([[True, False, True], [False, True, False]])
    expected = sum(logits[b, t].softmax(0)[[1, 4]].sum() for b, t in ((0, 0), (0, 2), (1, 1)))
    found = probability_penalty(logits, scored, torch.tensor([1, 4]), count=3)
    torch.testing.assert_close(found, expected / 3)


@pytest.mark.parametrize("p_toxic", [0.01, 0.5, 0.99])
def test_the_slopes_of_both_penalties_in_the_log_odds(p_toxic: float) -> None:
    slopes: list[torch.Tensor] = []
    for penalty in (toxic_penalty, probability_penalty):
        log_odds = torch.tensor(p_toxic).logit().requires_grad_()
        logits = torch.stack([log_odds, torch.zeros(())]).reshape(1, 1, 2)
        loss = penalty(logits, torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]), count=1)
        slopes += torch.autograd.grad(loss, log_odds)
    expected = torch.tensor([p_toxic, p_toxic * (1 - p_toxic)])
    torch.testing.assert_close(torch.stack(slopes), expected)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    return load_base(str(tiny_base), quantization="none", device="cpu")[0].eval()


def log_p(model: Any, asked: list[int], labels: list[int]) -> torch.Tensor:
    """Log probability of each label, [t], without a batch."""
    logits = model(input_ids=torch.tensor([asked]), labels=torch.tensor([labels])).logits[0]
    return logits.log_softmax(-1)


ROWS = [
    {"input_ids": [9, 20, 21, 22, 1], "source_ids": [20, 21, 22, 1], "labels": [20, 22, 1]},
    {"input_ids": [9, 30, 31, 1], "source_ids": [30, 31, 1], "labels": [30, 33, 34, 1]},
]


def loss(remedy: str, model: Any, folder: Path) -> torch.Tensor:
    arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    trainer = plain_trainer(remedy, model, arguments, ROWS)
    found = trainer.compute_loss(model, trainer.data_collator(ROWS))
    assert isinstance(found, torch.Tensor)
    return found


def cross_entropy(model: Any) -> torch.Tensor:
    each = [
        -log_p(model, r["input_ids"], r["labels"])[range(len(r["labels"])), r["labels"]]
        for r in ROWS
    ]
    return torch.cat(each).mean()


def test_unlikelihood(model: PreTrainedModel, tmp_path: Path) -> None:
    negative = []
    for row, (position, token) in zip(ROWS, ((1, 21), (1, 31)), strict=True):
        p = log_p(model, row["input_ids"], row["labels"])[position, token].exp()
        negative.append(-torch.log(1 - p))
    expected = cross_entropy(model) + torch.stack(negative).mean()
    torch.testing.assert_close(loss("unlikelihood", model, tmp_path), expected)


def test_orpo(model: PreTrainedModel, tmp_path: Path) -> None:
    def log_odds(asked: list[int], labels: list[int]) -> torch.Tensor:
        p = log_p(model, asked, labels)[range(len(labels)), labels].mean().exp()
        return torch.log(p / (1 - p))

    ratios = [
        log_odds(row["input_ids"], row["labels"]) - log_odds(row["input_ids"], row["source_ids"])
        for row in ROWS
    ]
    expected = cross_entropy(model) - torch.stack(ratios).sigmoid().log().mean()
    torch.testing.assert_close(loss("orpo", model, tmp_path), expected)


def test_what_an_answer_keeps_and_drops() -> None:
    pair = Pair("You are a damn fool , man", ("You are wrong , man", "You are no fool man"), "en")
    assert arm_module.kept("you were here man", pair) == pytest.approx(2 / 3)  # you, are, man
    lexicon = Lexicon({"en": ["damn"]})
    assert arm_module.dropped_toxic("you are a fool", pair, lexicon) == 0.5  # damn, man
    assert math.isnan(arm_module.dropped_toxic(pair.source, pair, lexicon))


@pytest.mark.slow
def test_an_experiment_goes_on_where_it_was_stopped(
    tmp_path: Path, tiny_base: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    (tmp_path / "en.txt").write_text("damn\nidiot\nstupid\nfool\n", encoding="utf-8")
    write_experiment(tmp_path, SMALL.replace("remedy: [probability, orpo]", "remedy: orpo"))
    flags = ["small", "--data", str(pairs_file), "--lexicon", str(tmp_path), "--workers", "1"]
    flags += ["--base-model", str(tiny_base), "--out", str(tmp_path / "out"), "--test-pairs", "5"]
    assert run.main(flags) == 0
    first = rows(tmp_path / "out" / "small.csv")
    write_experiment(tmp_path, SMALL)
    assert run.main(flags) == 0
    both = rows(tmp_path / "out" / "small.csv")
    assert both[: len(first)] == first
    assert [row["arm"] for row in both[len(first) :]] == ["gamma=1 remedy=probability"] * 3
    assert [(row["split"], row["step"]) for row in both[:3]] == [
        ("validation", "2"),
        ("validation", "4"),
        ("test", "4"),
    ]
    sentences = rows(tmp_path / "out" / "small_sentences.csv")
    for row in both:
        if row["split"] == "test":
            (values,) = (
                one["values"]
                for one in sentences
                if (one["arm"], one["score"]) == (row["arm"], "j")
            )
            assert float(row["j"]) == pytest.approx(
                np.mean([*map(float, values.split())]), abs=1e-3
            )


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_difference_is_paired() -> None:
    """Two arms whose sentences differ far more from one another than the arms do."""
    rng = np.random.default_rng(0)
    base = {seed: rng.uniform(0, 1, 300) for seed in (0, 1)}
    sentences = {
        ("a", "j"): {seed: values + rng.normal(0.02, 0.01, 300) for seed, values in base.items()},
        ("b", "j"): base,
    }
    comparison = Comparison(4, "a", "j", "above", against="b")
    found = effect(comparison, pd.DataFrame(), sentences)
    assert found is not None
    assert 0.018 < found.low < found.value < found.high < 0.022
    assert (found.n, found.seeds) == (600, 2)
    assert effect(Comparison(4, "a", "j", "above", against="c"), pd.DataFrame(), sentences) is None


def test_a_difference_in_one_language() -> None:
    sentences = {
        ("a", "language"): {0: np.array(["de", "en", "de"])},
        ("a", "j"): {0: np.array([0.5, 0.9, 0.7])},
        ("b", "j"): {0: np.array([0.4, 0.1, 0.6])},
    }
    german = Comparison(7, "a", "j", "above", against="b", language="de")
    found = effect(german, pd.DataFrame(), sentences)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert found.n == 2


@pytest.mark.parametrize(
    ("side", "low", "high", "verdict"),
    [
        ("above", 0.91, 0.95, "holds"),
        ("above", 0.85, 0.95, "open"),
        ("above", 0.80, 0.89, "does not hold"),
        ("below", 0.80, 0.89, "holds"),
        ("below", 0.91, 0.95, "does not hold"),
    ],
)
def test_verdicts(side: Any, low: float, high: float, verdict: str) -> None:
    comparison = Comparison(1, "a", "copy_rate", side, 0.9)
    assert Effect((low + high) / 2, low, high, 10, 1).verdict(comparison) == verdict
    assert Effect((low + high) / 2, low, high, 2, 2).verdict(comparison) == "open"


def test_ratios_are_of_curves() -> None:
    def curve(arm: str, js: list[float]) -> list[dict[str, Any]]:
        of_arm = {"arm": arm, "seed": 0, "split": "validation"}
        return [{**of_arm, "step": 10 * n, "j": j} for n, j in enumerate(js, 1)]

    reports = pd.DataFrame([*curve("a", [0.1, 0.39, 0.4]), *curve("b", [0.1, 0.2, 0.4])])
    steps = effect(Comparison(6, "a", "steps_to_95", "below", 1.0, "b"), reports, {})
    assert steps is not None
    assert steps.value == pytest.approx(20 / 30)


def test_what_to_steer_by() -> None:
    """After a fifth of the steps `j` ranks the arms as their end does, and the loss turns it."""
    table = []
    for n in range(8):
        of_arm = {"experiment": "x", "arm": f"x/{n}", "seed": 0, "copy_rate": 0.5}
        early = {"j": n / 10, "train_loss": n / 10, "validation_loss": n / 10}
        early |= {"exact_copy_rate": ((3 * n) % 8) / 8}
        table += [
            {**of_arm, "split": "validation", "step": 20, **early},
            {**of_arm, "split": "validation", "step": 100, **early, "j": 0.5},
            {**of_arm, "split": "test", "step": 100, **early, "j": n / 5},
        ]
    found = steering(pd.DataFrame(table)).set_index("figure")["rho"]
    assert found["j"] == pytest.approx(1)
    assert found["validation_loss"] == pytest.approx(-1)
    assert abs(found["exact_copy_rate"]) < 0.9


def test_the_page_of_what_was_trained(tmp_path: Path) -> None:
    arms = {
        "lora=first": 0.5,
        "default": 0.2,
        "learning_rate=0.01 mask_strategy=toxic_context": 0.1,
    }
    for experiment in ("claims", "collapse"):
        reports, sentences = [], []
        for n, (arm, rate) in enumerate(arms.items()):
            of_arm: dict[str, Any] = dict.fromkeys(run.COLUMNS, 0.1 * n)
            of_arm |= {"arm": arm, "seed": 0, "commit": "abc", "copy_rate": rate}
            for split, step in (("validation", 20), ("validation", 100), ("test", 100)):
                reports.append(of_arm | {"split": split, "step": step})
            copied = " ".join(["1"] * round(100 * rate) + ["0"] * round(100 - 100 * rate))
            sentences.append({"arm": arm, "seed": 0, "score": "copy_rate", "values": copied})
        pd.DataFrame(reports).to_csv(tmp_path / f"{experiment}.csv", index=False)
        pd.DataFrame(sentences).to_csv(tmp_path / f"{experiment}_sentences.csv", index=False)
    (tmp_path / "pruning.csv").write_text("run,trial\npruning_0,1\n", encoding="utf-8")
    assert page.main(["--folder", str(tmp_path)]) == 0
    claims = (tmp_path / "claims.md").read_text(encoding="utf-8")
    copied = "| claims/lora=first | copy_rate | above 0.9 | 0.500 | 0.404 to 0.596 | 100, 1 seed |"
    assert f"{copied} **does not hold** |" in claims
    assert "arms trained at abc." in claims
    assert "| tries/default | copy_rate | above 0.9 | not run |" in claims
    assert "| lora=first | 1 | 0.000 | 0.500 |" in (tmp_path / "arms.md").read_text("utf-8")
    for chart in ("frontier", "loss", "collapse", "pairs_and_base"):
        assert "<svg" in (tmp_path / f"{chart}.svg").read_text(encoding="utf-8")
