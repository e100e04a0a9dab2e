"""Batches of rows of like length, so that little of a batch is padding."""

import random
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from torch.utils.data import Sampler

_SOURCE_COLUMNS = ("input_ids", "attention_mask")
_WINDOW = 16  # batches sorted together: more saves little padding and mixes the rows less


class LikeLengthSampler(Sampler[int]):
    """Shuffles rows every epoch so that each run of `batch_size` indices has rows of like length.

    Unlike transformers' `LengthGroupedSampler`, which goes from long to short again and again, the
    batches come in random order; and an epoch's order depends on seed and epoch alone, so a run
    that continues from a checkpoint meets the batches it would have met.

    Args:
        lengths: one a row, in any unit.
        batch_size: rows of a batch, all parts of an accumulated batch together.
        seed: decides the order, with the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}/{self._epoch}")
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        # Rows that fill no batch go last, as they are: a short batch in between would shift all
        # that follow.
        full = len(order) - len(order) % self._batch_size
        batches: list[list[int]] = []
        window = self._batch_size * _WINDOW
        for start in range(0, full, window):
            near = sorted(order[start : min(start + window, full)], key=self._lengths.__getitem__)
            batches += [
                near[i : i + self._batch_size] for i in range(0, len(near), self._batch_size)
            ]
        rng.shuffle(batches)
        for batch in batches:
            yield from batch
        yield from order[full:]


def parts_of_batch(
    batch: Mapping[str, Tensor], token_budget: int | None
) -> Iterator[dict[str, Tensor]]:
    """The batch in parts of at most `token_budget` padded tokens, or of one row.

    Args:
        batch: of `DetoxCollator`, b rows.
        token_budget: of source and label tokens together; None for no limit.

    Yields:
        Consecutive rows, each part without the columns that only other parts need.
    """
    rows, width = len(batch["labels"]), batch["input_ids"].shape[1] + batch["labels"].shape[1]
    if token_budget is None or rows * width <= token_budget:
        yield dict(batch)
        return
    size = max(1, token_budget // width)
    for start in range(0, rows, size):
        part = {name: values[start : start + size] for name, values in batch.items()}
        source_width = int(part["attention_mask"].sum(1).max())
        label_width = int((part["labels"] != -100).sum(1).max())
        yield {
            name: values[:, : source_width if name in _SOURCE_COLUMNS else label_width]
            for name, values in part.items()
        }
