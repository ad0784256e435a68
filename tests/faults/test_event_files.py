"""TensorBoard's files are read by TensorBoard alone: whatever is wrong with one stops neither a training nor a report."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from dptrain.checkpoint import load_release
from evaluation.report import tensorboard
from tests.evaluation.report_fixture import THRESHOLD, synthetic
from tests.faults.small import STEPS, cut, train, trainer

LOSS = "non_private/training_loss"


def halved(content: bytes) -> bytes:
    return content[: 2 * len(content) // 3]


def flipped(content: bytes) -> bytes:
    middle = 2 * len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


def steps_in(path: Path) -> list[int]:
    return [event.step for event in EventFileLoader(str(path)).Load() if any(v.tag == LOSS for v in event.summary.value)]


@pytest.mark.parametrize("damage", [halved, flipped, emptied])
def test_a_damaged_file_of_curves_stops_no_resume(tmp_path: Path, damage: Callable[[bytes], bytes]):
    run, curves = tmp_path / "run", tmp_path / "curves"
    cut(run, telemetry=curves)
    [first] = curves.iterdir()
    whole = steps_in(first)
    first.write_bytes(damage(first.read_bytes()))
    left = first.read_bytes()
    foreign = curves / "events.out.tfevents.1.elsewhere.1.0"
    foreign.write_bytes(b"somebody else's")
    train(run, telemetry=curves)
    assert load_release(run / "release")[1]["steps_taken"] == STEPS
    assert first.read_bytes() == left
    assert foreign.read_bytes() == b"somebody else's"
    assert len(steps_in(first)) < len(whole)  # what is damaged is not read as if it were whole
    [second] = set(curves.iterdir()) - {first, foreign}
    assert steps_in(second) == [3, 4]


def test_a_killed_and_a_resumed_process_draw_each_step_once(tmp_path: Path):
    """The killed one drew a step behind its last checkpoint, which the resumed one takes again."""
    run, curves = tmp_path / "run", tmp_path / "curves"
    killed = trainer(run, telemetry=curves)
    killed.training.optimizer.register_step_post_hook(lambda *_: _stop_at(killed.training.steps_taken, 4))
    with pytest.raises(SystemExit):
        killed.run()
    train(run, telemetry=curves)
    assert sorted(step for path in curves.iterdir() for step in steps_in(path)) == [1, 2, 3, 3, 4]
    drawn = EventAccumulator(str(curves)).Reload().Scalars(LOSS)
    assert [event.step for event in drawn] == [1, 2, 3, 4]


def _stop_at(taken: int, step: int) -> None:
    if taken == step:
        raise SystemExit


def test_a_report_replaces_its_own_files_alone(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(8.0,), seeds=(0,), variants=(), attacks=(THRESHOLD,), broken=False)
    tensorboard.write(result, tmp_path)
    folder = tmp_path / "tradeoff"
    [own] = folder.glob("*.dptrain")
    own.write_bytes(flipped(own.read_bytes()))
    foreign = folder / "events.out.tfevents.1.elsewhere.1.0"
    foreign.write_bytes(b"somebody else's")
    tensorboard.write(result, tmp_path)
    [again] = folder.glob("*.dptrain")
    assert foreign.read_bytes() == b"somebody else's"
    assert len(list(EventFileLoader(str(again)).Load())) > 10
