"""From an attack on made-up secrets to its result: exposure in bits, and the share of them that the model says.

A coin decided for each secret of the data set (:mod:`dptrain.data.secrets`) whether it was trained on; those that were not are
the control, and no figure of theirs may be above chance. Headlines are of the inserted secrets that stand in the most examples.

**Exposure** (``extraction.exposure``, :mod:`evaluation.extraction.exposure`). Exact ranks, where a format has few enough
candidates to go through; secrets of other formats have estimates alone, and where there are no others, the estimate by sampling
is the headline. Its interval is Student's over the secrets; those of the two estimates are theirs, for these very secrets. A
*leak* is a sum of exposures that secrets without insertion reach in at most one of forty cases, by the exact distribution of a
uniform rank.

Of a model of tokens (:mod:`evaluation.extraction.tokens`) no rank is exact, as there is no state that a million candidates
share, and the estimate by sampling is the headline.

**Generation** (``extraction.generation``, :mod:`evaluation.extraction.generation`). The share that the restricted search names,
with Clopper and Pearson's interval; chance is one guess among all candidates. Other methods stand beside it, and how many
strings that look like a secret the model says without being asked, out of its training text and not out of the public one.

**Controls.** Of secrets that no model saw (``never_inserted``) and of inserted ones as models without them rank or name them
(``untrained``: fresh weights; ``public_only``: what training began from, where public text taught it) every figure is as by
chance; where one is not, the verdict is withheld. Of a private model, ``equal_loss`` is the exposure in its non-private twin,
stopped where it was worth as much (:mod:`evaluation.equal_loss`): a model that has learned little gives away little, noise or
not, and only what lies below this control was bought by noise.

**What a plan permits** is :mod:`evaluation.extraction.bound`'s, with one unit of the plan for each insertion, or one for all of
them where the unit is the user and they are one made-up user's. A rank r of N
is a p-value T(r/N) against the plan, and twice the mean of p-values is one, however they depend on each other (Rüschendorf
1982; Vovk and Wang 2020, "Combining p-values via averaging"): secrets of one model share its noise. Each number of insertions
is tested so, with an equal part of the error of one in twenty.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from dptrain.data.secrets import PATTERNS, Secret
from evaluation.analysis import Case
from evaluation.baselines import GATE
from evaluation.equal_loss import Stopped, stopped_twin
from evaluation.extraction import bound, exposure, generation, patterns, tokens
from evaluation.extraction.attacks import ExposureAttack, GenerationAttack, Ranked, named, said
from evaluation.extraction.generation import METHODS, SAMPLES, Tries
from evaluation.membership import NotApplicable
from evaluation.metrics import proportion
from evaluation.result import AttackResult, Measure, TextSample, Verdict
from evaluation.target import Target

ERROR = 0.05
SHOWN = 2
"""Secrets of each number of insertions, inserted or not, whose texts are kept: the first ones."""
UNPROMPTED = 500
"""Sequences that the model writes without being asked for anything."""
KNOW_NOTHING = {
    "never_inserted": "secrets that were never inserted",
    "untrained": "inserted secrets, ranked by fresh weights,",
    "public_only": "inserted secrets, ranked by what has seen public text alone,",
}


def secrets(case: Case, name: str, attack: ExposureAttack | GenerationAttack) -> AttackResult:
    """Runs one attack on the made-up secrets, and judges it.

    Raises:
        NotApplicable: the model is no language model, there are no made-up secrets, none was inserted, or a guard stands before
            the model.
    """
    if case.target.kind != "language":
        raise NotApplicable("the model is no language model, and says no text")
    if not case.data.planted:
        raise NotApplicable("there are no made-up secrets in the text; plant some with --data.secrets.each 8")
    if case.target.guard is not None:
        raise NotApplicable("a guard stands before the scores, and none is known that answers for text")
    planted = _Planted(case)
    if isinstance(attack, ExposureAttack):
        return _exposure(case, name, attack, planted)
    return _generation(case, name, attack, planted)


class _Planted:
    """The secrets, and who was trained on which."""

    def __init__(self, case: Case):
        assert case.data.planted is not None
        members = set(case.split.members.tolist())
        self.secrets = case.data.planted
        self.tokenizer = case.data.tokenizer
        self.inserted = np.array([set(secret.examples) <= members for secret in self.secrets])
        self.insertions = np.array([secret.insertions for secret in self.secrets])
        held = [
            bound.units_of(case.plan, one.examples, case.data.users) if case.plan else one.insertions for one in self.secrets
        ]
        self.units = {count: max(np.array(held)[self.insertions == count].tolist()) for count in set(self.insertions.tolist())}
        """In how many of the plan's units a secret of so many insertions stands."""
        if not self.inserted.any() or self.inserted.all():
            raise NotApplicable(
                f"{int(self.inserted.sum())} of {len(self.secrets)} made-up secrets were trained on, and both kinds are "
                "needed; raise data.secrets.each, or take another seed"
            )

    def counts(self, among: np.ndarray) -> list[int]:
        """Numbers of insertions that occur among these inserted secrets, the largest first."""
        return sorted(set(self.insertions[self.inserted & among].tolist()), reverse=True)

    def of(self, count: int) -> np.ndarray:
        """Which secrets were inserted so often."""
        return self.inserted & (self.insertions == count)

    def take(self, which: np.ndarray) -> list[Secret]:
        return [self.secrets[index] for index in np.flatnonzero(which)]

    def shown(self) -> list[int]:
        """The first ones of each kind, those with the most insertions first."""
        chosen: list[int] = []
        for count in sorted(set(self.insertions.tolist()), reverse=True):
            for inserted in (True, False):
                chosen += np.flatnonzero((self.insertions == count) & (self.inserted == inserted))[:SHOWN].tolist()
        return chosen


