"""LiRA and RMIA with few reference models: who finds more, of the same targets, with the same models.

    python -m tests.benchmarks.reference_models mnist_small [--numbers 1 2 4 8 16] [--targets 16] [--models 32]

The recipe's non-private fleet is trained once, as ``dptrain run`` trains it for its first seed, and kept beside that run's own
(``runs/RECIPE/private/fleet``, or ``--folder``), where each finds what the other made. Then models of the fleet take the role
of the target in turn, and k others, drawn at random, that of the reference models. All attacks are given the same k, whoever of
them had seen what: of a recipe where one model in six has an example, one model knows five examples in six from outside and one
from inside, and no example from both sides. How the attacks do with that is said in :mod:`evaluation.membership.lira` and
:mod:`evaluation.membership.rmia`.

Printed are means over the targets with 95% intervals (Student's t), and the difference RMIA − LiRA of each target, in tables
that can stand in a text as they are.
"""

import argparse
import dataclasses
import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn

import dptrain.data
from dptrain.data.split import draw
from dptrain.fleet import Fleet, train_fleet
from evaluation.membership import Knowledge, LabelledExamples
from evaluation.metrics import area_under_roc, rate_at
from evaluation.plan import ATTACKS
from evaluation.target import Target
from recipes.comparison import load

NUMBERS = (1, 2, 4, 8, 16)
ROWS = {
    "threshold": "loss threshold",
    "calibrated_loss": "calibrated loss",
    "lira_offline": "LiRA offline",
    "rmia_offline": "RMIA offline",
    "lira": "LiRA online",
    "rmia": "RMIA online",
}
PAIRS = {"RMIA − LiRA, offline": ("rmia_offline", "lira_offline"), "RMIA − LiRA, online": ("rmia", "lira")}
RATES = (0.01, 0.001)
MEASURES = ("AUC", *(f"TPR at {rate:.3g} FPR" for rate in RATES))


class Recorded(nn.Module):
    """A model whose answers are known: an example's input is its index in the data set."""

    def __init__(self, logits: np.ndarray):
        super().__init__()
        self.register_buffer("logits", torch.from_numpy(np.asarray(logits)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.get_buffer("logits")[inputs]


@dataclass(frozen=True, eq=False)
class Bench:
    """Models of one recipe, those examples of which some had seen each, and a population that none had seen."""

    fleet: Fleet
    targets: torch.Tensor
    """The label of every example of the data set."""
    audited: np.ndarray
    population: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        models: int | None = None,
        folder: Path | None = None,
        flags: list[str] | None = None,
        only_asked: bool = False,
    ) -> "Bench":
        """A recipe's own fleet.

        Args:
            models: how many; left out, as many as the recipe's attacks have.
            folder: of the cache; left out, that of a run of this recipe.
            only_asked: leaves out the examples that no attack asks about, which the fleet of a run of this recipe answers too.
        """
        comparison = load(name, flags or [])
        job = next(job for job in comparison.jobs() if job.variant == "non_private")
        data = dptrain.data.load(job.recipe.data)
        shares = job.recipe.data.split
        split = draw(len(data), shares, job.seed, data.published_test)
        audited, population = split.audited, split.population
        if only_asked:
            asked = np.union1d(audited, population)
            audited, population = (np.searchsorted(asked, part) for part in (audited, population))
            index = torch.from_numpy(asked)
            data = dataclasses.replace(data, inputs=data.inputs[index], targets=data.targets[index], published_test=0)
        fleet = train_fleet(
            job.recipe,
            data,
            models=models or comparison.evaluation.shadow_models,
            rate=shares.members / (shares.members + shares.non_members),
            test=np.setdiff1d(np.arange(len(data)), audited),
            folder=folder or Path(comparison.output) / "private" / "fleet",
            performance=comparison.performance,
        )
        return cls(fleet, data.targets, audited, population)

    def part(self, indices: np.ndarray) -> LabelledExamples:
        index = torch.from_numpy(indices)
        return LabelledExamples(index, self.targets[index], indices)

    def scores(self, attack: str, target: int, references: np.ndarray) -> np.ndarray:
        """What an attack with these models makes of another one, for each audited example."""
        fleet = dataclasses.replace(
            self.fleet, logits=self.fleet.logits[references], membership=self.fleet.membership[references], weights=None
        )
        made = ATTACKS[f"membership.{attack}"]()
        attacked = Target(
            Recorded(self.fleet.logits[target]), made.access, bounds=(-math.inf, math.inf), classes=self.fleet.logits.shape[2]
        )
        return made.run(attacked, self.part(self.audited), Knowledge(population=self.part(self.population), fleet=fleet))

    def figures(self, attacks: tuple[str, ...], numbers: tuple[int, ...], targets: int) -> dict[tuple[str, int], np.ndarray]:
        """AUC and the rates of each attack with each number of models, ``[targets, measures]``."""
        found: dict[tuple[str, int], np.ndarray] = {}
        generator = np.random.default_rng(np.random.SeedSequence([0, *b"reference models"]))
        orders = [generator.permutation(np.delete(np.arange(len(self.fleet.logits)), target)) for target in range(targets)]
        for attack in attacks:
            for number in numbers:
                rows = []
                for target, order in enumerate(orders):
                    scores = self.scores(attack, target, order[:number])
                    is_member = self.fleet.membership[target, self.audited]
                    measures = [area_under_roc(scores, is_member), *(rate_at(scores, is_member, rate) for rate in RATES)]
                    rows.append([math.nan if measure.value is None else measure.value for measure in measures])
                found[attack, number] = np.array(rows)
        return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """The mean over targets and half its 95% interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def table(found: dict[tuple[str, int], np.ndarray], numbers: tuple[int, ...], measure: int) -> str:
    """One measure in Markdown: a row an attack, a column a number of models."""
    lines = [f"| {MEASURES[measure]}, models | " + " | ".join(map(str, numbers)) + " |", "|---" * (len(numbers) + 1) + "|"]
    rows = {label: [found[name, number] for number in numbers] for name, label in ROWS.items()}
    rows |= {label: [found[one, n] - found[other, n] for n in numbers] for label, (one, other) in PAIRS.items()}
    for label, cells in rows.items():
        sign = "+" if label in PAIRS else ""
        texts = [f"{mean:{sign}.3f} ± {half:.3f}".replace("0.", ".") for mean, half in (interval(c[:, measure]) for c in cells)]
        lines.append(f"| {label} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reference_models")
    parser.add_argument("recipe")
    parser.add_argument("--numbers", type=int, nargs="+", default=list(NUMBERS))
    parser.add_argument("--targets", type=int, default=16)
    parser.add_argument("--models", type=int, help="of the fleet; left out, the recipe's shadow models")
    parser.add_argument("--folder", type=Path, help="where the fleet is kept; left out, the run's own folder")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    bench = Bench.of(options.recipe, options.models, options.folder)
    most = len(bench.fleet.logits) - 1
    numbers = tuple(number for number in options.numbers if 1 <= number <= most)
    if not numbers or not 2 <= options.targets <= most + 1:
        parser.error(f"this fleet has {most + 1} models: give --numbers from 1 to {most}, and --targets from 2 to {most + 1}")
    found = bench.figures(tuple(ROWS), numbers, options.targets)
    for measure, name in enumerate(MEASURES):
        known = not any(np.isnan(rows[:, measure]).any() for rows in found.values())
        print(table(found, numbers, measure) if known else f"{name}: too few non-members to tell", end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
