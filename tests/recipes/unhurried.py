"""Commands in processes of their own whose trainings are under way for long enough to be stopped, and say when they are."""

import os
import subprocess
import time
from pathlib import Path

TIMES = """
import time
from pathlib import Path

from dptrain.private import PrivateTraining

step = PrivateTraining.step


def unhurried(self, batch):
    step(self, batch)
    (Path(__file__).parent / "stepped").touch()
    time.sleep({seconds})


PrivateTraining.step = unhurried
"""


def unhurried(folder: Path, seconds: float) -> dict[str, str]:
    """An environment for a command and all processes that it starts: each update takes at least so many seconds."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TIMES.format(seconds=seconds))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def until_stepped(folder: Path, process: "subprocess.Popen[str]", seconds: float = 300) -> None:
    """Until a training in that environment has taken its first update; or the command has ended, which its test will say."""
    end = time.monotonic() + seconds
    while not (folder / "stepped").exists() and process.poll() is None:
        assert time.monotonic() < end, "no update was taken"
        time.sleep(0.05)
