"""Training curves for the person who trains, as TensorBoard files in a log directory of their own.

    with Telemetry(Path("runs/digits.non_private/eps=08.00/seed=0"), training) as telemetry:
        for batch in training.batches():
            training.step(batch)
            telemetry.write()

They are exact functions of private examples: the guarantee does not cover them. They are worth less than the training, which
goes on where they cannot be written. A resumed training hides what a killed one drew behind its last checkpoint.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dptrain.private import PrivateTraining


class Telemetry:
    """Curves for the person who trains; never part of what is released. Where they cannot be written the training goes on."""

    def __init__(self, folder: Path | None, training: PrivateTraining):
        self._folder = folder
        self._writer: Any = None
        self._training = training
        self._every = max(1, training.plan.steps // 200)
        self._quiet = ExitStack()

    def __enter__(self) -> "Telemetry":
        if self._folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            again = self._training.steps_taken + 1  # from there on, what a killed process drew is drawn no more
            with self._going_on():
                self._quiet.enter_context(quiet_writers())
                self._writer = SummaryWriter(str(self._folder), flush_secs=30, purge_step=again)
        return self

    def write(self) -> None:
        step, latest = self._training.steps_taken, self._training.last_counts
        if self._writer is None or latest is None or (step % self._every and step != 1):
            return
        examples = max(latest.examples, 1)
        with self._going_on():
            self._writer.add_scalar("non_private/training_loss", latest.loss / examples, step)
            self._writer.add_scalar("non_private/clipped_share", latest.clipped / examples, step)
            self._writer.add_scalar("non_private/batch_size", latest.examples, step)
            self._writer.add_scalar("non_private/non_finite_examples", latest.non_finite, step)

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with self._going_on():
                self._writer.close()
        self._quiet.close()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            warnings.warn(
                f"training curves in {self._folder} are not written from here on ({error.strerror or error}); training goes on",
                stacklevel=4,
            )


@contextmanager
def quiet_writers() -> Iterator[None]:
    """TensorBoard writes in threads, which raise to whoever writes next or closes; here they print no traceback beside it."""
    before = threading.excepthook

    def say(raised: threading.ExceptHookArgs) -> None:
        if not (issubclass(raised.exc_type, OSError) and type(raised.thread).__module__.startswith("tensorboard.")):
            before(raised)

    threading.excepthook = say
    try:
        yield
    finally:
        threading.excepthook = before
