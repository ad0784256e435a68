"""What was not tested, a sentence each; the facts are those of :mod:`evaluation.untested`."""

from evaluation.report.wording.names import budget, measure_name
from evaluation.result import ComparisonResult, Untested

FEW_SEEDS = 3


def left_out(result: ComparisonResult) -> list[str]:
    """Sentences on what could still be asked of the same models; the attacks that did not run are listed beside them."""
    found = result.untested
    return [] if found is None else [*_attacks(found), *_knowledge(found), *_repeated(found), *_audits(found)]


def _attacks(found: Untested) -> list[str]:
    said = []
    if found.attacks:
        said.append(
            f"{len(found.attacks)} attacks of the registry on data of this kind did not run; `dptrain evaluate RUN --attacks "
            "NAME` runs one on the same models."
        )
    if found.unresolved:
        names = ", ".join(map(measure_name, found.unresolved))
        said.append(f"There were too few examples for: {names}.")
    return said


def _knowledge(found: Untested) -> list[str]:
    said = []
    if found.access:
        said.append(f"No attack ran with just this access: {', '.join(found.access)}.")
    if found.guards == "none stood before the models":
        said.append("No guard stood before the models: what is left to attackers behind one was not measured.")
    if found.shadow_models is None:
        said.append("No attack had shadow models: who trains models of the same recipe may get more.")
    else:
        said.append(
            f"Attacks with shadow models had {found.shadow_models} of them; with more, an attacker may get more (Carlini et "
            "al. 2022 use up to 256)."
        )
    return said


def _repeated(found: Untested) -> list[str]:
    said = []
    if 0 < found.seeds < FEW_SEEDS:
        times = "once" if found.seeds == 1 else f"{found.seeds} times"
        said.append(f"Some rows were trained {times}: intervals over so few seeds do not show how seeds differ.")
    if found.rows_without_twin:
        models = ", ".join(found.rows_without_twin[:4]) + (", ..." if found.rows_without_twin[4:] else "")
        said.append(f"Without a non-private model of the same seed, which shows what an attack can find: {models}.")
    if not found.checkpoints:
        said.append("The last checkpoint of each model was attacked, and no earlier one.")
    return said


def _audits(found: Untested) -> list[str]:
    if not found.budgets_without_audit:
        return []
    budgets = ", ".join(f"ε = {budget(epsilon)}" for epsilon in found.budgets_without_audit)
    return [f"No audit tried to refute what is claimed at {budgets}; `dptrain audit RECIPE` plays one."]
