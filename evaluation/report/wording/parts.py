"""What stands where in a result: measures by their names, attacks, chance, and who has no model."""

from evaluation.report.wording.names import is_rate
from evaluation.result import AttackResult, ComparisonResult, Measure, Summary


def find(summary: Summary, name: str) -> Measure | None:
    """A measure by its name: of an attack (``<attack>/<metric>``), or of what the model is worth."""
    every = (summary.utility, *summary.further_utility, *summary.measures)
    return next((measure for measure in every if measure.name == name), None)


def utility_names(result: ComparisonResult) -> list[str]:
    """The measures of what a model is worth, the headline first."""
    return list(dict.fromkeys(item.name for summary in result.summary for item in (summary.utility, *summary.further_utility)))


def unit_of_value(result: ComparisonResult) -> list[str]:
    """In which unit errors are, where a value is predicted."""
    value = result.data.get("value")
    return [f"What is predicted is {value['name']}; its errors are in {value['unit']}."] if value else []


def measure_names(result: ComparisonResult) -> list[str]:
    """Every ``<attack>/<metric>`` that occurs, in order of first sight."""
    return list(dict.fromkeys(measure.name for summary in result.summary for measure in summary.measures))


def measured_names(result: ComparisonResult) -> list[str]:
    """Those of :func:`measure_names` that can be drawn: shares with a value for at least one model."""
    found = {item.name for summary in result.summary for item in summary.measures if item.value is not None}
    return [name for name in measure_names(result) if name in found and is_rate(name)]


def headlines(result: ComparisonResult) -> dict[str, str]:
    """Attack to the ``<attack>/<metric>`` that it is judged by."""
    found: dict[str, str] = {}
    for run in result.runs:
        for attack in run.attacks:
            if attack.status == "ok":
                found.setdefault(attack.name, f"{attack.name}/{attack.metric}")
    return found


def attacks(result: ComparisonResult) -> list[str]:
    """Every attack that occurs, also where it failed."""
    return list(dict.fromkeys(attack.name for run in result.runs for attack in run.attacks))


def applicable(result: ComparisonResult) -> list[str]:
    """Every attack that ran on at least one model, also where it failed; :func:`broken` names the others."""
    ran = {attack.name for run in result.runs for attack in run.attacks if attack.status != "not_applicable"}
    return [name for name in attacks(result) if name in ran]


def chances(result: ComparisonResult) -> dict[str, float]:
    """``<attack>/<metric>`` to what an attack without any signal gets."""
    found: dict[str, float] = {}
    for attack in (attack for run in result.runs for attack in run.attacks if attack.status == "ok"):
        if attack.chance is not None:
            found[f"{attack.name}/{attack.metric}"] = attack.chance
        found |= {f"{attack.name}/{metric}": chance for metric, chance in attack.chance_metrics.items()}
    return found


def judges(result: ComparisonResult, attack: str) -> list[str]:
    """How accurate those are who judge an attack's pictures: the lowest and the highest over all runs."""
    found: dict[str, list[float]] = {}
    for item in (item for run in result.runs for item in run.attacks if item.name == attack):
        for judge in item.judges:
            found.setdefault(judge.name, []).append(judge.value or 0.0)
    return [f"{name.replace('_', ' ')} {min(values):.2f} to {max(values):.2f}" for name, values in found.items()]


def likeness_without_model(result: ComparisonResult, attack: str) -> dict[str, dict[str, Measure]]:
    """Who has no model, to the distances and similarities of what he has: no model has a part in them, so the first row's."""
    found: dict[str, dict[str, Measure]] = {}
    for measure in result.summary[0].beside if result.summary else ():
        name, _, rest = measure.name.partition("/")
        who, _, metric = rest.partition("/")
        if name == attack and metric:
            found.setdefault(who, {})[metric] = measure
    return found


def levels(result: ComparisonResult, name: str) -> dict[str, float]:
    """What those who have no model get, as one level for all rows (no model has a part in it), where that is a part of an
    attack's curve: of an attribute inference the prior, imputation and the ideal."""
    attack, _, metric = name.partition("/")
    curves = (headlines(result).get(attack), f"{attack}/guessed_held_out")  # they are of the people of the second
    if not attack.startswith("attribute.") or f"{attack}/{metric}" not in curves:
        return {}
    about_it = about(result, attack)
    names = [] if about_it is None else [item.name for item in about_it.baselines]
    known = {name: beside(result.summary[0], attack, name) for name in names}
    return {name.replace("_", " "): value for name, value in known.items() if value is not None}


def beside(summary: Summary, attack: str, name: str) -> float | None:
    """The mean over seeds of one of an attack's baselines or controls."""
    return next((item.value for item in summary.beside if item.name == f"{attack}/{name}"), None)


def about(result: ComparisonResult, attack: str) -> AttackResult | None:
    """One result of this attack that is whole, for its paper, access and chance."""
    return next((item for run in result.runs for item in run.attacks if item.name == attack and item.status == "ok"), None)
