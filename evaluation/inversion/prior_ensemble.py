"""Several priors, one reconstruction a class.

Each generator errs in its own way about what public examples leave open: what they agree on is the model's. Either the mean of
their reconstructions is taken, or for each class the one that the *target* likes best by its margin h
(:mod:`~evaluation.inversion.prior`), averaged over the picture itself and its copies moved by one pixel and mirrored, since a
picture that persuades only as it stands persuades by accident (Struppek, Hintersdorf, De Almeida Correia, Adler, Kersting 2022,
"Plug & Play Attacks", who select by transformed copies). The judge of reconstructions has no part in it.

Members and their mean were chosen among some ten combinations with roles swapped: targets of the 20 public people of ``faces``,
attacked by someone who knows the 20 others. Of private people the mean is nearer to the faces than components alone are; that
it is identified more often, chance may have done.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.generators import mirrored, moved
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.prior import Linear, PriorInversion, Variational, margins
from evaluation.target import Target

Together = Literal["mean", "margin"]


@dataclass(frozen=True, kw_only=True)
class PriorEnsemble:
    """What several inversions with a prior say together."""

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "Chen et al. 2021"

    members: tuple[PriorInversion, ...] = (
        PriorInversion(),
        PriorInversion(learner=Linear(temper=0.3)),
        PriorInversion(learner=Variational()),
    )
    together: Together = "mean"

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Raises:
            DataError: there are fewer than two public examples.
        """
        found = torch.stack([member.run(target, knowledge, generator) for member in self.members])
        if self.together == "mean":
            return found.mean(0)
        liked = torch.stack([robust_margin(target, pictures) for pictures in found])
        return found[liked.argmax(0), torch.arange(target.classes)]


def robust_margin(target: Target, pictures: Float[Tensor, "classes ..."]) -> Float[Tensor, " classes"]:
    """h of each class's own picture, averaged over its moved and mirrored copies."""
    copies = moved(mirrored(pictures))
    wanted = torch.arange(len(pictures)).repeat(len(copies) // len(pictures))
    logits = torch.from_numpy(target.logits(copies)).float()
    return margins(logits, wanted).view(-1, len(pictures)).mean(0)
