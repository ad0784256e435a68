"""kill -9 anywhere: the run that is resumed ends as if nothing had happened, and its ledger never says less than was spent."""

import subprocess
import sys

import pytest

KILLS = 12
"""One in each area; ``python -m tests.faults.kill_loop --kills 50`` goes on from there."""


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been():
    """In an interpreter of its own: it forks, and torch's engine, which other tests here have used, cannot be forked."""
    command = [sys.executable, "-m", "tests.faults.kill_loop", "--kills", str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{KILLS} of {KILLS} resumed correctly; ledger ≥ truth in all"
    assert sum(" killed " in line for line in done.stdout.splitlines()) == KILLS
