"""ε as a paragraph, with its assumptions: a number alone says too little to be relied upon.

>>> from dptrain.plan import PrivacyPlan
>>> plan = PrivacyPlan(sampling_rate=1.0, expected_batch_size=90, steps=6, clipping_norm=1, delta=1e-4, noise_multiplier=9)
>>> print(plan.guarantee().statement[:60])
(0.87, 0.0001)-differential privacy for one example: adding
"""

from typing import TYPE_CHECKING

from dptrain.rounding import up

if TYPE_CHECKING:
    from dptrain.accounting import Counted
    from dptrain.plan import PrivacyPlan

BLANKING = {
    "node": "blanking one node, which takes its features, its label and all its edges,",
    "edge": "blanking one edge, so that it is not there,",
}
"""What blanking is of a graph."""
RELATIONS: dict[str, str] = {
    "add_or_remove_one": "adding or removing one {unit}",
    "zero_out_one": "blanking one {unit}, so that it contributes nothing",
    "replace_one": "replacing one {unit} by another, the number of them being public,",
}


def statement(plan: "PrivacyPlan", counted: "Counted", steps: int) -> str:
    """What is promised after ``steps`` updates, to whom, and what it assumes."""
    if not plan.is_private:
        return f"No differential privacy: {_lacking(plan)}, so nothing is promised to any {plan.unit} (ε = ∞)."
    change = BLANKING.get(plan.unit, RELATIONS[plan.relation].format(unit=plan.unit))
    return (
        f"({up(counted.epsilon)}, {plan.delta:g})-differential privacy for one {plan.unit}: {change} changes the "
        f"probability of any outcome by a factor of at most e^{up(counted.epsilon)}, except with probability "
        f"{plan.delta:g}. {_covered(plan, steps)} {_counted(counted)} {_to_a_person(plan)} It assumes {_assumed(plan)} exact "
        f"real arithmetic: rounding in floating point is not part of the proof."
    )


def _lacking(plan: "PrivacyPlan") -> str:
    if plan.unit == "edge":
        return "nothing that was released of the graph had noise"
    return "no noise was added" if plan.clips else "gradients were not clipped"


def _covered(plan: "PrivacyPlan", steps: int) -> str:
    """What was released, and how; of a graph also what is not covered."""
    parts = [_before(plan)] if steps and (plan.aggregations or plan.edge_release != "none") else []
    if plan.unit == "edge":
        parts.append(
            f"The {steps} updates read edges through that release alone, without clipping or noise of their own, and so do "
            "predictions: they cost an edge nothing. Features, labels and the roster of nodes are not protected."
        )
        return " ".join(parts)
    also = " also" if parts else ""
    parts.append(
        f"It{also} covers the weights after each of {steps} updates together. Each update {_mechanism(plan)}; {_drawn(plan)}; "
        f"sums are divided by the public expected batch size {plan.expected_batch_size:g}."
    )
    if plan.unit == "node":
        parts.append(_of_a_node(plan))
    return " ".join(parts)


def _before(plan: "PrivacyPlan") -> str:
    """What was released before the first update."""
    if plan.edge_release != "none":
        how = {
            "randomised_response": "by randomised response on every pair of nodes",
            "laplace": "by Laplace noise on the number of edges and on every pair of nodes",
        }[plan.edge_release]
        pure = f"ε = 1/{plan.noise_multiplier:.4g} and δ = 0"
        return f"It covers a graph that was perturbed once, before the first update, {how}, with {pure}."
    noise = plan.aggregation_noise * plan.noise_multiplier
    hops = "one table" if plan.aggregations == 1 else f"{plan.aggregations} tables, one a hop,"
    return (
        f"It covers {hops} of sums over neighbours, released once, before the first update, with Gaussian noise of {noise:.4g} "
        f"times the most that one {plan.unit} can change."
    )


