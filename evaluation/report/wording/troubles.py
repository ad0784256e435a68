"""What failed, what does not apply, what an audit refutes, and what each verdict means."""

from evaluation.report.wording.names import budget
from evaluation.result import VERDICTS, AuditCheck, AuditResult, ComparisonResult


def audit_name(found: AuditResult, result: ComparisonResult) -> str:
    """Of a row: the budget, the checkpoint where it is not the last, and whether the recipe is one that ran here."""
    where = f", step {found.step}" if found.step != found.steps else ""
    whose = (
        "" if any(run.recipe_digest == found.recipe_digest for run in result.runs) else ", of a recipe that did not run here"
    )
    return f"ε = {'–' if found.budget is None else budget(found.budget)}{where}{whose}"


def audit_verdict(found: AuditResult) -> str:
    return "not contradicted" if found.ok else "CONTRADICTED"


def seen(check: AuditCheck) -> str:
    """What a plan states, what was seen, and whether the one holds beside the other."""
    low, high = check.seen.low, check.seen.high
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"stated {check.stated:.4g}, seen {check.seen.value:.4g}{interval}: {'holds' if check.ok else 'BROKEN'}"


def broken(result: ComparisonResult) -> list[str]:
    """What failed or did not apply, one sentence each; the same reason on several models is one sentence."""
    lines = [f"FAILED: {failure}" for failure in result.failures]
    lines += [f"CONTRADICTED: {sentence}" for sentence in contradicted(result)]
    unfinished: dict[tuple[str, str, str], list[str]] = {}
    for run in result.runs:
        for attack in run.attacks:
            if attack.status != "ok":
                unfinished.setdefault((attack.status, attack.name, attack.reason), []).append(run.label)
    return lines + [
        f"{status.replace('_', ' ').upper()}: {name} on {_which(labels, len(result.runs))}: {reason}"
        for (status, name, reason), labels in sorted(unfinished.items(), key=lambda item: item[0][0])
    ]


def contradicted(result: ComparisonResult) -> list[str]:
    """Audits that refute a claim, one sentence each."""
    return [
        f"{audit_name(found, result)}: a {found.how} audit refutes the claim: {'; '.join(found.contradictions)}"
        for found in result.audits
        if not found.ok
    ]


def _which(labels: list[str], models: int) -> str:
    if len(labels) == models > 1:
        return f"all {models} models"
    return ", ".join(labels)


def verdict_words(result: ComparisonResult) -> dict[str, str]:
    """Every verdict that the views show, to what it means."""
    shown = {verdict for summary in result.summary for verdict in summary.verdicts.values()}
    shown |= {attack.verdict for run in result.runs for attack in run.attacks if attack.status == "ok"}
    shown |= {verdict for summary in result.summary for item in summary.guarded for verdict in item.verdicts.values()}
    shown = {part for verdict in shown for part in verdict.split("; ")}
    words = {verdict.split(" (")[0] for verdict in shown}
    found = {word: meaning for word, meaning in VERDICTS.items() if word in words}
    if any(verdict.endswith(" failed") for verdict in shown):
        found["failed"] = "the attack broke on so many of the models; figures are of the others, and say nothing of these"
    if any(verdict.endswith(" not applicable") for verdict in shown):
        found["not applicable"] = "the attack cannot be run on so many of the models; that does not make them safe"
    return found
