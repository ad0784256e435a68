"""What `dptrain release` says to the owner of a model, as text and as JSON. What was found is theirs alone.

print(text(found, published))
"""

from pathlib import Path

from dptrain.plain import as_plain
from recipes.release import MONITOR, Examined, as_text
from recipes.release_monitor import said_of

SCHEMA = "dptrain.clearance/1"


def text(found: Examined, published: Path | None) -> str:
    """All checks, and what became of it."""
    clearance = found.clearance
    bounds = ", ".join(f"{name} = {value}" for name, value in found.policy.bounds.items()) or "no bound"
    which = "the default policy" if found.options.policy is None else str(found.options.policy)
    lines = [f"{found.run}, by {which} ({bounds}):", ""]
    for check in clearance.checks:
        lines.append(f"  {check.verdict:<16} {check.name:<22} {check.found}")
        if check.verdict != "met":
            lines += [f"{'':<19}{word:<22} {said}" for word, said in (("  required", check.required), ("  to do", check.to_do))]
    lines += ["", *found.notes]
    if published is None:
        count = len(clearance.refusals)
        verb = "is" if count == 1 else "are"
        lines.append(f"REFUSED: {count} of {len(clearance.checks)} checks {verb} not met. Nothing was written.")
    else:
        lines += [
            f"Published: {published}, all of which may be handed on." if found.guard is None else _for_a_server(published)
        ]
        lines.append(said_of(published / MONITOR))
        lines.append("What was found, above, is computed from private examples: it is for you alone.")
    return "\n".join(lines)


def document(found: Examined, published: Path | None) -> str:
    """The same as one JSON document. What was found is in it: it is for the owner."""
    return as_text(
        {
            "schema": SCHEMA,
            "granted": found.clearance.granted,
            "run": str(found.run),
            "policy": as_plain(found.policy),
            "guard": found.options.guard,
            "epsilon": as_plain(found.clearance.epsilon),
            "checks": as_plain(found.clearance.checks),
            "notes": list(found.notes),
            "published": None if published is None else str(published),
        }
    ).rstrip()


def _for_a_server(published: Path) -> str:
    return f"Published: {published}, for a server with the guard. The folder holds the weights: do not hand it on."
