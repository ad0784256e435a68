from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The ε of a plan, as two independent accountants count it."""

    epsilon: float
    """Reported: the PRV accountant's upper end."""
    cross_check: float
    """The same plan by the PLD accountant."""
    delta: float
    accountant: str
    cross_check_accountant: str
    unit: str
    relation: str
    statement: str
    """ε as a paragraph, with its assumptions."""


