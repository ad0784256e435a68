"""What the attacker of a class knows beside the target, and what every class inversion is.

    found = attack.run(target.behind(attack.access), ClassKnowledge(input_shape, public), generator)

An attack gives one reconstruction a class, ``[classes, *input_shape]``. It sees the target through its access level, the shape
and bounds of an input, and public examples: of the same classes where the classes are no people (digits), of *other* people
where they are (faces). Nothing of what judges it reaches it: neither the evaluator, nor private or held-out examples.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class ClassKnowledge:
    """What is known to everyone."""

    input_shape: tuple[int, ...]
    public: Float[Tensor, "examples ..."]
    """Public examples; may be none."""
    public_groups: Tensor | None = None
    """For each public example, which class or person it shows; None where nobody says."""


class InversionAttack(Protocol):
    """A class inversion."""

    access: ClassVar[Access]
    paper: ClassVar[str]

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """One reconstruction a class, ``[classes, *input_shape]``, within the target's bounds.

        Args:
            generator: all that is drawn at random is drawn from it.
        """
        ...
