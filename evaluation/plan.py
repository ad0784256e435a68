"""What is done to every checkpoint, and the registry of attacks. Imports no torch.

An attack is registered under ``family.name``; the family says how it is judged. ``membership.*`` gives a score an example
(higher means member); ``inversion.*`` gives one reconstruction a class::

    from evaluation.plan import ATTACKS
    from evaluation.membership import MembershipAttack

    @ATTACKS.register("membership.confidence", "highest score, whatever the label")
    class Confidence(MembershipAttack):
        access = Access.SCORES
        paper = "..."

        def run(self, target, examples, knowledge):
            return target.scores(examples.inputs).max(1)
"""

from dataclasses import dataclass
from typing import Any

from dptrain.errors import ConfigError
from dptrain.registry import Builtin, Registry

ATTACKS: Registry[Any] = Registry(
    "attack",
    {
        "membership.threshold": Builtin(
            "evaluation.membership.threshold:LossThreshold",
            "the smaller the loss, the more a member (Yeom et al. 2018)",
        ),
        "membership.lira": Builtin(
            "evaluation.membership.lira:Lira",
            "likelihood ratio over shadow models of the same recipe (Carlini et al. 2022)",
        ),
        "inversion.class": Builtin(
            "evaluation.inversion.class_:ClassInversion",
            "what a class looks like, from its score (Fredrikson et al. 2015)",
        ),
    },
)

FAMILIES = ("membership", "inversion")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Which attacks, and how much they may spend."""

    attacks: tuple[str, ...] = ("membership.threshold", "membership.lira", "inversion.class")
    """Registered attacks; `dptrain list` shows them."""
    shadow_models: int = 32
    """Models that imitate the target, trained by its own recipe, for the attacks that need them."""
    false_positive_rates: tuple[float, ...] = (0.01,)
    """At which the true positive rate is reported."""
    inversion_steps: int = 300
    """Gradient steps of an inversion, at most."""
    inversion_restarts: int = 4
    """Starting points of an inversion; the one that the target likes best is kept."""

    def __post_init__(self) -> None:
        for name in self.attacks:
            ATTACKS.check(name)
            if name.split(".")[0] not in FAMILIES:
                raise ConfigError(f"the attack {name!r} is of no known family; name it {' or '.join(FAMILIES)}.something")
        if self.shadow_models < 4:
            raise ConfigError(f"evaluation.shadow_models is {self.shadow_models}; give at least 4, better 16 or more")
        for name in ("inversion_steps", "inversion_restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name} is {getattr(self, name)}; give a whole number from 1 up")
        if any(not 0 < rate < 1 for rate in self.false_positive_rates):
            raise ConfigError(
                f"evaluation.false_positive_rates is {self.false_positive_rates}; give shares above 0 and below 1"
            )
