"""What the tests of executors have done with torch, in processes that are born with it."""

import os
import random
from pathlib import Path

import numpy as np
import torch

from dptrain.executor import worker


def compute(root: Path, label: str) -> None:
    """A product that is worth several threads; writes how many there are and were, what came out, and what chance gives."""
    before = len(os.listdir("/proc/self/task"))
    torch.manual_seed(0)
    values = torch.randn(2000, 2000)
    total = float((values @ values).tanh().sum())
    beside = float(np.abs(np.ones((1500, 1500)) @ np.ones((1500, 1500))).sum())
    after = len(os.listdir("/proc/self/task"))
    chance = [random.getrandbits(64), np.random.randint(2**31)]  # noqa: NPY002  the global one
    (root / f"{label}.txt").write_text(repr((os.getppid(), before, after, torch.get_num_threads(), total, beside, chance)))


def warm() -> None:
    """The nursery has one thread, also behind this."""
    assert len(os.listdir("/proc/self/task")) == 1


if __name__ == "__main__":
    worker.serve(compute, warm=warm)
