"""Train with privacy, keep the account, release with care.

* :func:`make_private`, :func:`per_example`, :class:`PrivacyPlan`: differential privacy in anyone's own loop
* :class:`DataSet`, :func:`draw`: examples of your own, and who of them is trained on
* :func:`doctor`: whether your own model and loss are fit for that, and what it costs
* :class:`Recipe`, :class:`Trainer`: a model that is defined by a recipe
* :data:`MODELS`, :data:`DATASETS`, :data:`LOSSES`, :data:`OPTIMIZERS`, :data:`REGULARIZERS`,
  :data:`GUARDS`: registries, to add your own

Names are imported when they are first used: `import dptrain` itself costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dptrain.data.dataset import DataSet as DataSet
    from dptrain.data.split import draw as draw
    from dptrain.diagnosis import Diagnosis as Diagnosis
    from dptrain.diagnosis import doctor as doctor
    from dptrain.plan import PrivacyPlan as PrivacyPlan
    from dptrain.private import PrivateTraining as PrivateTraining
    from dptrain.private import make_private as make_private
    from dptrain.private import per_example as per_example
    from dptrain.recipe import Recipe as Recipe
    from dptrain.registry import DATASETS as DATASETS
    from dptrain.registry import GUARDS as GUARDS
    from dptrain.registry import LOSSES as LOSSES
    from dptrain.registry import MODELS as MODELS
    from dptrain.registry import OPTIMIZERS as OPTIMIZERS
    from dptrain.registry import REGULARIZERS as REGULARIZERS
    from dptrain.trainer import Trainer as Trainer

_PLACES = {
    "DATASETS": "dptrain.registry",
    "GUARDS": "dptrain.registry",
    "LOSSES": "dptrain.registry",
    "MODELS": "dptrain.registry",
    "OPTIMIZERS": "dptrain.registry",
    "REGULARIZERS": "dptrain.registry",
    "DataSet": "dptrain.data.dataset",
    "Diagnosis": "dptrain.diagnosis",
    "PrivacyPlan": "dptrain.plan",
    "PrivateTraining": "dptrain.private",
    "Recipe": "dptrain.recipe",
    "Trainer": "dptrain.trainer",
    "doctor": "dptrain.diagnosis",
    "draw": "dptrain.data.split",
    "make_private": "dptrain.private",
    "per_example": "dptrain.private",
}

__all__ = [
    "DATASETS",
    "GUARDS",
    "LOSSES",
    "MODELS",
    "OPTIMIZERS",
    "REGULARIZERS",
    "DataSet",
    "Diagnosis",
    "PrivacyPlan",
    "PrivateTraining",
    "Recipe",
    "Trainer",
    "doctor",
    "draw",
    "make_private",
    "per_example",
]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'dptrain' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
