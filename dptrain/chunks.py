"""A logical batch cut into physical chunks of bounded memory: whole groups of rows, filled to equal sizes.

    for chunk in chunks_of(positions, offsets, examples, rows=1024, views=4, augment=shift):
        total += ...                     # a dptrain.clipping.Chunk

A group is what is clipped as one: an example, its augmented views, or all that was drawn of one user. Groups of a chunk have
as many rows as its largest; the others repeat rows of their own, with a weight of 0, and the weights of each group sum to 1:
its gradient is the mean over its members (for views: De et al. 2022, "Unlocking High-Accuracy Differentially Private Image
Classification through Scale"). How the batch is cut changes speed and memory alone.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dptrain.clipping import Chunk
from dptrain.data.examples import Examples

Augment = Callable[[Any], Any]
"""Collated rows to as many collated rows, each changed by itself."""


def chunks_of(
    positions: np.ndarray,
    offsets: np.ndarray | None,
    examples: Examples,
    *,
    rows: int,
    views: int = 1,
    augment: Augment | None = None,
    filled: bool = False,
) -> Iterator[Chunk]:
    """The chunks of one batch; an empty batch has none.

    Args:
        positions: of its examples.
        offsets: where each group begins among them, and the end; left out, each example is its own group.
        rows: the most rows of a chunk, which a single group may exceed.
        views: how often each example is taken.
        filled: fill the last chunk, too, so that all are of one size where groups are.
    """
    if offsets is None:
        groups = [positions[i : i + 1] for i in range(len(positions))] if views > 1 else None
        if groups is None:
            yield from _single(positions, examples, rows, augment, filled)
            return
    else:
        groups = [positions[a:b] for a, b in itertools.pairwise(offsets)]
        groups.sort(key=len, reverse=True)  # like to like: little is filled
    start = 0
    while start < len(groups):
        size = len(groups[start]) * views
        count = max(1, rows // size)
        yield _chunk(groups[start : start + count], size, views, count if filled else 0, examples, augment)
        start += count


def _single(positions: np.ndarray, examples: Examples, rows: int, augment: Augment | None, filled: bool) -> Iterator[Chunk]:
    """The common case: every row is an example."""
    for start in range(0, len(positions), rows):
        taken, real = positions[start : start + rows], None
        if filled and len(taken) < rows:
            real = torch.arange(rows) < len(taken)
            taken = np.concatenate([taken, np.repeat(taken[:1], rows - len(taken))])
        batch = examples.take(taken)
        yield Chunk(batch if augment is None else augment(batch), real=real)


def _chunk(groups: list[np.ndarray], size: int, views: int, count: int, examples: Examples, augment: Augment | None) -> Chunk:
    """``size`` rows a group; ``count`` groups, of which some may only fill the chunk."""
    taken, weights = [], []
    for members in groups:
        own = np.repeat(members, views)
        taken.append(np.resize(own, size))  # repeats what is there
        weights.append(np.where(np.arange(size) < len(own), 1 / len(own), 0.0))
    real = None
    if count > len(groups):
        real = torch.arange(count) < len(groups)
        missing = count - len(groups)
        taken += [taken[0]] * missing
        weights += [weights[0]] * missing
    batch = examples.take(np.concatenate(taken))
    weight = torch.from_numpy(np.concatenate(weights))
    return Chunk(batch if augment is None else augment(batch), group=size, weights=weight, real=real)
