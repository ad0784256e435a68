"""What the tests of executors have done: jobs that succeed, break, die, and wait for an interrupt."""

import os
import signal
import time
from pathlib import Path

from dptrain.errors import ConfigError
from dptrain.executor import worker
from dptrain.progress import say


def do(root: Path, label: str) -> None:
    """By its label: ``done…``, ``breaks…``, ``refused…``, ``dies…`` or ``waits…``, with a file for each time it is begun."""
    label, begun = label.replace("/", "_"), root / "begun"
    begun.mkdir(exist_ok=True)
    (begun / f"{label}.{os.getpid()}").touch()
    if label.startswith("breaks"):
        raise RuntimeError("it broke")
    if label.startswith("refused"):
        raise ConfigError("this is not accepted; type that")
    if label.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if label.startswith("waits"):
        try:
            for step in range(600):
                say("training", step, 600)
                (root / f"{label}.waits").touch()
                time.sleep(0.1)
        except KeyboardInterrupt:
            time.sleep(0.2)  # as long as a step and a checkpoint take
            (root / f"{label}.checkpoint").touch()
            raise
    if label.startswith("deaf"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        (root / f"{label}.waits").touch()
        time.sleep(600)
    (root / f"{label}.threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))


if __name__ == "__main__":
    worker.serve(do)
