"""A short run of the fuzzer; the long one is a command of its own (tests/fuzz.py)."""

from tests.fuzz import fuzz


def test_damaged_inputs_are_read_or_refused_in_one_line() -> None:
    counts, faults = fuzz(1500, seed=0)
    assert faults == []
    assert min(counts.values()) >= 3, counts
