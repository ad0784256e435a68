"""Release with care: what a prediction may show.

* ``guard.py``: :class:`Guard`, what stands between a model's outputs and whoever asks; label only
* ``memguard.py``: scores that are disguised against membership attacks
"""

from dptrain.release.guard import Guard, LabelOnly, fitted

__all__ = ["Guard", "LabelOnly", "fitted"]
