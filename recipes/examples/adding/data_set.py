"""A data set of one's own, by name: python recipes/examples/adding/data_set.py --epsilons inf 4 --seeds 0

What is public of it (classes, bounds, how inputs are scaled) is stated, never computed from the examples.
"""

import sys

import torch
from sklearn.datasets import load_breast_cancer

from dptrain import DATASETS, DataSet
from recipes.cli import main


@DATASETS.register("cells", "569 cell samples, benign or malignant, ships inside scikit-learn")
def cells(config) -> DataSet:
    rows, labels = load_breast_cancer(return_X_y=True)
    inputs = torch.log1p(torch.tensor(rows, dtype=torch.float32)) / 9  # no measure is above e⁹
    classes = ("malignant", "benign")
    return DataSet.of(inputs, torch.tensor(labels), name="cells", classes=classes, bounds=(0.0, 1.0))


FLAGS = ["--data.name", "cells", "--privacy.expected-batch-size", "70", "--output", "runs/cells"]

if __name__ == "__main__":
    sys.exit(main(["run", "digits", *FLAGS, *sys.argv[1:]]))
