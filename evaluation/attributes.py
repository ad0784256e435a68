"""From an attribute inference to its result: how often a hidden column is guessed, and what of that the model gave away.

Four columns stand beside each figure, all without the model: the prior (the population's most frequent value), imputation (the
same known columns), imputation with the true outcome, which the attack sees as well, and the ideal (all other columns and the
true outcome). The headline is the share of *members* whose hidden
value is guessed; that of held-out people, and the difference, stand beside it.

**What a plan permits.** Let a person's hidden value, known columns and outcome be given, and let E be the event that the
attack's guess of it is right. P[E] with the person in the training set is at most the true positive rate that the plan permits
at a false positive rate of P[E] without, so that the two differ by at most the largest distance of that ROC from its diagonal,

    max over x of  TPR(x) − x.

Where the unit is the user, a person here is still one example, whose user may have others: the ROC is that of one example,
:meth:`~dptrain.plan.PrivacyPlan.example_curve`.

Members and held-out people are dealt out by independent coins, so the expected difference of their shares is bounded by it too.
How often the attack is right at all is bounded by no plan: what holds of the population may be learned.

**Verdict.** *leak* (or *within the plan*): members are guessed more often than people who were not trained on. *of the
population*: beyond imputation without the outcome, of the same people one by one, and as often on both. *nothing beyond
public*: imputation, without model and outcome, does as well.

The **positive control** is a fully grown regression tree of the same members, attacked through its leaves: it keeps its
training set, and an evaluation that finds no members in it finds none anywhere.
"""

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn.tree import DecisionTreeRegressor

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import ConfigError, unknown_name
from dptrain.plan import PrivacyPlan
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.inversion.attribute import AttributeAttack
from evaluation.inversion.attribute_figures import attribute_figures, share_right
from evaluation.inversion.attribute_knowledge import AttributeKnowledge
from evaluation.inversion.columns import Layout
from evaluation.inversion.prior_of_columns import Conditional, Independent
from evaluation.inversion.tree import TreeCounts, TreeModel
from evaluation.membership import NotApplicable
from evaluation.plan import EvaluationPlan
from evaluation.result import AttackResult, Measure
from evaluation.target import Target
from evaluation.verdicts import of_attribute

GRID_OF_RATES = np.linspace(0.0, 1.0, 1001)
LEAKED = "train_minus_held_out"


def check_hidden(plan: EvaluationPlan, data: DataSet) -> None:
    """Refuses what no attack on a column could start with, before anything is trained.

    Raises:
        ConfigError: attribute inference is asked for and no column is hidden, or there is no such column.
    """
    asked = [name for name in plan.attacks if name.startswith("attribute.")]
    if not asked:
        return
    if not data.columns:
        raise ConfigError(f"evaluation.attacks names {asked[0]}, and {data.name} has no columns; give a table, or leave it out")
    names = Layout.of(data.columns).names
    if plan.hidden is None:
        raise ConfigError(
            f"evaluation.attacks names {asked[0]}, and evaluation.hidden is not given; name the column to be guessed, one of "
            f"{', '.join(map(repr, names))}"
        )
    for field, given in (("evaluation.hidden", (plan.hidden,)), ("evaluation.known", plan.known or ())):
        for name in given:
            if name not in names:
                raise unknown_name(field, name, names, ConfigError)
    known = plan.known or ()
    if len(set(known)) != len(known):
        raise ConfigError(f"evaluation.known is {known}, which names one column twice; name each once")
    if plan.hidden in known:
        raise ConfigError(f"evaluation.known names the hidden column {plan.hidden!r}; leave it out")


