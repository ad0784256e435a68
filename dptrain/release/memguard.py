"""MemGuard (Jia, Salem, Backes, Zhang, Gong 2019, "MemGuard: Defending against Black-Box Membership Inference Attacks via
Adversarial Examples").

The owner trains a classifier g that tells members from others by their sorted scores, and disguises the scores so that g
cannot tell. With logits z, scores s = softmax(z) and h the logit of g:

* Phase I looks for z' of the same label on which g is at the other side of its threshold, by steps of length 0.1 along the
  gradient of |h(z')| + 10 max(0, max_{j≠l} z'_j − z'_l) + c ‖softmax(z') − s‖₁. c begins at 0.1 and grows tenfold as long as
  such a z' is found, so that the last one found is nearest; where none is found the scores stay.
* Phase II shows softmax(z') with probability min(1, D / ‖softmax(z') − s‖₁) where g is less sure of it than of s, and s
  otherwise. The expected distance of what is shown from s is then at most D, the distortion,
  which is the number glued to the name.

D is a budget of utility, which the paper calls ε; it says nothing of privacy, and is not the ε of differential privacy. g
weighs both groups alike, whatever their sizes. Which of the two scores is shown is decided by the input and a secret key.
The label is always the model's own, so that attacks that see labels alone find what they found before.

The search stops right behind the threshold of g, so that where members stand out, a threshold attack is turned round rather
than blunted: whoever reverses it finds the members again, and shadow models behind guards of their own learn to read much of
the rest (``tests/evaluation/test_guarded.py`` holds both).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dptrain.errors import UserError
from dptrain.release.guard import Answers, Guard, Owner, draws

HIDDEN = 32
FITTING_STEPS = 300
LENGTH = 0.1
"""Of a step of phase I, in logits."""
MOST_STEPS = 300
PATIENCE = 10
"""Steps that come no nearer to the threshold of g, after which an answer is given up: it goes to and fro."""
KEEPS_LABEL = 10.0
DISTANCE = tuple(10.0**power for power in range(-1, 6))
"""Values of c."""


@dataclass(frozen=True, eq=False)
class MemGuard(Guard):
    """Scores that a classifier of members, the owner's own, cannot read."""

    classifier: nn.Sequential
    """g: sorted scores to one logit, above 0 for a member."""
    distortion: float
    key: bytes

    keeps_labels = True
    needs_members = True

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "MemGuard":
        members, others = owner.members, owner.others
        if members is None or others is None or len(members) == 0 or len(others) == 0:
            raise UserError(
                "memguard is fitted on the model's outputs on members and on examples kept from it, and there are none; fit it "
                "where the private data are (in a recipe, raise data.split.population, such as to 0.1), or give another guard, "
                "such as top5-rounded"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            classifier = nn.Sequential(nn.Linear(members.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)).double()
        shown = torch.from_numpy(np.concatenate([members, others]).astype(np.float64)).softmax(1).sort(1).values
        is_member = torch.cat([torch.ones(len(members)), torch.zeros(len(others))]).double()
        weight = torch.where(is_member > 0, 0.5 / len(members), 0.5 / len(others))
        optimizer = torch.optim.Adam(classifier.parameters(), lr=0.01)
        for _ in range(FITTING_STEPS):
            optimizer.zero_grad()
            logit = classifier(shown)[:, 0]
            nn.functional.binary_cross_entropy_with_logits(logit, is_member, weight, reduction="sum").backward()
            optimizer.step()
        return cls(classifier.requires_grad_(False), 0.5 if number is None else number, owner.key)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        original = torch.from_numpy(np.log(np.maximum(answers.scores, np.finfo(float).tiny)))
        disguised = self.disguised(original)
        before, after = torch.from_numpy(answers.scores), disguised.softmax(1)
        distance = (after - before).abs().sum(1)
        less_sure = self.member_logit(disguised).abs() < self.member_logit(original).abs()
        probability = torch.where(less_sure, (self.distortion / distance.clamp_min(1e-12)).clamp_max(1), 0.0)
        taken = torch.from_numpy(draws(inputs, self.key, "memguard")[:, 0]) < probability
        return Answers.of(torch.where(taken[:, None], after, before).numpy())

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            "Scores are disguised (MemGuard, Jia et al. 2019): labels stay, and the changes of an answer's scores sum up to "
            f"at most {number or 0:g} on average. That is a budget of utility and no privacy guarantee: attacks that know "
            "of it, and attacks that see labels alone, are not stopped by it. It was fitted on members, which ε does not cover."
        )

    def statement(self) -> str:
        return self.says(self.distortion)

    def member_logit(self, logits: Float[Tensor, "examples classes"]) -> Float[Tensor, " examples"]:
        """h: above 0 where g takes an answer for a member's."""
        return self.classifier(logits.softmax(1).sort(1).values)[:, 0]

    def disguised(self, logits: Float[Tensor, "examples classes"]) -> Float[Tensor, "examples classes"]:
        """Phase I: the nearest logits that it finds; the original ones where it finds none."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # whoever asks a model seldom wants gradients, and this needs one
            return self._nearest(logits.clone())

    def _nearest(self, logits: Tensor) -> Tensor:
        found = logits.clone()
        alive = torch.arange(len(logits))[self.member_logit(logits).abs() > 1e-5]
        for distance in DISTANCE:
            if len(alive) == 0:
                break
            reached, changed = self._descend(logits[alive], distance)
            alive = alive[reached]
            found[alive] = changed[reached]
        return found

    def _descend(self, start: Tensor, distance: float) -> tuple[Bool[Tensor, " examples"], Tensor]:
        """Which reach the other side with their label kept, and where they then are."""
        label, scores, above = start.argmax(1), start.softmax(1), self.member_logit(start) > 0
        own = nn.functional.one_hot(label, start.shape[1]).bool()
        reached, moved = torch.zeros(len(start), dtype=torch.bool), start.clone()
        rows, nearest, idle = torch.arange(len(start)), self.member_logit(start).abs(), torch.zeros(len(start))
        for _ in range(MOST_STEPS):
            leaf = moved[rows].requires_grad_(True)
            behind = leaf.masked_fill(own[rows], -torch.inf).max(1).values - leaf[own[rows]]
            apart = (leaf.softmax(1) - scores[rows]).abs().sum(1)
            loss = self.member_logit(leaf).abs() + KEEPS_LABEL * behind.clamp_min(0) + distance * apart
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            there = leaf.detach() - LENGTH * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
            moved[rows] = there
            says = self.member_logit(there)
            done = (there.argmax(1) == label[rows]) & ((says > 0) != above[rows])
            reached[rows[done]] = True
            idle[rows] = torch.where(says.abs() < nearest[rows], 0.0, idle[rows] + 1)
            nearest[rows] = torch.minimum(nearest[rows], says.abs())
            rows = rows[~done & (idle[rows] < PATIENCE)]
            if len(rows) == 0:
                break
        return reached, moved
