"""Whose answers an attacker can make by itself, of those that it sees.

    simulates("", "top5-rounded")           # True: who sees scores can show itself the five best, rounded
    simulates("top5", "label_only")         # True: the best of the five
    simulates("label_only", "top5")         # False

A guard reads a model's outputs. What one guard makes of another one's answers, whoever sees these can make as well, so that
nobody is kept from an attack on less than is shown (post-processing: Dwork and Roth 2014, "The Algorithmic Foundations of
Differential Privacy", proposition 2.1). An attack that was measured behind a guard is then an attack of all who can make that
guard's answers, and gets the same from them; where the guard draws, it gets the same on average.

True is said of what follows from the texts alone, of guards that came along; False does not mean that it cannot be done.
"""

from dptrain.errors import ConfigError
from dptrain.registry import GUARDS
from dptrain.release.parts import TERMS, Part, parse

IN_ORDER = frozenset({"top", "labels"})
"""Guards that show the best classes, and in their order."""


def simulates(own: str, other: str) -> bool:
    """Whether the answers behind a guard suffice to make those behind another one.

    Args:
        own: empty for the scores themselves.
        other: empty for the scores themselves.
    """
    try:
        have, want = _parts(own), _parts(other)
    except ConfigError:  # a result may name a guard that its user registered elsewhere
        return own == other
    return any(_adds(start, want) for start in [have, *_fewer(have, want)])


def _parts(guard: str) -> tuple[Part, ...]:
    return parse(guard) if guard else ()


def _adds(have: tuple[Part, ...], want: tuple[Part, ...]) -> bool:
    """Whether the wanted parts are these and further ones that anyone can make."""
    further = want[len(have) :]
    return want[: len(have)] == have and all(part.name in TERMS and TERMS[part.name].fitted_on != "members" for part in further)


def _fewer(have: tuple[Part, ...], want: tuple[Part, ...]) -> list[tuple[Part, ...]]:
    """Guards that show less in the same order, among them all with which the wanted text may begin."""
    ordered = bool(have) and have[0].name in IN_ORDER and all(part.name in {*IN_ORDER, "rounded"} for part in have)
    found: list[tuple[Part, ...]] = []
    if ordered or all(GUARDS[part.name].keeps_labels for part in have):
        found.append((Part("label_only"),))
    if not ordered or not want or want[0].name not in IN_ORDER:
        return found
    count = want[0].number or 0
    if want[0].name == "labels" and count <= min(part.number or 0 for part in have if part.name in IN_ORDER):
        found.append(want[:1])
    if want[0].name == have[0].name and count <= (have[0].number or 0) and all(part.name == "rounded" for part in have[1:]):
        found.append((want[0], *have[1:]))
    return found
