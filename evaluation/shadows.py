"""Shadow models, trained when the first attack asks for them, and the same ones behind guards.

    fleets = Fleets(train)
    fleets()                            # trains; a second call gives the same fleet
    fleets.behind(bench)()              # the same models, each behind a guard of its own: nothing is trained again

Where training fails, every attack that asks is told why.
"""

import traceback
from collections.abc import Callable

from dptrain.fleet import Fleet
from evaluation.guarded import Bench


class Fleets:
    """What attacks are handed that need shadow models.

    Args:
        train: None where nothing says how a model is trained.
    """

    def __init__(self, train: Callable[[], Fleet] | None):
        self._train = train
        self._failure: Exception | None = None
        self.trained: Fleet | None = None

    def __call__(self) -> Fleet | None:
        if self._failure is not None:
            raise self._failure
        if self.trained is None and self._train is not None:
            try:
                self.trained = self._train()
            except Exception as error:
                traceback.clear_frames(error.__traceback__)  # half-trained models are not kept for the sake of its text
                self._failure = error
                raise
        return self.trained

    def behind(self, bench: Bench) -> "Fleets":
        """These models behind guards, which are fitted when the first attack asks."""
        if self._train is None:
            return Fleets(None)

        def guarded() -> Fleet:
            bare = self()
            assert bare is not None  # there is something to train them by
            return bench.behind(bare)

        return Fleets(guarded)
