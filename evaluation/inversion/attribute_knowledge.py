"""What an attacker of a hidden column knows beside the model, and what of a person an attack sees.

    knowledge = AttributeKnowledge(layout, "VKORC1", ("Age", "Race"), population, population_targets)
    people = knowledge.people(inputs, targets)              # hidden and unknown columns are wiped out here

Prior, error model and imputation are fitted on the population part of the split (or on public rows): people of the same kind
who are neither trained on nor attacked. Nothing of those who are attacked reaches an attack but their known columns and
their outcome.
"""

from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor

from dptrain.errors import DataError
from evaluation.inversion.columns import Layout


@dataclass(frozen=True, eq=False)
class People:
    """Those who are attacked, as the attacker sees them. Made by :meth:`AttributeKnowledge.people`."""

    inputs: Float[Tensor, "people inputs"]
    """Zero in the hidden and in the unknown columns."""
    targets: Shaped[Tensor, " people"]
    """The true outcome of each: encoded value, or class."""

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class AttributeKnowledge:
    """What the attacker knows beside the model.

    Raises:
        DataError: a column does not exist, the hidden one is known, or nobody is in the population.
    """

    layout: Layout
    hidden: str
    known: tuple[str, ...]
    """Any subset of the other columns."""
    population: Float[Tensor, "population inputs"]
    """Whole rows of people who are neither trained on nor attacked."""
    population_targets: Shaped[Tensor, " population"]

    def __post_init__(self) -> None:
        for name in (self.hidden, *self.known):
            self.layout.column(name)
        if self.hidden in self.known:
            raise DataError(f"the hidden column {self.hidden!r} is among the known ones; leave it out of them")
        if len(set(self.known)) != len(self.known):
            raise DataError(f"the known columns {self.known} name one twice; name each once")
        if len(self.population) < 2 or len(self.population) != len(self.population_targets):
            raise DataError(
                f"the population has {len(self.population)} rows and {len(self.population_targets)} targets; give at least two "
                "rows with one target each, by a larger --data.split.population"
            )
        if self.population.shape[1] != self.layout.width:
            raise DataError(f"rows have {self.population.shape[1]} inputs, and the columns make {self.layout.width}")

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns that the attacker neither knows nor asks for."""
        return tuple(name for name in self.layout.names if name != self.hidden and name not in self.known)

    def rounds(self, draws: int) -> int:
        """How often unknown columns are drawn to average over them; once where there are none."""
        return draws if self.unknown else 1

    def people(self, inputs: Float[Tensor, "people inputs"], targets: Shaped[Tensor, " people"]) -> People:
        """Rows with the hidden and the unknown columns wiped out."""
        seen = inputs.clone()
        for name in (self.hidden, *self.unknown):
            seen[:, self.layout.place(name)] = 0.0
        return People(seen, targets)
