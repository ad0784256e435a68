"""Locks: one holder at a time, who is named; a dead one holds nothing."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dptrain.locking import held

HOLDS = """
import sys, time
from pathlib import Path
from dptrain.locking import held
with held(Path(sys.argv[1]), busy=RuntimeError):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_who_holds_it_and_a_killed_one_holds_nothing(tmp_path: Path):
    path = tmp_path / "folder" / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"process {process.pid} on "), held(path, busy=RuntimeError):
            pass
        process.kill()
    with held(path, busy=RuntimeError):
        assert path.exists()


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path):
    path, order = tmp_path / ".lock", []
    taken = threading.Event()

    def first() -> None:
        with held(path, busy=RuntimeError):
            taken.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    taken.wait()
    with held(path, busy=RuntimeError, wait=30):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_file_of_no_more_use_goes_and_otherwise_stays(tmp_path: Path):
    with held(tmp_path / "kept", busy=RuntimeError):
        pass
    with held(tmp_path / "gone", busy=RuntimeError, remove=lambda: True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
