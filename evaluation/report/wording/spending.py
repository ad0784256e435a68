"""What a data set has spent over every run that read it, a sentence each; the figures are those of its ledger."""

from dptrain.rounding import up
from evaluation.report.wording.names import budget
from evaluation.result import ComparisonResult, LedgerShown, SpentShown

NOT_IN_A_LEDGER = (
    "These data are not in a ledger on the machine that made this page: what other runs on them have spent is not known here, "
    "and the budgets above, each stated for one model alone, add up over models."
)


def spending(result: ComparisonResult) -> list[str]:
    """What is known of all runs on the data of a comparison; that nothing is known, where there is no ledger."""
    return [sentence for account in result.ledger for sentence in of_account(account)] or [NOT_IN_A_LEDGER]


def of_account(account: LedgerShown) -> list[str]:
    """One data set's account in sentences."""
    name = f" ({account.name})" if account.name else ""
    if account.selected:
        said = [
            f"A model was chosen among a random number of trainings on these data{name}. What its choice promises holds for "
            "whoever does not know how many there were, so that runs and their sum are not told here; `dptrain ledger` tells "
            "them to the owner of the data."
        ]
    else:
        said = [f"{_runs(account.runs)} on these data{name} stand in the ledger, with {account.entries} entries."]
    said += [spent(item) for item in account.spent]
    if account.without_guarantee:
        said.append(
            f"{_runs(account.without_guarantee)} of them without a guarantee (no noise, or no clipping): no ε speaks of what "
            "is released of these, and none of the sums above holds together with such a release."
        )
    if account.failed:
        said.append(f"{_runs(account.failed)} failed; what they had used is in the sums.")
    if account.unfinished:
        said.append(f"{_runs(account.unfinished)} did not end; what they may have used is in the sums.")
    for item in account.selected:
        said.append(
            f"{item.name}: the choice costs ε = {up(item.epsilon, 3)} at δ = {item.delta:g}, where the number of trainings was "
            f"drawn at random ({item.distribution}, mean {item.mean:g}; Papernot & Steinke 2022) and the chosen one alone is "
            f"released{f': {item.chosen}' if item.chosen else ''}."
        )
    said += [
        f"If of each selection the chosen model alone is ever released, all that was released has ε = {up(item.epsilon, 3)} at "
        f"δ = {item.delta:g} for one {item.unit} ({item.relation.replace('_', ' ')})."
        for item in account.only_selected
    ]
    if account.limit_epsilon is None:
        said.append("No total was stated that these data may spend.")
    else:
        delta = "" if account.limit_delta is None else f" at δ = {account.limit_delta:g}"
        said.append(f"The stated total is ε = {budget(account.limit_epsilon)}{delta}; a run that would pass it is refused.")
    return said


def spent(item: SpentShown) -> str:
    """What all runs with one unit of privacy have spent together."""
    return f"Together they have spent {_figure(item)}; the largest single one ε = {up(item.largest, 3)}."


def _figure(item: SpentShown) -> str:
    relation = item.relation.replace("_", " ")
    return (
        f"ε = {up(item.epsilon, 3)} at δ = {item.delta:g} for one {item.unit} ({relation}), over {_runs(item.runs)} and "
        f"{item.steps} updates, composed"
    )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
