"""A module that starts a thread when it is imported: processes that have it must not be forked."""

import os
import threading
import time
from pathlib import Path

from dptrain.executor import worker

threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def compute(root: Path, label: str) -> None:
    """Writes how many threads there are."""
    (root / f"{label}.txt").write_text(str(len(os.listdir("/proc/self/task"))))


if __name__ == "__main__":
    worker.serve(compute)