def _generator(case: Case, name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([case.seed, *name.encode()]))


def _texts(
    target: Target, planted: _Planted, bits: dict[int, float] | None = None, guesses: list[str] | None = None
) -> tuple[TextSample, ...]:
    return tuple(
        TextSample(
            before=planted.secrets[index].before,
            secret=planted.secrets[index].secret,
            said=said(target, planted.secrets[index], planted.tokenizer),
            inserted=bool(planted.inserted[index]),
            insertions=planted.secrets[index].insertions,
            exposure=None if bits is None else bits.get(index),
            guess="" if guesses is None else guesses[index],
        )
        for index in planted.shown()
    )


# -- exposure -------------------------------------------------------------------------------------------------------


def _exposure(case: Case, name: str, attack: ExposureAttack, planted: _Planted) -> AttackResult:
    generator, target = _generator(case, name), case.target.behind(attack.access)
    ranked = attack.run(target, planted.secrets, generator, planted.tokenizer)
    exact = np.array([one.rank is not None for one in ranked])
    spaces = np.array([one.space for one in ranked])
    among = (
        exact if (exact & planted.inserted).any() and (exact & ~planted.inserted).any() else np.ones(len(ranked), dtype=bool)
    )
    bits = np.array([_bits(one) for one in ranked])
    first, *others = planted.counts(among)
    head, never = planted.of(first) & among, ~planted.inserted & among
    headline = exposure.mean_exposure(bits[head], "", float(spaces[head].max()))
    groups = {count: planted.of(count) & among for count in (first, *others)}
    metrics = [
        exposure.mean_exposure(bits[groups[count]], f"exposure_inserted_{count}", float(spaces[groups[count]].max()))
        for count in others
    ]
    metrics += [
        Measure(name=f"median_exposure_inserted_{count}", value=float(np.median(bits[group])))
        for count, group in groups.items()
    ]
    metrics.append(exposure.mean_without_insertion(bits[never], "exposure_never_inserted"))
    metrics += _estimates([ranked[index] for index in np.flatnonzero(head)], generator)
    if exact[head].all():
        metrics.append(
            proportion(sum(ranked[index].rank == 1 for index in np.flatnonzero(head)), int(head.sum()), "ranked_first")
        )
    without = {"never_inserted": bits[never]}
    twin: Stopped | None = None
    controls: list[Measure] = []
    if exact[head].all():
        for control, model in _without_secrets(case):
            without[control] = _exact_bits(planted.take(head), partial(_once, case, model, _rank_of(attack, model), _RANKS))
        twin = stopped_twin(case)
    if twin is not None:
        found = _exact_bits(planted.take(head), _rank_of(attack, twin.target))
        measure = exposure.mean_exposure(found, "equal_loss", float(spaces[head].max()))
        controls.append(dataclasses.replace(measure, note=twin.about))
    controls = [*(exposure.mean_without_insertion(found, control) for control, found in without.items()), *controls]
    result = AttackResult(
        name=name,
        status="ok",
        metric="exposure" if exact[head].all() else "exposure_by_sampling",
        value=headline.value,
        low=headline.low,
        high=headline.high,
        chance=float(np.mean([exposure.without_insertion(space) for space in spaces[head]])),
        permitted=_permitted_bits(case, planted.units[first], spaces[head]),
        access=attack.access.word,
        paper=attack.paper,
        metrics=tuple(metrics),
        permitted_metrics={
            f"exposure_inserted_{count}": permitted
            for count in others
            if (permitted := _permitted_bits(case, planted.units[count], spaces[groups[count]])) is not None
        },
        controls=tuple(controls),
        texts=_texts(target, planted, {int(index): float(bits[index]) for index in np.flatnonzero(exact)}),
    )
    verdict, reason = _verdict_of_bits(case, planted, bits, spaces, groups, without)
    beside = "" if twin is None else f"; {controls[-1].value:.1f} bits in {twin.about}"
    return dataclasses.replace(result, verdict=verdict, reason=reason + beside)


