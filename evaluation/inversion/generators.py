"""What public examples teach about how an input looks: what every generator is, and the linear one.

    generator = linear(public, groups, components=300, temper=0.1)    # the same examples give the same object, fitted once
    generator.decode(latent)                                          # [n, *input_shape]
    generator.draw(n, random)                                         # latent vectors of examples as public ones are

Nonlinear ones are in :mod:`~evaluation.inversion.variational` and :mod:`~evaluation.inversion.adversarial`.

Principal components (Turk and Pentland 1991, "Eigenfaces for Recognition") with a Gaussian latent. With the mean μ of the
public examples, the components V and their standard deviations S, a latent vector z gives

    g(z) = μ + V Sᵗ z,        a public example has z ~ N(0, S²⁻²ᵗ).

The temper t is where an attack looks: the gradient of a function h of the input, taken in z and carried back to the input,
is V S²ᵗ Vᵀ ∇h. At t = 1 it is multiplied by the public covariance, which is right where the model has whitened its inputs;
weights that gradient descent has made are sums of training examples and have most of that covariance in them already.

Few examples span few directions. Public images are also shown moved by one pixel, which multiplies them by nine: 200 faces
of 20 people then leave less of another person's mean face outside the span.

A person is not the average person. The shell is the set of latent vectors whose g(z) is as far from μ as the mean of a
public person is from the mean of the other ones, root mean squared over people; where nobody says who is who, as a public
example is from the mean.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dptrain.errors import DataError

MOST_EXAMPLES = 1000
"""Public examples that the components are taken from."""
LEAST_SIDE = 16
"""Of an image that is also shown moved."""
KEPT = 8
"""Generators that are remembered."""


@runtime_checkable
class Generator(Protocol):
    """Latent vectors to inputs like public ones."""

    @property
    def dimensions(self) -> int:
        """Of the latent space."""
        ...

    def decode(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n ..."]:
        """Inputs ``[n, *input_shape]``; they may leave the bounds."""
        ...

    def draw(self, count: int, random: torch.Generator) -> Float[Tensor, "count latent"]:
        """Latent vectors as those of public examples."""
        ...

    def pull(self, latent: Float[Tensor, "n latent"], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n latent"]:
        """The derivative with respect to the input ``decode(latent)``, as one with respect to the latent vector: Jᵀ∇."""
        ...

    def on_shell(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """The same directions, as far from the middle of the generator as a person is."""
        ...


@dataclass(frozen=True, eq=False)
class LinearGenerator:
    """μ + V Sᵗ z."""

    mean: Float[Tensor, " inputs"]
    components: Float[Tensor, "inputs latent"]
    spread: Float[Tensor, " latent"]
    """S, the standard deviation of the public examples along each component."""
    radius: float
    """Of the shell: a root mean squared difference from the mean, in units of the input."""
    temper: float
    input_shape: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """Of the latent space."""
        return len(self.spread)

    def decode(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n ..."]:
        """Inputs ``[n, *input_shape]``; they may leave the bounds."""
        return (self.mean + (latent * self.spread**self.temper) @ self.components.T).view(-1, *self.input_shape)

    def draw(self, count: int, random: torch.Generator) -> Float[Tensor, "count latent"]:
        """Latent vectors as those of public examples."""
        return self.spread ** (1 - self.temper) * torch.randn(count, len(self.spread), generator=random)

    def pull(self, latent: Float[Tensor, "n latent"], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n latent"]:
        """A derivative with respect to the input, as one with respect to the latent vector, wherever that is."""
        return (gradient.flatten(1) @ self.components) * self.spread**self.temper

    def on_shell(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """The same directions, as far from the mean as a person is."""
        apart = (latent * self.spread**self.temper).norm(dim=1, keepdim=True).clamp_min(1e-12)
        return latent * (self.radius * len(self.mean) ** 0.5 / apart)


_FITTED: "OrderedDict[tuple[object, ...], Any]" = OrderedDict()
Fitted = TypeVar("Fitted")


def fitted_once(key: tuple[object, ...], fit: Callable[[], Fitted]) -> Fitted:
    """What ``fit`` gives; for a key that is remembered, what it gave before."""
    if key not in _FITTED:
        _FITTED[key] = fit()
        while len(_FITTED) > KEPT:
            _FITTED.popitem(last=False)
    return _FITTED[key]


def linear(public: Tensor, groups: Tensor | None, *, components: int, temper: float) -> LinearGenerator:
    """The linear generator of public examples; fitted once for the same examples and settings.

    Args:
        public: ``[examples, *input_shape]``.
        groups: who each example shows, or None.
        components: how many directions are kept, at most.

    Raises:
        DataError: there are fewer than two public examples.
    """
    check_public(public)
    key = ("linear", fingerprint(public, groups), components, temper)
    return fitted_once(key, lambda: _fit(public, groups, components, temper))


def check_public(public: Tensor) -> None:
    """Raises DataError where there are fewer than two public examples."""
    if len(public) < 2:
        raise DataError(
            f"an inversion with a prior learns it from public examples and was given {len(public)}; "
            "give at least 2: raise data.split.public"
        )


def fingerprint(public: Tensor, groups: Tensor | None) -> str:
    """A hash of public examples, their shape and who they show."""
    content = hashlib.sha256()
    for part in (public, groups):
        content.update(b"none" if part is None else f"{part.dtype}{tuple(part.shape)}".encode())
        if part is not None:
            content.update(part.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _fit(public: Tensor, groups: Tensor | None, components: int, temper: float) -> LinearGenerator:
    examples = moved(thinned(public)).flatten(1).double()
    mean = examples.mean(0)
    directions, spread = principal(examples - mean)
    kept = spread[:components] > 1e-6 * spread[0].clamp_min(1e-12)
    return LinearGenerator(
        mean.float(),
        directions[:, :components][:, kept].float(),
        spread[:components][kept].float(),
        person_distance(public, groups),
        temper,
        tuple(public.shape[1:]),
    )


def thinned(public: Tensor) -> Tensor:
    """Public examples, at most :data:`MOST_EXAMPLES`, evenly taken."""
    return public.float()[:: math.ceil(len(public) / MOST_EXAMPLES)]


def principal(
    centred: Float[Tensor, "examples inputs"],
) -> tuple[Float[Tensor, "inputs components"], Float[Tensor, " components"]]:
    """Orthonormal directions and the standard deviation along each, the largest first."""
    examples, inputs = centred.shape
    if inputs <= examples:
        values, vectors = torch.linalg.eigh(centred.T @ centred / examples)
        return vectors.flip(1), values.flip(0).clamp_min(0).sqrt()
    values, vectors = torch.linalg.eigh(centred @ centred.T / examples)
    spread = values.flip(0).clamp_min(0).sqrt()
    return centred.T @ vectors.flip(1) / (spread * examples**0.5).clamp_min(1e-12), spread


def moved(images: Tensor) -> Tensor:
    """The images and what they are when moved by one pixel in each of eight directions; other inputs as they are."""
    if images.dim() != 4 or min(images.shape[2:]) < LEAST_SIDE:
        return images
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return torch.cat([padded[..., down : down + height, right : right + width] for down in range(3) for right in range(3)])


def mirrored(images: Tensor) -> Tensor:
    """The images and their mirror images; other inputs as they are."""
    return torch.cat([images, images.flip(-1)]) if images.dim() == 4 else images


def person_distance(public: Tensor, groups: Tensor | None) -> float:
    """How far the mean of a public person is from the mean of the other people; without people, an example from the mean."""
    flat = public.flatten(1).double()
    people = [] if groups is None else [flat[groups == person].mean(0) for person in groups.unique()]
    means = torch.stack(people) if len(people) > 1 else flat
    apart = (means - means.mean(0)) * len(means) / (len(means) - 1)  # from the mean of the others
    return float(apart.square().mean().sqrt())
