"""Whether a trained model may be published: what its folder, its audits and the attacks on it say, against a policy.

    found = clear(Released.read(run), Evidence.of(released, planned=("membership.lira",)), policy, guard="top5-rounded")
    found.granted                       # only where every check is met
    [check for check in found.checks if check.verdict != "met"]

**Which attacks count.** Those on exactly these weights: a result names the manifest that it attacked. All that were planned
must have run, none may have failed, and none may be above the plan, at no checkpoint. A policy's bounds are held against what
is to be shown: without a guard, all attacks on the model itself; with one, the attacks that were made through it, since whoever
asks a server sees no more. Attacks through another guard say nothing of it.

**How a figure is held.** By the end of its 95% interval that is worse for the owner: a leak by the upper end and utility by the
lower one, so that a figure that is not known well enough does not pass. Every attack of the bound's family counts, whatever its
verdict; and that a bound is met takes at least one whose result is not withheld and had a signal. An attack of the family that
ran and does not give the figure leaves the bound unjudged.

**Audits.** None that is kept beside the comparison may contradict its claim, whichever recipe it is of: all have one mechanism.
No bound of this recipe that holds for any mechanism may lie above the card's ε.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dptrain.errors import CheckpointError
from dptrain.release.checks import Check, Outcome, Released, of_account, of_release
from dptrain.release.policy import Policy
from dptrain.rounding import down, up
from evaluation.clearance_bounds import of_bounds
from evaluation.clearance_guards import shown
from evaluation.result import AttackResult, AuditResult, Measure, RunResult, read_run

ANY_MECHANISM = "any mechanism"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found out about a model, beside its own folder."""

    result: RunResult | None
    """Of exactly these weights."""
    results: tuple[RunResult, ...] = ()
    """Of all its checkpoints."""
    missing: str = ""
    """Why there is no result."""
    planned: tuple[str, ...] = ()
    """Attacks that its comparison asks for."""
    audits: tuple[AuditResult, ...] = ()
    """All that are kept beside the comparison."""
    unread: tuple[str, ...] = ()
    """A sentence for each audit that cannot be read."""
    unread_results: tuple[str, ...] = ()
    """The same of results of checkpoints."""
    evaluate: str = "dptrain evaluate RUN"
    """What to type to attack it again."""
    audit: str = "dptrain audit RECIPE"
    """What to type to audit its recipe."""

    @classmethod
    def of(cls, released: Released, **known: Any) -> "Evidence":
        """With the results that lie below the run."""
        results, unread, missing = [], [], "no attack has been made on it"
        for path in sorted((released.run / "evaluation").glob("step=*/result.json")):
            try:
                results.append(read_run(path))
            except CheckpointError as error:
                unread.append(missing := str(error))
        own = [result for result in results if result.release_digest == released.digest]
        if results and not own:
            missing = "the attacks that are kept were made on other weights or another card"
        found = {"result": own[-1] if own else None, "results": tuple(results), "unread_results": tuple(unread)}
        return cls(**found, missing=missing, **known)


@dataclass(frozen=True, kw_only=True)
class Clearance:
    """All checks, in the order in which they are shown."""

    checks: tuple[Check, ...]
    epsilon: float
    """To be stated of the model."""
    judged: tuple[AttackResult, ...] = ()
    """Attacks that bounds were held against."""
    utility: Measure | None = None
    """Of what is to be shown."""

    @property
    def granted(self) -> bool:
        return bool(self.checks) and all(check.verdict == "met" for check in self.checks)

    @property
    def refusals(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.verdict != "met")


def clear(released: Released, evidence: Evidence, policy: Policy, guard: str | None = None) -> Clearance:
    """Every check of a model. Nothing is written.

    Args:
        guard: behind which the model will be asked; None where its weights or its plain scores are shown.
    """
    account, epsilon = of_account(released, policy)
    before = released.card.get("recipe", {}).get("release", {}).get("guard")
    seen = shown(evidence.result, before, guard)
    checks = (
        *of_release(released),
        *account,
        *_of_audits(released, evidence, policy),
        *_of_results(released, evidence, policy),
        *seen.checks,
        *of_bounds(evidence.result, seen.attacks, seen.utility, policy, evidence.evaluate),
    )
    return Clearance(checks=checks, epsilon=epsilon, judged=seen.attacks, utility=seen.utility)


# -- audits ---------------------------------------------------------------------------------------------------------


