"""What a private selection says in its data set's account: its cost before anything is drawn, each score before it is made,
and at the end which run was chosen.

The choice is held against a stated total as a whole, by its own ε, before the number of trainings is drawn: were it cut off by
a total in its middle, there would be fewer of them than the law of their number says, and the choice would have another ε.

A score of held-out examples is a release like an update: a count that one unit changes by at most 1, with Gaussian noise. It
stands in the account as one full batch under a plan of that noise, beside the updates of the training it judges. So the sum
over all runs holds the scores too, and where of a selection the chosen run alone is released, the selection's own ε stands in
their place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dptrain.checkpoint import read_folder, unpack_json
from dptrain.data.dataset import DataSet
from dptrain.ledger import Account
from dptrain.plan import PrivacyPlan
from dptrain.selected import Selection
from recipes.selection import Asked, Drawn, candidates_of


def announce(identity: str, asked: Asked, selection: Selection, each: tuple[float, ...], data: DataSet) -> None:
    """Charges the choice; nothing where this account has it already.

    Args:
        each: ε of one training, by candidate.

    Raises:
        PlanError: a total would be passed, and nothing was drawn.
    """
    delta, law, total = selection.plans[0].delta, selection.runs, asked.comparison.total()
    recipes = candidates_of(asked, each)
    plans = [PrivacyPlan.from_config(recipe.privacy, recipe.training.steps) for recipe in recipes]
    if selection.score_noise:
        plans.append(score_plan(selection.plans[0], selection.score_noise))
    epsilon, plans = selection.counted().epsilon, list(dict.fromkeys(plans))
    account = Account(data.fingerprint, data.name)
    account.announce_selection(identity, str(asked.root), plans, law.distribution, law.mean, epsilon, delta, total)


@contextmanager
def scored(drawn: Drawn, folder: Path) -> Iterator[None]:
    """Around the judgement of the training in ``folder`` on held-out examples; nothing is said where public ones judge it."""
    run = run_of(folder)
    if drawn.selection.scorer == "public" or not run:
        yield
        return
    account = Account(drawn.data)
    account.reserve(run, score_plan(drawn.selection.plans[0], drawn.selection.score_noise), 0, 1)
    yield
    account.close(run, "done")


def run_of(folder: Path) -> str:
    """A training's name in the account."""
    place = folder / "private" / "checkpoint"
    return str(unpack_json(read_folder(place)["state.json"], place / "state.json").get("run", ""))


def score_plan(plan: PrivacyPlan, noise: float) -> PrivacyPlan:
    """One score as a plan of its own, in the unit and relation of the training's."""
    return PrivacyPlan(
        sampling_rate=1.0,
        expected_batch_size=plan.expected_batch_size / plan.sampling_rate,
        steps=1,
        clipping_norm=1.0,
        delta=plan.delta,
        noise_multiplier=noise,
        unit=plan.unit,
        relation=plan.relation,
        max_examples_per_unit=plan.max_examples_per_unit,
    )


def tell(drawn: Drawn, epsilon: float, chosen: str) -> None:
    """Says that of these runs the chosen one alone was released, once.

    Args:
        chosen: its name in the account; empty where none was chosen. Where it was trained on another machine, this account does
            not know it.
    """
    account, law = Account(drawn.data), drawn.selection.runs
    books = account.books()
    announced = next((entry for entry in books.selections if entry.get("id") == drawn.identity), None)
    if announced is None or announced.get("over", announced["runs"]):
        return
    ours = books.members(announced)
    chosen = chosen if chosen in ours else ""
    name, delta = str(drawn.asked.root), drawn.selection.plans[0].delta
    account.select(name, ours, law.distribution, law.mean, epsilon, delta, chosen=chosen, identity=drawn.identity)