def attributes(case: Case, name: str, attack: AttributeAttack) -> AttackResult:
    """Runs one attribute inference on members and on held-out people, and judges it.

    Raises:
        NotApplicable: no column is hidden, the split has no population to learn a prior from, or the attack is on models of
            another kind.
    """
    if case.evaluation.hidden is None or not case.data.columns:
        raise NotApplicable("no column is hidden (evaluation.hidden)")
    if len(case.split.population) < 2:
        raise NotApplicable("there is no population to learn prior and error model from; raise data.split.population")
    if case.target.kind not in attack.kinds:
        given = "a value" if case.target.kind == "regression" else "classes"
        raise NotApplicable(f"it is an attack on another kind of model, and this one predicts {given}; use attribute.map")
    knowledge = _knowledge(case.data, case.split, case.evaluation.hidden, case.evaluation.known)
    posteriors = [_guessed(case.target, knowledge, case.data, attack, part, case.seed) for part in _parts(case.split)]
    held_out = case.examples(case.split.non_members)
    classes = len(case.data.classes)
    found = attribute_figures(knowledge, posteriors[0], posteriors[1], (held_out.inputs, held_out.targets), classes)
    controls = []
    if case.untrained is not None:
        untrained = _guessed(case.untrained, knowledge, case.data, attack, case.split.members, case.seed)
        controls.append(share_right(knowledge, *untrained, "untrained"))
    if case.data.value is not None:
        conditional = isinstance(getattr(attack, "prior", None), Conditional)
        controls += _of_a_tree(case.data, case.split, case.evaluation.hidden, case.evaluation.known, conditional)
    plan = case.plan if case.is_private else None
    result = AttackResult(
        name=name,
        status="ok",
        metric="guessed",
        value=found.members.value,
        low=found.members.low,
        high=found.members.high,
        chance=found.prior.value,
        access=attack.access.word,
        paper=attack.paper,
        metrics=(
            dataclasses.replace(found.held_out, name="guessed_held_out"),
            found.held_out_minus_imputation,
            found.train_minus_held_out,
        ),
        permitted_metrics={} if plan is None else {LEAKED: largest_difference(plan)},
        baselines=(found.prior, found.imputation, found.imputation_with_outcome, found.ideal),
        controls=tuple(controls),
    )
    permitted = result.permitted_metrics.get(LEAKED)
    verdict, reason = of_attribute(found.held_out_minus_imputation, found.imputation, found.train_minus_held_out, permitted)
    return dataclasses.replace(result, verdict=verdict, reason=reason)


def largest_difference(plan: PrivacyPlan) -> float:
    """The largest distance of one example's ROC under the plan from its diagonal, and not less: the ROC never falls, so that
    between two rates of the grid it is at most the upper one's, and the diagonal at least the lower one's."""
    return min(1.0, float(np.max(plan.example_curve().true_positive_rates(GRID_OF_RATES)[1:] - GRID_OF_RATES[:-1])))


def _parts(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.members, split.non_members


def _knowledge(data: DataSet, split: Split, hidden: str, known: tuple[str, ...] | None) -> AttributeKnowledge:
    layout, population = Layout.of(data.columns), torch.from_numpy(split.population)
    if known is None:
        known = tuple(name for name in layout.names if name != hidden)
    return AttributeKnowledge(layout, hidden, known, data.inputs[population], data.targets[population])


def _guessed(
    target: Target, knowledge: AttributeKnowledge, data: DataSet, attack: Any, part: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The attack's distributions over the hidden column for a part of the split, and the true values."""
    index = torch.from_numpy(part)
    rows, outcomes = data.inputs[index], data.targets[index]
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"attribute"]))
    posterior = attack.run(target.behind(attack.access), knowledge, knowledge.people(rows, outcomes), generator)
    if not np.isfinite(posterior).all():
        raise ValueError("the attack's distributions hold NaN or infinity")
    return posterior, knowledge.layout.codes(rows, knowledge.hidden)


@lru_cache(maxsize=64)
def _of_a_tree(
    data: DataSet, split: Split, hidden: str, known: tuple[str, ...] | None, conditional: bool
) -> tuple[Measure, Measure]:
    """A fully grown tree's members and held-out people: the same for every model that was trained on this split."""
    members = torch.from_numpy(split.members)
    tree = DecisionTreeRegressor(random_state=0).fit(data.inputs[members].numpy(), data.targets[members].numpy())
    target = Target(TreeModel(tree), Access.WEIGHTS, bounds=data.bounds, classes=0, kind="regression")
    knowledge = _knowledge(data, split, hidden, known)
    attack = TreeCounts(prior=Conditional() if conditional else Independent())
    found = [_guessed(target, knowledge, data, attack, part, 0) for part in _parts(split)]
    return (
        share_right(knowledge, *found[0], "grown_tree"),
        share_right(knowledge, *found[1], "grown_tree_held_out"),
    )
