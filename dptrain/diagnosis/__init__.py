"""The doctor: does this model, with this loss, keep what differential privacy assumes of it, and what does it cost?

* :mod:`~dptrain.diagnosis.examination`: :func:`doctor`, which makes every probe and gathers what they found
* :mod:`~dptrain.diagnosis.patient`: a copy of model and loss that runs again and again as if for the first time
* :mod:`~dptrain.diagnosis.modules`: what can be seen without running it, and what a module is replaced by
* :mod:`~dptrain.diagnosis.losses`: one value an example, whoever else is in the batch and however many they are
* :mod:`~dptrain.diagnosis.behaviour`: what else a step may and may not do
* :mod:`~dptrain.diagnosis.timing`: what a step costs, and which layers cost it
* :mod:`~dptrain.diagnosis.result`: :class:`Diagnosis`: findings, figures, and a report to read

The checks that every private training makes by itself are in :mod:`dptrain.checks`. No module is called ``doctor``: the
name ``dptrain.doctor`` is the function, and an import of a module of that name would take its place.
"""

from dptrain.diagnosis.examination import doctor
from dptrain.diagnosis.result import Diagnosis, Finding, LayerCost, StepCost

__all__ = ["Diagnosis", "Finding", "LayerCost", "StepCost", "doctor"]
