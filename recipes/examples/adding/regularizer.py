"""A regularizer of one's own, by name: python recipes/examples/adding/regularizer.py --epsilons inf 4 --seeds 0

It charges each example for its own outputs, beside the loss. Its strength is glued to its name: ``logit_norm0.01``. Given to
`regularized` it is compared with budgets; given to `regularization` it is in all models, and clipped with the loss.
"""

import sys

from torch import Tensor

from dptrain import REGULARIZERS
from recipes.cli import main


@REGULARIZERS.register("logit_norm", "the squared length of the outputs")
def logit_norm(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().sum(1)


FLAGS = ["--regularized.penalty", "logit_norm0.01", "--regularizers", "alone", "--output", "runs/logit_norm"]

if __name__ == "__main__":
    sys.exit(main(["run", "digits", *FLAGS, *sys.argv[1:]]))
