"""An attack of one's own, by name: python recipes/examples/adding/attack.py --epsilons inf 4 --seeds 0

It gives each example a score, the higher the more a member, and sees of the model what its access lets it see. How it is judged
(intervals, controls, what the plan permits) is not its matter.
"""

import sys

import numpy as np

from evaluation import ATTACKS
from evaluation.access import Access
from evaluation.membership import MembershipAttack
from recipes.cli import main


@ATTACKS.register("membership.margin", "by how much the true class leads")
class Margin(MembershipAttack):
    access = Access.SCORES
    paper = "one's own"

    def run(self, target, examples, knowledge) -> np.ndarray:
        scores, targets = target.scores(examples.inputs), np.asarray(examples.targets)[:, None]
        own = np.take_along_axis(scores, targets, axis=1)[:, 0]
        np.put_along_axis(scores, targets, 0, axis=1)
        return own - scores.max(1)


FLAGS = ["--evaluation.attacks", "membership.margin", "membership.threshold", "--output", "runs/margin"]

if __name__ == "__main__":
    sys.exit(main(["run", "digits", *FLAGS, *sys.argv[1:]]))
