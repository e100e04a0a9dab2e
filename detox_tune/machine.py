"""What this process may use of its machine: cores, memory, and threads of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from joblib import cpu_count

_CGROUP = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of cgroup v2 and v1


def cores() -> int:
    """Cores that this process may use: affinity (`taskset`) and cgroup (containers) count."""
    return int(cpu_count())


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in _MEMORY_LIMITS:
        file = _CGROUP / name
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        if text.isdecimal():  # not `max`, which is no limit
            limits.append(int(text))
    return min(limits)


@contextmanager
def threads(at_most: int) -> Iterator[None]:
    """Inside, PyTorch computes with so many threads, or as many as there are cores for."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(at_most, cores())))
    try:
        yield
    finally:
        torch.set_num_threads(before)
