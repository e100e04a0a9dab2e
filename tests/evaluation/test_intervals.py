import numpy as np
import pandas as pd
import pytest

from detox_tune.evaluation.intervals import bootstrap_mean, mean_intervals


def slow_bootstrap(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """The percentile bootstrap of one score, written out."""
    generator = np.random.default_rng(seed)
    means = [np.nanmean(values[generator.integers(len(values), size=len(values))])
             for _ in range(resamples)]  # fmt: skip
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def test_equals_the_bootstrap_written_out_and_leaves_nan_out() -> None:
    values_nk = np.random.default_rng(0).random((40, 3))
    values_nk[::3, 2] = np.nan
    low, high = bootstrap_mean(values_nk, seed=5, resamples=300)
    assert low.shape == high.shape == (3,)
    for column in range(3):
        expected = slow_bootstrap(values_nk[:, column], seed=5, resamples=300)
        assert (low[column], high[column]) == pytest.approx(expected)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    values_nk = np.random.default_rng(1).random((50, 2))
    whole = bootstrap_mean(values_nk, seed=3)
    monkeypatch.setattr("detox_tune.evaluation.intervals._DRAWS_AT_ONCE", 1700)
    assert np.array(bootstrap_mean(values_nk, seed=3)) == pytest.approx(np.array(whole))


def test_an_interval_of_95_percent_misses_the_mean_in_about_5_of_100_data_sets() -> None:
    generator = np.random.default_rng(2)
    bounds = [bootstrap_mean(generator.random((60, 1)), seed=0) for _ in range(200)]
    missed = sum(not low[0] <= 0.5 <= high[0] for low, high in bounds)
    assert 3 <= missed <= 22


def test_scores_that_no_sample_or_one_sample_has() -> None:
    values_nk = np.array([[1.0, np.nan, np.nan], [0.0, np.nan, 0.25]])
    low, high = bootstrap_mean(values_nk, seed=0)
    assert (low[0], high[0]) == (0.0, 1.0)
    assert np.isnan([low[1], high[1]]).all()
    assert (low[2], high[2]) == (0.25, 0.25)  # resamples without it do not count
    low, high = bootstrap_mean(values_nk[:1], seed=0)
    assert (low[0], high[0]) == (1.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (100, 100), (7, 90), (1, 1)])
def test_shares_have_wilsons_interval_and_other_scores_the_bootstrap(hits: int, n: int) -> None:
    share = np.array([1.0] * hits + [0.0] * (n - hits) + [np.nan] * 3)
    scored = pd.DataFrame({"copy_rate": share, "j": share, "empty": np.nan})
    found = mean_intervals(scored, seed=2)
    # Wilson (1927), written out
    z, p = 1.959963984540054, hits / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found["copy_rate"] == pytest.approx((middle - half, middle + half))
    low, high = bootstrap_mean(share[:, None], seed=2)
    assert found["j"] == (low[0], high[0])
    assert np.isnan(found["empty"]).all()
