"""The clipped sum of per-example gradients.

* :mod:`~dptrain.clipping.clipped`: the rules by which one example is clipped, and the sum that carries its sensitivity
* :mod:`~dptrain.clipping.engine`: a logical batch in chunks of bounded memory, into one sum
* :mod:`~dptrain.clipping.onepass`: norms and sums from one forward and one backward pass to layer outputs
* :mod:`~dptrain.clipping.rules`: a registry: what each layer's per-example gradients are made of
* :mod:`~dptrain.clipping.contributions`, :mod:`~dptrain.clipping.convolution`: how they are measured and summed
* :mod:`~dptrain.clipping.recurrent` (over :mod:`~dptrain.clipping.cells`), :mod:`~dptrain.clipping.attention`: forwards of
  their own
* :mod:`~dptrain.clipping.choice`: which way is the fastest here
* :mod:`~dptrain.clipping.loose`: parameters that no layer owns
* :mod:`~dptrain.clipping.fallback`: per-example gradients of any other module, by ``torch.func``
"""

from dptrain.clipping.clipped import ClippedSum, Clipping, Counts
from dptrain.clipping.engine import Chunk, Clipper
from dptrain.clipping.rules import register_forward, register_rule

__all__ = ["Chunk", "ClippedSum", "Clipper", "Clipping", "Counts", "register_forward", "register_rule"]
