"""What asks a run to stop, or takes its terminal away: a checkpoint is on the disk, and the run goes on from there."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import recipes.cli
from dptrain.checkpoint import load_release
from dptrain.errors import ConfigError
from dptrain.ledger import Ledger
from dptrain.private import PrivateTraining
from evaluation import runner
from evaluation.plan import ATTACKS, EvaluationPlan
from tests.faults.small import STEPS, data, job, train, trainer


def signals_at(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """These signals reach the process while this step is taken."""
    real = PrivateTraining.step

    def stepped(self: PrivateTraining, batch: Any) -> None:
        real(self, batch)
        if self.steps_taken == step:
            for number in numbers:
                signal.raise_signal(number)

    monkeypatch.setattr(PrivateTraining, "step", stepped)


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)],
)
def test_a_wish_to_stop_is_met_at_the_steps_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]):
    """Slurm sends SIGTERM before it kills, and often twice: to the step, and to the script around it."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with monkeypatch.context() as patched:
        signals_at(patched, 3, *numbers)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert load_release(tmp_path / "release")[1]["steps_taken"] == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    train(tmp_path)
    assert [(first, last) for _, first, last in Ledger(tmp_path / "private" / "ledger.jsonl").blocks()] == [(0, 3), (3, STEPS)]


def test_the_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even a checkpoint is written; what was spent is in the ledger."""
    signals_at(monkeypatch, 1, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert not (tmp_path / "release").exists()
    assert [(first, last) for _, first, last in Ledger(tmp_path / "private" / "ledger.jsonl").blocks()] == [(0, 1)]


def test_nohup_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals_at(monkeypatch, 1, signal.SIGHUP)
        train(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert load_release(tmp_path / "release")[1]["steps_taken"] == STEPS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_ended_in_order_outside_of_a_training_too(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """While it attacks, or writes a report: what it has found so far is written, and it says how to go on."""

    def working(arguments: list[str]) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(arguments[0]) from None
        raise ConfigError("it was not heard")

    monkeypatch.setitem(recipes.cli.COMMANDS, "resume", (working, ""))
    assert recipes.cli.main(["resume", "runs/mine"]) == 130
    assert "`dptrain resume runs/mine` goes on" in capsys.readouterr().err
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_terminal_that_is_closed_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real one, whose window is closed after the first step: whatever is written there from then on fails."""
    window, inside = pty.openpty()
    stderr = open(inside, "w")  # noqa: SIM115  it cannot be closed in order: what it holds goes nowhere
    monkeypatch.setattr(sys, "stderr", stderr)
    training = trainer(tmp_path, progress=True)
    training.training.optimizer.register_step_post_hook(
        lambda *_: os.close(window) if training.training.steps_taken == 1 else None
    )
    training.run()
    assert load_release(tmp_path / "release")[1]["steps_taken"] == STEPS


def test_a_pipe_that_nobody_reads_ends_a_listing_in_silence():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "recipes.cli", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_standard_error_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A pipe that is full, since nobody reads it, would hold up whoever writes one more letter."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    monkeypatch.setattr(sys, "stderr", open(write, "w"))  # noqa: SIM115  it cannot be closed in order
    trainer(tmp_path, progress=True).run()
    os.close(read)
    assert load_release(tmp_path / "release")[1]["steps_taken"] == STEPS


class Greedy:
    """An attack for which there is not enough memory."""

    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        raise MemoryError("cannot allocate 80 GB")


def test_an_attack_without_memory_costs_no_other_ones_result(tmp_path: Path):
    if "membership.greedy" not in ATTACKS.names():
        ATTACKS.register("membership.greedy", "for this test")(Greedy)
    plan = EvaluationPlan(attacks=("membership.greedy", "membership.threshold"), shadow_models=4)
    train(tmp_path)
    found = runner.evaluate(tmp_path, data(), plan=plan, recipe=job("dp").recipe, progress=False)
    status = {attack.name: (attack.status, attack.reason) for attack in found.attacks}
    assert status["membership.greedy"] == ("failed", "MemoryError: cannot allocate 80 GB")
    assert status["membership.threshold"][0] == "ok"
