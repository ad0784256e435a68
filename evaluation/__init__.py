"""Attack, audit, measure, report.

* :func:`evaluate`: every attack of a plan on one checkpoint
* :func:`attend`: the same, whenever somebody's own script saves one; :mod:`~evaluation.scripted`: its runs as one comparison
* :mod:`~evaluation.plan`: which attacks; how to register your own
* :mod:`~evaluation.access`, :mod:`~evaluation.target`: what an attacker sees
* :mod:`~evaluation.membership`, :mod:`~evaluation.inversion`: the attacks
* :mod:`~evaluation.analysis`, :mod:`~evaluation.attributes`, :mod:`~evaluation.reconstructions`,
  :mod:`~evaluation.known_others`, :mod:`~evaluation.final_model`, :mod:`~evaluation.secrets`, :mod:`~evaluation.links`,
  :mod:`~evaluation.node_attributes`: from what an attack gives to figures and a verdict
* :mod:`~evaluation.jury`, :mod:`~evaluation.likeness`: who judges reconstructions, and how near they come
* :mod:`~evaluation.pictures`: rows of pictures beside a result
* :mod:`~evaluation.utility`: what the model is worth; :mod:`~evaluation.similarity`: of pictures
* :mod:`~evaluation.audit`: lower bounds on ε, and the games that they come from
* :mod:`~evaluation.extraction`: secrets that a model of text repeats
* :mod:`~evaluation.graph`: links and words that a model of a graph gives away; :mod:`~evaluation.without_graph`: what it must
  be worth more than
* :mod:`~evaluation.through_guards`: one model behind one guard after the other, under attack by those who know it;
  :mod:`~evaluation.guard_costs`: what each shows beyond the label
* :mod:`~evaluation.equal_loss`: a non-private model that is no better than the private one
* :mod:`~evaluation.metrics`: scores in, figures with intervals out
* :mod:`~evaluation.result`: the one schema of results; :mod:`~evaluation.wellformed`: that a file keeps to it
* :mod:`~evaluation.clearance`: whether a model may be published, by :mod:`~evaluation.clearance_bounds` and
  :mod:`~evaluation.clearance_guards`
* :mod:`~evaluation.report`: terminal, TensorBoard and HTML
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.attendance import attend as attend
    from evaluation.plan import ATTACKS as ATTACKS
    from evaluation.plan import EvaluationPlan as EvaluationPlan
    from evaluation.runner import evaluate as evaluate

_PLACES = {
    "attend": "evaluation.attendance",
    "evaluate": "evaluation.runner",
    "EvaluationPlan": "evaluation.plan",
    "ATTACKS": "evaluation.plan",
}

__all__ = ["ATTACKS", "EvaluationPlan", "attend", "evaluate"]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used, so that `import evaluation` costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
