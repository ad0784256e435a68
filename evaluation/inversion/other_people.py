"""The negative control of an inversion of people: the target's architecture, taught other people, attacked as the target is.

    control, dealt = taught(untrained, others.inputs, others.groups, seed)

Public people are dealt to the classes at random, and fresh weights behind the target's own front learn them. What the attack
draws from this model shows nothing private: it speaks of every class, but of other people. So whatever makes its pictures
pass for the private people came by another way than through the target: an attack or a prior that was given private pictures,
a judge that the attacker knows, something kept between two runs by the class's number. It does not show that a judge is deaf
to what no person would see in a picture; for that judges are of another architecture and of disjoint examples, and there are
two.

An untrained model is the same control without anything to say: where its last layer starts at zero, all classes have one
picture, which is right exactly once.

Nothing here is private, and nothing is tuned: Adam on all public examples of the people dealt, until they are learned. It is
not the target's own recipe, whose optimizer, noise and number of updates have no part in where a picture can come from.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.target import Target

STEPS = 200
LEARNING_RATE = 3e-3
BATCH = 256
LEARNED = 0.1
"""Loss at which it ends."""


def taught(untrained: Target, public: Tensor, groups: Tensor, seed: int) -> tuple[Target, Int[np.ndarray, " dealt"]]:
    """A target that knows other people, and the classes that somebody was dealt to: as many as there are people, at most all.

    Args:
        untrained: fresh weights, which stay as they are.
        groups: whom each public example shows.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"other people"]))
    people, of = groups.unique(return_inverse=True)
    who = generator.permutation(len(people))[: untrained.classes]
    dealt = generator.permutation(untrained.classes)[: len(who)]
    label = torch.full((len(people),), -1)
    label[torch.from_numpy(who)] = torch.from_numpy(dealt)
    kept = label[of] >= 0
    model = copy.deepcopy(untrained._model)  # whoever makes a control owns the model, and no attacker comes this way
    _learn(model, public[kept], label[of][kept], seed)
    target = Target(model, Access.WEIGHTS, bounds=untrained.bounds, classes=untrained.classes, kind=untrained.kind)
    if untrained.guard is not None:
        target.guard = untrained.guard.before(target.behind(Access.LOGITS).logits)
    return target, np.sort(dealt)


def _learn(model: nn.Module, inputs: Tensor, targets: Tensor, seed: int) -> None:
    weights = list(model.parameters())
    for parameter in weights:
        parameter.requires_grad_(True)
    optimizer, generator = torch.optim.Adam(weights, LEARNING_RATE), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        for _ in range(STEPS):
            batch = torch.randperm(len(inputs), generator=generator)[:BATCH]
            loss = F.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if float(loss.detach()) < LEARNED:
                break
