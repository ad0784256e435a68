"""The clipped sum of per-example gradients.

* :mod:`~dptrain.clipping.clipped`: the rule by which one example is clipped, and the sum that carries its sensitivity
* :mod:`~dptrain.clipping.engine`: a logical batch in chunks of bounded memory, into one sum
* :mod:`~dptrain.clipping.onepass`: norms and sums from one forward and one backward pass to layer outputs
* :mod:`~dptrain.clipping.rules`: a registry: how each layer's per-example norm and weighted gradient are computed
* :mod:`~dptrain.clipping.fallback`: per-example gradients of any other module, by ``torch.func``
"""

from dptrain.clipping.clipped import ClippedSum
from dptrain.clipping.engine import Clipper

__all__ = ["ClippedSum", "Clipper"]
