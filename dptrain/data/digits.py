"""Hand-written digits, 8×8 pixels, from inside scikit-learn's wheel: no download.

    data = load(DataConfig(name="digits"))      # inputs [1797, 1, 8, 8], classes "0" to "9"

Pixels are counts from 0 to 16 by construction; they are divided by 16 and shifted by 0.3. Both are public constants, not
statistics of these examples.
"""

import torch
from sklearn.datasets import load_digits

from dptrain.data.dataset import DataSet
from dptrain.recipe import DataConfig

SHIFT = 0.3


def load(config: DataConfig) -> DataSet:
    """The 1,797 digits of scikit-learn."""
    pixels, labels = load_digits(return_X_y=True)
    return DataSet(
        name="digits",
        inputs=torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16 - SHIFT,
        targets=torch.tensor(labels, dtype=torch.int64),
        classes=tuple(str(digit) for digit in range(10)),
        bounds=(-SHIFT, 1 - SHIFT),
        source="UCI Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), as in scikit-learn; CC BY 4.0",
    )
