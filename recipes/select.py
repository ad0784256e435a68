"""`dptrain select RECIPE`: several trainings with different options, the best of them, and what choosing it costs.

    dptrain select digits --epsilon 4 --candidates optimizer.learning_rate=1,2,5.6 privacy.clipping_norm=0.05,0.1
        --runs geometric --mean 6 --output runs/chosen

How often it trains is drawn at random (:mod:`dptrain.selection`), each time with a candidate that is drawn alike; each model
is scored with noise on held-out examples (:mod:`evaluation.score`); the best alone is kept, attacked and reported, as a
comparison of one model in ``--output``. ε is of that choice.

**What is drawn is drawn once.** K and the candidates are written to ``private/selection.json`` before the first training
begins, and a resume goes on with them. Whoever could stop and draw anew would choose K, by how the first ones went or by how
long they took, and the proof rests on a K that knows nothing of the data.

**Failures.** A training that breaks is an output like any other: whether it broke may hang on one example. Its score is below
all others, and it counts. What the machine does (a full disk, memory that runs out, a ledger that cannot be written, Ctrl-C)
stops the selection, which goes on later with what was drawn.

**Totals.** A total that is stated for the data, or by ``--total-epsilon``, is held against the choice's ε before K is drawn,
and against no single training: a total that refused the last of them would have chosen K. Choices add up, in ε and in δ.

**What stays unseen.** K, and the weights, the scores and the progress of all others, are for nobody but whoever holds the
data: the others are removed once the best is kept, all but their ledgers. Their owner can read K there, in the account
(``dptrain ledger``), and from how long it took. All of them start from the weights of one seed, which is public and makes Q no
other algorithm: batches and noise are fresh in each.
"""

import math
from pathlib import Path

from dptrain import selection
from dptrain.rounding import up
from recipes import cli, comparison, runs, selecting
from recipes.selecting import Outcome, is_selection
from recipes.selection import Asked

HELP = """usage: dptrain select RECIPE --epsilon 4 --candidates KEY=VALUE,VALUE... [KEY=...] [--runs geometric] [--mean 6]
                             [--shape ETA] [--score held-out|public] [--score-noise SD] [--each-epsilon EPSILON]
                             [--output FOLDER] [the flags of `dptrain run`]

Trains the recipe a random number of times, each time with a candidate drawn from all combinations of the values given, and
releases the one that scores best; ε is of the choice, which costs less than all trainings together.
--epsilon: of the chosen model, everything included; each training gets less, so that it holds.
--each-epsilon: in its place, of each training; what the choice costs is computed and printed.
--runs: how the number of trainings is distributed: geometric, logarithmic, poisson (which may be none), negative_binomial
    (with --shape, above -1). --mean: how many on average, from 1 up.
--score: held-out, on the examples that measure utility, with Gaussian noise (--score-noise, in examples; left out, 1% of how
    many there are by the recipe's public numbers); or public, on the split's public examples, which costs nothing.
How many trainings there were stays in the private folder, with the others' ledgers; their weights and scores are removed."""


def main(arguments: list[str]) -> int:
    """The command; the exit code is 1 where nothing came of it or an attack failed."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP, comparison.help_text(), sep="\n\n")
        return 0
    asked = Asked.of(arguments)
    return shown(selecting.select(asked, runs.command_line(["select", *arguments])))


def resume(root: Path) -> int:
    """Goes on with a selection that was cut; the exit code as of :func:`main`."""
    return shown(selecting.resume(root))


def shown(outcome: Outcome) -> int:
    """Prints what came of it."""
    of, law = outcome.selection, outcome.selection.runs
    plan, counted = of.plans[0], of.counted()
    code = 1
    if outcome.result is None or outcome.folder is None:
        print("Nothing is released: no training was drawn, or none ended. That is an outcome too, and the budget is spent.")
    else:
        code = cli._show(outcome.result, outcome.folder.parents[1])
        print(f"\nchosen: {outcome.chosen}\n        {outcome.folder}")
    each = " or ".join(f"{up(one.guarantee().epsilon, 3)} (σ = {one.noise_multiplier:.4g})" for one in of.plans)
    print(
        f"ε = {up(outcome.epsilon, 3)} at δ = {plan.delta:g} for the choice, of {law.mean:g} trainings on average "
        f"({law.distribution.replace('_', ' ')}); each has ε = {each}"
    )
    print(f"  by Papernot & Steinke's {law.theorem} alone {up(counted.by_renyi, 3)}; {math.ceil(law.mean)} trainings composed: "
          f"{up(selection.composed(of.events()[0], math.ceil(law.mean), plan.delta, plan.relation), 3)}")  # fmt: skip
    print(
        f"  for you alone, since it tells how many there were: these trainings, all shown, would have cost "
        f"{up(outcome.composed, 3)}; do not publish private/"
    )
    return code


__all__ = ["HELP", "is_selection", "main", "resume", "shown"]
