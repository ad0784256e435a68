"""Data sets by name, and who is in which part of them.

* :func:`load`: the data set that a recipe names
* :mod:`~dptrain.data.dataset`: labelled examples and what is publicly known of them
* :mod:`~dptrain.data.split`: members, non-members, population, public; drawn before training
* :mod:`~dptrain.data.digits`, :mod:`~dptrain.data.mnist`, :mod:`~dptrain.data.table`, :mod:`~dptrain.data.images`
"""

from typing import TYPE_CHECKING

from dptrain.registry import DATASETS

if TYPE_CHECKING:
    from dptrain.data.dataset import DataSet
    from dptrain.recipe import DataConfig


def load(config: "DataConfig") -> "DataSet":
    """The data set that ``config`` names.

    Raises:
        ConfigError: no such data set.
        DataError: it cannot be found, read or used.
    """
    return DATASETS[config.name](config)