def _without_secrets(case: Case) -> list[tuple[str, Target]]:
    """Models that have seen no secret, by the names of the controls that they are."""
    models = {"untrained": case.untrained, "public_only": case.reference}
    return [(name, model) for name, model in models.items() if model is not None]


def _exact_bits(secrets: Sequence[Secret], rank_of: Callable[[Secret], int]) -> np.ndarray:
    return np.array([exposure.exact(rank_of(one), PATTERNS[one.format].space) for one in secrets])


def _rank_of(attack: ExposureAttack, model: Target) -> Callable[[Secret], int]:
    return lambda secret: attack.ranks(model.behind(attack.access), [secret])[0]


Said = TypeVar("Said")
_RANKS: dict[tuple[object, ...], int] = {}
_NAMED: dict[tuple[object, ...], str] = {}
"""What models that have seen no secret say of one. Those of one recipe are the same at every budget, and asking takes long."""


def _once(
    case: Case, model: Target, ask: Callable[[Secret], Said], known: dict[tuple[object, ...], Said], secret: Secret
) -> Said:
    """What is said of a secret, asked once of models of one recipe with the same weights."""
    if case.recipe is None:
        return ask(secret)
    content = hashlib.sha256()
    for name, value in model.weights().items():
        content.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    key = (content.digest(), case.recipe.model, secret, PATTERNS[secret.format].places)
    if key not in known:
        known[key] = ask(secret)
    return known[key]


def _bits(one: Ranked) -> float:
    """Exact, or by sampling."""
    return exposure.exact(one.rank, one.space) if one.rank is not None else exposure.exposure(one.score, one.candidates)


def _estimates(ranked: Sequence[Ranked], generator: np.random.Generator) -> list[Measure]:
    """The means of both estimates; of their ends too: an interval for the mean of these secrets' own exposures."""
    by_sampling = [exposure.sampled(one.score, one.candidates, one.space) for one in ranked]
    spread = all(np.ptp(one.candidates) > 0 for one in ranked)
    by_fit = [exposure.extrapolated(one.score, one.candidates, one.space, generator) for one in ranked] if spread else []
    return [_mean_of(found) for found in (by_sampling, by_fit) if found]


