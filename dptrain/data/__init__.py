"""Data sets by name, and who is in which part of them.

* :func:`load`: the data set that a recipe names
* :mod:`~dptrain.data.dataset`: labelled examples and what is publicly known of them
* :mod:`~dptrain.data.examples`: examples by index, from anything that holds them
* :mod:`~dptrain.data.split`: members, non-members, population, public; drawn before training
* :mod:`~dptrain.data.digits`, :mod:`~dptrain.data.mnist`, :mod:`~dptrain.data.cifar10`, :mod:`~dptrain.data.faces`,
  :mod:`~dptrain.data.iwpc`, :mod:`~dptrain.data.table`, :mod:`~dptrain.data.images`, :mod:`~dptrain.data.text`,
  :mod:`~dptrain.data.sms`
* :mod:`~dptrain.data.alphabet`, :mod:`~dptrain.data.words`: characters and words as numbers, by lists that no text decides
* :mod:`~dptrain.data.tokens`: text in the tokens of a published model
* :mod:`~dptrain.data.secrets`: made-up secrets among the examples
* :mod:`~dptrain.data.cells`: what stands in a file with a table
* :mod:`~dptrain.data.values`: a value to predict in place of a class

A data set of your own is a function that takes the recipe's :class:`~dptrain.recipe.DataConfig`::

    @DATASETS.register("mine", "what it is")
    def load_mine(config: DataConfig) -> DataSet: ...
"""

from typing import TYPE_CHECKING

from dptrain.errors import DataError
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
    loaded = DATASETS[config.name](config)
    from dptrain.data.dataset import DataSet  # after the look-up: a wrong name is answered without importing torch

    if not isinstance(loaded, DataSet):
        raise DataError(
            f"the loader of the data set {config.name!r} returned a {type(loaded).__name__}; return a dptrain.DataSet"
        )
    return loaded
