"""What a model must keep to before it is published: a policy, as a TOML file.

    # policy.toml
    maximum_epsilon = 8.0
    maximum_tpr = 0.05                          # at 1% false positives
    required_attacks = ["membership.lira"]
    require_audit = true

    policy = read(Path("policy.toml"))

Every bound may be left out, and then nothing is held against it. What cannot be judged, such as a bound on an attack that did
not run, is a refusal. A measured figure is held by the end of its interval that is worse for the owner: a leak by its upper
end, utility by its lower one. An attack on few examples or classes has a wide interval, and a bound that it does not meet asks
for a larger evaluation as much as for a better model.

Without a file :data:`DEFAULT` holds: ε of at most 10. Ponomareva et al. 2023 ("How to DP-fy ML") call a guarantee
with ε ≤ 1 strong and with ε ≤ 10 reasonable, and above that one that says little by itself. It bounds no attack, since what an
attack may find depends on who could be harmed by it, which only the owner knows; whatever the policy, failed attacks, those
above the plan and audits that contradict it refuse. Imports no torch.
"""

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dptrain.errors import ConfigError, nearest, unknown_name

LedgerAbove = Literal["refuse", "state"]

SHARES = ("maximum_tpr", "maximum_identification", "maximum_auc", "maximum_link_auc", "minimum_utility")
"""Bounds that are probabilities or shares."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds on what a model may give away, and on what must be known of it.

    Raises:
        ConfigError: a bound that no figure could be held against.
    """

    maximum_epsilon: float | None = None
    """Of everything that the training's ledger counts. Infinity accepts a model that promises nothing."""
    maximum_delta: float | None = None
    maximum_tpr: float | None = None
    """Of membership attacks: the true positive rate at a false positive rate of 1%."""
    maximum_auc: float | None = None
    """Of membership attacks."""
    maximum_identification: float | None = None
    """Of inversions of classes: the share of them whose reconstruction a judge names (`identified_top1`), however it was come
    by: what public data give without the model counts as well."""
    maximum_exposure: float | None = None
    """Of made-up secrets, in bits."""
    maximum_link_auc: float | None = None
    """Of attacks on links: edges in the model's graph against edges held out (`auc_in_graph`)."""
    minimum_utility: float | None = None
    """Of the headline of utility: a share, of which more is better."""
    required_attacks: tuple[str, ...] = ()
    """Registered attacks that must have run and given a figure."""
    minimum_shadow_models: int | None = None
    """Behind the membership attacks that use any."""
    require_audit: bool = False
    """Whether an audit of this recipe must have been made."""
    ledger_above_card: LedgerAbove = "refuse"
    """Where the ledger counts more than the card states, such as updates of a training that crashed: `refuse`, or `state` the
    ledger's ε in the model card and hold it against `maximum_epsilon`."""

    def __post_init__(self) -> None:
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; give a share from 0 to 1, such as 0.1")
        for name in ("maximum_epsilon", "maximum_exposure"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}; give a number from 0 up, such as 8")
        if self.maximum_delta is not None and not 0 <= self.maximum_delta < 1:
            raise ConfigError(f"maximum_delta is {self.maximum_delta}; give a number from 0 to below 1, such as 1e-5")
        if self.minimum_shadow_models is not None and self.minimum_shadow_models < 1:
            raise ConfigError(f"minimum_shadow_models is {self.minimum_shadow_models}; give a whole number from 1 up")
        if self.ledger_above_card not in get_args(LedgerAbove):
            raise unknown_name("value of ledger_above_card", self.ledger_above_card, get_args(LedgerAbove))

    @property
    def bounds(self) -> dict[str, Any]:
        """The keys that ask for something, and what for."""
        blank = {item.name: item.default for item in dataclasses.fields(self)}
        return {name: getattr(self, name) for name, default in blank.items() if getattr(self, name) != default}


DEFAULT = Policy(maximum_epsilon=10.0)
"""Where no file is given; see the module."""


def read(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest one is named), or a value of another kind.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; leave --policy out for the default, ε of at most 10") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = {item.name for item in dataclasses.fields(Policy)}
    for key in table:
        if key not in known:
            guess = nearest(key, known)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise ConfigError(f"{path} has the unknown key {key!r}; {hint}accepted: {', '.join(sorted(known))}")
    return Policy(**{key: _value(path, key, value) for key, value in table.items()})


def _value(path: Path, key: str, value: Any) -> Any:
    accepted, found = _kinds(key, value)
    if found is None:
        raise ConfigError(f"{path} gives {key} = {value!r}; give {accepted}")
    return found


def _kinds(key: str, value: Any) -> tuple[str, Any]:
    """What a key takes, in words, and the value as such; None where it is none."""
    match key:
        case "required_attacks":
            is_names = isinstance(value, list) and all(isinstance(item, str) for item in value)
            return 'a list of names, such as ["membership.lira"]', tuple(value) if is_names else None
        case "require_audit":
            return "true or false", value if isinstance(value, bool) else None
        case "ledger_above_card":
            return " or ".join(map(repr, get_args(LedgerAbove))), value if isinstance(value, str) else None
        case "minimum_shadow_models":
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            return "a whole number, such as 32", value if is_whole else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return "a number", float(value) if is_number else None
