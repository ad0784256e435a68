"""A guard of one's own, by name: python recipes/examples/adding/guard.py --epsilons inf 4 --seeds 0

It stands between the model and whoever asks; every attack that sees scores at most runs through it as well. Its number is glued
to its name: ``clear0.3``.
"""

import sys
from dataclasses import dataclass

import numpy as np

from dptrain import GUARDS
from dptrain.release.guard import Answers, Guard, Owner
from dptrain.release.parts import Number, Terms
from recipes.cli import main


@GUARDS.register("clear", "clear0.3: no answer where the second class is nearer than 0.3")
@dataclass(frozen=True)
class Clear(Guard):
    least: float

    keeps_labels, draws = True, False
    terms = Terms(Number("the least lead of the best class", 0, 1, example=0.3))

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Clear":
        return cls(number or 0.0)

    def through(self, inputs, answers: Answers) -> Answers:
        best = np.sort(answers.scores, axis=1)
        return answers.refusing(best[:, -1] - best[:, -2] < self.least)

    def statement(self) -> str:
        return f"No answer where the best class leads by less than {self.least:g}. That is no privacy guarantee."


if __name__ == "__main__":
    sys.exit(main(["run", "digits", "--evaluation.guards", "clear0.3", "--output", "runs/clear", *sys.argv[1:]]))
