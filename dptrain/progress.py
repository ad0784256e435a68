"""What a long piece of work says of itself while it goes on, to whoever listens in this process; where nobody does, nothing.

    with listening(print):
        trainer.run()                          # says Told("training", 3, 60) after its third step

It is for showing alone: nothing that is said decides anything, and nothing of it is released.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """What is going on."""

    phase: str
    """Such as ``training``, or the attack that runs."""
    step: int = 0
    steps: int = 0
    """0 where nothing is counted."""
    epsilon: Callable[[], float] | None = None
    """What was spent until now, which takes a while to compute; None where nothing is promised."""


Listener = Callable[[Told], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """For the block, the listener is told; one that listened before waits."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def say(phase: str, step: int = 0, steps: int = 0, epsilon: Callable[[], float] | None = None) -> None:
    """Tells whoever listens."""
    if _listeners:
        _listeners[-1](Told(phase, step, steps, epsilon))