def _of_a_node(plan: "PrivacyPlan") -> str:
    read = (
        f"A node is read in its own example and in at most {plan.occurrences} of other nodes, each drawn by a coin of its own. "
        if plan.occurrences
        else "A node is read in no example but its own. "
    )
    exactly = "that node's own features and its neighbours'" if plan.occurrences else "that node's own features"
    return (
        f"{read}The roster of nodes is public, and the graph has at most {plan.max_degree} edges a node: others were left out "
        f"beforehand by a choice that ε does not cover. A prediction for a node reads {exactly}, without noise: ε covers "
        "weights and released sums."
    )


def _assumed(plan: "PrivacyPlan") -> str:
    if plan.unit == "edge":
        return "that the noise stays secret, and"
    alone = "that examples do not look at each other, in model, loss and augmentation"
    if plan.occurrences:
        alone = "that examples look at no others than is said here, in model, loss and augmentation"
    return f"{alone}, that the batches drawn stay secret, and"


def _mechanism(plan: "PrivacyPlan") -> str:
    clipped = {
        "flat": f"sums gradients clipped to an L2 norm of {plan.clipping_norm:g}",
        "per_layer": f"sums gradients clipped layer by layer, to an L2 norm of {plan.clipping_norm:g} over all layers together",
        "automatic": f"sums gradients scaled to an L2 norm below {plan.clipping_norm:g} (automatic clipping, stability "
        f"{plan.automatic_stability:g})",
    }[plan.clipping]
    if plan.unit == "user":
        clipped = clipped.replace("gradients", "one gradient a user", 1)
    twice = "twice " if plan.relation == "replace_one" else ""
    noise = f"and adds Gaussian noise of {plan.noise_multiplier:.4g} times {twice}that norm"
    banded = f", correlated over {plan.bands} updates (banded matrix factorisation)" if plan.noise == "banded" else ""
    return f"{clipped} {noise}{banded}"


def _drawn(plan: "PrivacyPlan") -> str:
    poisson = f"each batch holds each {plan.unit} with probability {plan.sampling_rate:g}, independently (Poisson)"
    if plan.unit == "user":
        poisson += f", and of each user drawn at most {plan.max_examples_per_unit} examples, a fresh random subset"
    return {
        "poisson": poisson,
        "truncated_poisson": f"{poisson}, and of more than {plan.max_batch_size} a random subset of that size, for at most "
        f"{plan.max_examples} examples in all",
        "fixed_size": f"each batch is a random subset of {plan.expected_batch_size:g} out of exactly {plan.max_examples} "
        "examples",
        "cyclic_poisson": f"each {plan.unit} is in one of {plan.bands} random groups that take turns, and in a batch of its "
        f"group's turn with probability {plan.sampling_rate * plan.bands:g}, independently (cyclic Poisson)",
        "balls_in_bins": f"each epoch puts each {plan.unit} into one of {round(1 / plan.sampling_rate)} batches at random "
        "and claims no amplification for it",
    }[plan.sampling]


def _counted(counted: "Counted") -> str:
    names = counted.accountant.split()[0], counted.cross_check_accountant.split()[0]
    if names[0] == "Pure":
        sums = f"as pure ε, which adds up ({up(counted.epsilon, 4)})"
        return f"Counted {sums}, and cross-checked by {names[1]} ({up(counted.cross_check, 4)})."
    how = "bounded from above" if names[1] == "RDP" else "cross-checked"
    figures = up(counted.epsilon, 4), up(counted.cross_check, 4)
    return f"Counted by the {names[0]} accountant ({figures[0]}) and {how} by {names[1]} ({figures[1]})."


def _to_a_person(plan: "PrivacyPlan") -> str:
    """What a promise to the plan's unit is to a person: a condition, of which the plan cannot know whether it holds."""
    if plan.unit == "user":
        return "It is a promise to one user, and to a person where all that this person contributed is held under one user."
    return f"It is a promise to one {plan.unit}, and to a person where one {plan.unit} is all that this person contributed."