def _mean_of(found: list[Measure]) -> Measure:
    value, low, high = (float(np.mean([getattr(one, end) for one in found])) for end in ("value", "low", "high"))
    return dataclasses.replace(found[0], value=value, low=low, high=high)


def _permitted_bits(case: Case, units: int, spaces: np.ndarray) -> float | None:
    if case.plan is None or not case.is_private:
        return None
    found = {space: bound.permitted_exposure(case.plan, units, space) for space in set(spaces.tolist())}
    return float(np.mean([found[space] for space in spaces.tolist()]))


def _verdict_of_bits(
    case: Case,
    planted: _Planted,
    bits: np.ndarray,
    spaces: np.ndarray,
    groups: dict[int, np.ndarray],
    without: dict[str, np.ndarray],
) -> tuple[Verdict, str]:
    if not bits.any():
        return "no signal", "every candidate scores as high as the secret"
    for name, found in without.items():
        control = exposure.mean_without_insertion(found, name, GATE)
        assert control.low is not None
        if control.low > exposure.UNINSERTED:  # not below: candidates of equal score count as ahead, which can only lower it
            return "withheld", f"{KNOW_NOTHING[name]} average {control.value:.2f} bits, which chance does not explain"
    if case.plan is not None and case.is_private:
        for count, group in groups.items():
            shares = 2.0 ** -bits[group]
            against = 2 * float(np.mean(bound.group_curve(case.plan, planted.units[count])(shares)))
            if against <= ERROR / len(groups):
                permitted = _permitted_bits(case, planted.units[count], spaces[group])
                return (
                    "above the plan",
                    f"inserted {count} times, secrets average {bits[group].mean():.1f} bits of {permitted:.1f}",
                )
    first = next(iter(groups))
    chance = exposure.by_chance(bits[groups[first]])
    said_of = f"the {int(groups[first].sum())} secrets that stand in {first} examples"
    if chance <= ERROR / 2:
        return ("within the plan" if case.is_private else "leak"), f"{said_of} have a sum of exposures of chance {chance:.1g}"
    return "found nothing", f"{said_of} have a sum of exposures that others reach in {100 * chance:.0f}% of cases"


# -- generation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Control:
    """Secrets of which nothing can be known, and how many of them were named all the same."""

    name: str
    hits: int
    secrets: int
    guesses: int = 1
    """For each secret."""


def _generation(case: Case, name: str, attack: GenerationAttack, planted: _Planted) -> AttackResult:
    generator, target = _generator(case, name), case.target.behind(attack.access)
    tries = attack.run(target, planted.secrets, generator, planted.tokenizer)
    first, *others = planted.counts(np.ones(len(tries), dtype=bool))
    head = planted.of(first)
    spaces = np.array([PATTERNS[secret.format].space for secret in planted.secrets])
    found = _said(planted, tries, head, "restricted", "recovered")
    metrics = [_said(planted, tries, planted.of(count), "restricted", f"recovered_inserted_{count}") for count in others]
    for method in METHODS:
        if method != "restricted":
            metrics.append(_said(planted, tries, head, method, f"recovered_{method}"))
        metrics.append(_said(planted, tries, head, method, f"nearly_{method}", nearly=True))
    metrics += _unprompted(case, target, generator)
    controls = [
        _Control(
            "never_inserted" + ("" if method == "restricted" else f"_{method}"),
            *_hits(planted, tries, ~planted.inserted, method),
            guesses=len(tries[0][method]),
        )
        for method in METHODS
    ]
    for control, model in _without_secrets(case):
        ask = _name_of(attack, model, planted)
        hits = [_once(case, model, ask, _NAMED, one) == one.secret for one in planted.take(head)]
        controls.append(_Control(control, sum(hits), len(hits)))
    permitted = _permitted_shares(case, planted, spaces, first, others)
    result = AttackResult(
        name=name,
        status="ok",
        metric="recovered",
        value=found.value,
        low=found.low,
        high=found.high,
        chance=float(np.mean(1 / spaces[head])),
        permitted=permitted.pop("recovered", None),
        access=attack.access.word,
        paper=attack.paper,
        metrics=tuple(metrics),
        permitted_metrics=permitted,
        controls=tuple(proportion(control.hits, control.secrets, control.name) for control in controls),
        texts=_texts(target, planted, guesses=[one["restricted"][0] for one in tries]),
    )
    verdict, reason = _verdict_of_shares(result, controls, case.is_private)
    return dataclasses.replace(result, verdict=verdict, reason=reason)