def _of_audits(released: Released, evidence: Evidence, policy: Policy) -> Iterator[Check]:
    digest = str(released.card.get("recipe_digest", ""))
    own = [one for one in evidence.audits if digest and one.recipe_digest == digest]
    required = "no audit that contradicts its claim, and no bound above ε"
    against = [f"{one.how} at step {one.step}: {'; '.join(one.contradictions)}" for one in evidence.audits if not one.ok]
    against += [
        f"{bound.method} gives ε ≥ {down(bound.epsilon)} at step {one.step}, and the card states {up(released.epsilon, 3)}"
        for one in own
        for bound in one.bounds
        if bound.holds_for == ANY_MECHANISM and not bound.epsilon <= released.epsilon and one.step <= released.steps
    ]
    if against:
        yield Check(
            name="audits",
            verdict="not met",
            found="; ".join(against),
            required=required,
            to_do="do not publish any model of this comparison before it is known why; removing the audit mends nothing",
        )
    elif evidence.unread:
        mend = "restore it from a copy, or audit again and remove the damaged file"
        found = "; ".join(evidence.unread)
        yield Check(name="audits", verdict="cannot be judged", found=found, required=required, to_do=mend)
    else:
        bounds = [bound.epsilon for one in own for bound in one.bounds if bound.holds_for == ANY_MECHANISM]
        most = f"; the largest bound is ε ≥ {down(max(bounds))}" if bounds else ""
        yield Check(name="audits", verdict="met", found=f"{len(own)} of this recipe{most}", required=required)
    if policy.require_audit:
        whole = [one for one in own if one.step == released.steps and any(bound.is_bound for bound in one.bounds)]
        yield Check(
            name="require_audit",
            verdict="met" if whole else "not met",
            found=f"{len(whole)} of this recipe's last step",
            required="an audit of this recipe, at its last step",
            to_do="" if whole else f"type `{evidence.audit}`",
        )


# -- results --------------------------------------------------------------------------------------------------------


def _of_results(released: Released, evidence: Evidence, policy: Policy) -> Iterator[Check]:
    result, again = evidence.result, f"type `{evidence.evaluate}`"
    exact, within = "attacks on exactly these weights", "no attack above the plan, at any checkpoint"
    if result is None:
        yield Check(name="results", verdict="cannot be judged", found=evidence.missing, required=exact, to_do=again)
    else:
        same = result.recipe_digest == released.card.get("recipe_digest", "") and result.step == released.steps
        found = f"{len(result.attacks)} attacks on them" if same else "a result of another recipe or step under this digest"
        verdict: Outcome = "met" if same and result.attacks else "cannot be judged"
        yield Check(name="results", verdict=verdict, found=found, required=exact, to_do="" if verdict == "met" else again)
    made = () if result is None else _all_attacks(result)
    if result is not None:
        missing = [name for name in evidence.planned if name not in {attack.name for attack in result.attacks}]
        failed = [f"{attack.name} ({attack.reason})" for attack in made if attack.status == "failed"]
        yield _listed("attacks_complete", missing, "all that the comparison asks for", "missing", again)
        yield _listed("attacks_failed", failed, "no attack that failed", "failed", f"mend it, and {again}")
    above = [
        f"{attack.name} at step {one.step} ({attack.reason})"
        for one in evidence.results
        for attack in _all_attacks(one)
        if attack.verdict == "above the plan"
    ]
    if not above and evidence.unread_results:
        mend = f"restore it from a copy, or remove it and attack that checkpoint again ({again})"
        yield Check(
            name="within_the_plan",
            verdict="cannot be judged",
            found="; ".join(evidence.unread_results),
            required=within,
            to_do=mend,
        )
    elif result is not None or above:
        stop = "do not publish it: either the mechanism is not the one that was counted, or the measurement is wrong"
        yield _listed("within_the_plan", above, within, "above the plan", stop)
    if policy.required_attacks:
        lacking = sorted({*policy.required_attacks} - {attack.name for attack in made if attack.status == "ok"})
        how = f"type `{evidence.evaluate} --attacks {' '.join(lacking)}`, or leave out what does not apply to this model"
        yield _listed("required_attacks", lacking, ", ".join(policy.required_attacks), "missing", how)


def _listed(name: str, wrong: list[str], required: str, word: str, to_do: str) -> Check:
    found = f"{word}: {', '.join(wrong)}" if wrong else f"none {word}"
    verdict: Outcome = "not met" if wrong else "met"
    return Check(name=name, verdict=verdict, found=found, required=required, to_do=to_do if wrong else "")


def _all_attacks(result: RunResult) -> tuple[AttackResult, ...]:
    """Also those through guards."""
    through = (attack for one in result.guarded for attack in one.attacks)
    return (*result.attacks, *through)
