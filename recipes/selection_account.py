"""What a private selection says in its data set's account: each score before it is made, and at the end which run was chosen.

A score of held-out examples is a release like an update: a count that one unit changes by at most 1, with Gaussian noise. It
stands in the account as one full batch under a plan of that noise, beside the updates of the training it judges. So the sum
over all runs holds the scores too, and where of a selection the chosen run alone is released, the selection's own ε stands in
their place.
"""

from pathlib import Path

from dptrain.checkpoint import read_folder, unpack_json
from dptrain.ledger import Account
from dptrain.plan import PrivacyPlan
from recipes.selection import Drawn


def announce_score(drawn: Drawn, folder: Path) -> None:
    """Says that the training in ``folder`` is about to be judged on held-out examples; nothing where public ones judge it."""
    place = folder / "private" / "checkpoint"
    run = str(unpack_json(read_folder(place)["state.json"], place / "state.json").get("run", ""))
    if drawn.selection.scorer == "public" or not run:
        return
    Account(drawn.data).reserve(run, score_plan(drawn.selection.plans[0], drawn.selection.score_noise), 0, 1)


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
        chosen: folder in which it was trained; empty where none was chosen.
    """
    account, name = Account(drawn.data), str(drawn.asked.root)
    folders = {str(drawn.folder(number).absolute()) for number in range(len(drawn.candidates))}
    books = account.books()
    ours = {run.name: str(run.about.get("folder")) for run in books.runs if run.about.get("folder") in folders}
    if not ours or any(told.name == name and told.runs == len(ours) for told in books.statement().selected):
        return
    law = drawn.selection.runs
    best = [run for run, folder in ours.items() if folder == chosen]
    account.select(
        name,
        list(ours),
        law.distribution,
        law.mean,
        epsilon,
        delta=drawn.selection.plans[0].delta,
        chosen=best[-1] if best else "",
    )