def _name_of(attack: GenerationAttack, model: Target, planted: _Planted) -> Callable[[Secret], str]:
    return lambda secret: named(model.behind(attack.access), secret, planted.tokenizer)


def _said(
    planted: _Planted, tries: Sequence[Tries], which: np.ndarray, method: generation.Method, name: str, *, nearly: bool = False
) -> Measure:
    """The share of these secrets that a method said."""
    return proportion(*_hits(planted, tries, which, method, nearly=nearly), name)


def _hits(
    planted: _Planted, tries: Sequence[Tries], which: np.ndarray, method: generation.Method, *, nearly: bool = False
) -> tuple[int, int]:
    """How many of these secrets a method said, of how many."""
    says = generation.nearly if nearly else generation.recovered
    chosen = np.flatnonzero(which).tolist()
    return sum(says(planted.secrets[at].secret, tries[at][method]) for at in chosen), len(chosen)


def _unprompted(case: Case, target: Target, generator: np.random.Generator) -> list[Measure]:
    """How many strings of each kind it writes by itself that it has from its training."""
    data, length = case.data, case.data.targets.shape[1]
    if data.tokenizer is None:
        texts = generation.sample(target, "", length, UNPROMPTED, generator)
    else:
        texts = tokens.sample(target, data.tokenizer, "", length, UNPROMPTED, generator)
    others = data.others
    public = "" if others is None or others.targets is None else data.written(others.targets.flatten())
    own = "\n".join(map(data.written, data.targets[torch.from_numpy(case.split.members)]))  # not one behind the other
    found = patterns.from_training("\n".join(texts), own, public)
    return [Measure(name=f"count_{kind}", value=float(len(found[kind]))) for kind in patterns.KINDS]


def _permitted_shares(case: Case, planted: _Planted, spaces: np.ndarray, first: int, others: list[int]) -> dict[str, float]:
    if case.plan is None or not case.is_private:
        return {}
    plan = case.plan

    def mean(count: int, guesses: int = 1) -> float:
        units = planted.units[count]
        found = {space: bound.permitted_recovery(plan, units, space, guesses) for space in set(spaces.tolist())}
        return float(np.mean([found[space] for space in spaces[planted.of(count)].tolist()]))

    one = mean(first)
    return {
        "recovered": one,
        "recovered_greedy": one,
        "recovered_beam": one,
        "recovered_sampled": mean(first, SAMPLES),
        **{f"recovered_inserted_{count}": mean(count) for count in others},
    }


def _verdict_of_shares(result: AttackResult, controls: Sequence[_Control], private: bool) -> tuple[Verdict, str]:
    assert result.chance is not None
    assert result.low is not None
    for control in controls:
        lowest = proportion(control.hits, control.secrets, confidence=GATE).low or 0.0
        if lowest > control.guesses * result.chance:
            found = f"{control.hits} of {control.secrets} secrets, which chance does not explain"
            return "withheld", f"the control {control.name!r} names {found}"
    if result.permitted is not None and result.low > result.permitted:
        return "above the plan", f"the plan permits {result.permitted:.3g} of these secrets to be named"
    if result.low > result.chance:
        return ("within the plan" if private else "leak"), "the restricted search names secrets that were trained on"
    return "found nothing", "no secret that was trained on is named"
