"""Many models of one recipe at once: the shadow models of a membership attack.

Each model is trained by the target's own recipe (architecture, optimizer, loss, plan, noise and all) on its own subset of
the data set, drawn by independent coins whose rate makes the expected set size that of the target. A test part that is kept
for utility alone has no coins: no shadow model is trained on it. What attacks need is kept: which example was in which model,
and each model's logits on every example.

    fleet = train_fleet(recipe, data, models=32, rate=0.5)
    fleet.logits      # [models, examples, classes]
    fleet.membership  # [models, examples]

    fleet = retrain_fleet(retrain, data, models=32, rate=0.5)       # by anyone's own retrain(members, seed) -> model

A fleet is cached under the hash of everything that defines it; a file that is incomplete or of another hash is not used.
It was made from private examples, so its place is under ``private/``.

* ``design.py``: who is in which model, how a recipe trains one, and the hash of it all
* ``answers.py``: :class:`Fleet` and what is kept of a model; :class:`Views`
* ``views.py``: shifts and mirror images that have a name
* ``layers.py``, ``stacked.py``: many models in one training, as batched matrix products
* ``processes.py``, ``worker.py``: blocks of models on every core
* ``training.py``: :func:`train_fleet`, which takes the way that its first steps show to be the fastest
* ``cache.py``: a fleet on disk, whole or in the making
"""

from dptrain.fleet.answers import Fleet, Views, logits_of, places, sequences_at_once
from dptrain.fleet.design import NO_TEST, Train, draw_membership, fleet_digest, recipe_digest, recipe_trainer
from dptrain.fleet.training import retrain_fleet, train_fleet
from dptrain.fleet.views import named_views

__all__ = [
    "NO_TEST",
    "Fleet",
    "Train",
    "Views",
    "draw_membership",
    "fleet_digest",
    "logits_of",
    "named_views",
    "places",
    "recipe_digest",
    "recipe_trainer",
    "retrain_fleet",
    "sequences_at_once",
    "train_fleet",
]
