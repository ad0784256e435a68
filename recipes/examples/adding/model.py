"""A model of one's own, by name: python recipes/examples/adding/model.py --epsilons inf 4 --seeds 0

It is built anew for every budget, seed and shadow model. Its layers must not let examples look at each other: `dptrain doctor`.
"""

import math
import sys

from torch import nn

from dptrain import MODELS
from recipes.cli import main


@MODELS.register("normalised", "a hidden layer, normalised")
def normalised(input_shape, classes, config, regularization) -> nn.Module:
    width = config.hidden[0]
    layers = nn.Linear(math.prod(input_shape), width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, classes)
    return nn.Sequential(nn.Flatten(), *layers)


if __name__ == "__main__":
    sys.exit(main(["run", "digits", "--model.name", "normalised", "--output", "runs/normalised", *sys.argv[1:]]))
