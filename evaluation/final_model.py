"""The one unknown example beside every model: what its final weights show of it to someone who knows all others.

    final_model(case, "inversion.reconstructor", Reconstructor())

Shadow models are trained by the target's own recipe, from its own initial weights, on its own members but one, and one side
example each: of the other members, which this adversary knows, and the public ones. A network learns from them to read an
example off weights (:mod:`~evaluation.inversion.reconstructor`). It is tried on models of the same recipe that were trained on
the same members but one, and on a held-out example each, which neither it nor a shadow model has seen: so many secrets give a
figure with an interval. The released model, whose own secret is the member that was left out, stands beside it.

The verdict goes by how many secrets are named among all that were tried, for which the plan's bound is known. The bound holds
against everything that is released, and this attack sees the final weights alone and learns from a thousand models: an ideal
observer of every update is :mod:`~evaluation.known_others`. Where this one finds nothing, that one may.

In the recipe ``digits`` (898 members, 60 steps) it reads 79% of 200 secrets nearer than any known example without noise, and
names 87%; at ε = 8 it gives the mean example and names 1 of 200, where the plan permits 46 (``dptrain run digits --epsilons inf
8 --seeds 0 --evaluation.attacks inversion.reconstructor``).
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.fleet.layers import Unstackable
from dptrain.fleet.stacked import Stack, Way, models_in_a_stack
from dptrain.recipe import Recipe
from dptrain.trainer import build_model
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.inversion.one_unknown import Unknowns, judge_unknown, named_by
from evaluation.inversion.reconstructor import LEAST, Reconstructor
from evaluation.membership import NotApplicable
from evaluation.pictures import keep_rows
from evaluation.result import AttackResult, Measure, Verdict

SECRETS = 200
"""Tried, at most."""
MOST_WORK = 1e11
"""Weights times examples times steps, of all models together: about a minute of one core."""


@dataclass(frozen=True, eq=False)
class Stacks:
    """Models of one recipe that are trained on known examples and one more, many at a time.

    Raises:
        NotApplicable: the recipe is not one that is trained many models at a time.
    """

    recipe: Recipe
    data: DataSet
    known: Int[np.ndarray, " known"]
    steps: int
    seed: int | None
    """Of the initial weights, which all models have; None draws them anew for each."""

    def __post_init__(self) -> None:
        try:
            models_in_a_stack(self.recipe, self.data, self._way)
        except Unstackable as error:
            raise NotApplicable(
                f"a thousand shadow models are needed, and these cannot be trained many at a time ({error}); train them in a "
                "script, with evaluation.inversion.reconstructor"
            ) from None

    @property
    def _way(self) -> Way:
        return "masked" if self.recipe.privacy.sampling_rate == 1 else "gathered"

    def work(self, models: int) -> float:
        """Weights times examples times steps of so many."""
        weights = sum(value.numel() for value in build_model(self.recipe, self.data, 0).parameters())
        return models * self.steps * self.recipe.privacy.sampling_rate * len(self.known) * weights

    def with_each(self, extra: Int[np.ndarray, " extra"]) -> Float[Tensor, "extra parameters"]:
        """The final weights of a model each."""
        size = models_in_a_stack(self.recipe, self.data, self._way)
        parts = np.array_split(extra, math.ceil(len(extra) / size))
        return torch.cat([self._together(part) for part in parts])

    def _together(self, extra: Int[np.ndarray, " extra"]) -> Tensor:
        index, models = torch.from_numpy(np.concatenate([self.known, extra])), len(extra)
        data = dataclasses.replace(
            self.data, inputs=self.data.inputs[index], targets=self.data.targets[index], users=None, published_test=0
        )
        own = np.eye(models, dtype=bool)
        membership = np.concatenate([np.ones((models, len(self.known)), dtype=bool), own], 1)
        drawn = np.random.default_rng().integers(2**31, size=models).tolist()
        seeds = drawn if self.seed is None else [self.seed] * models
        stack = Stack(self.recipe, data, membership, seeds, way=self._way)
        while stack.taken < self.steps:
            stack.step()
        kept = stack.answers(np.arange(models), keep_weights=True).weights
        assert kept is not None
        return self.flattened({name: torch.from_numpy(value) for name, value in kept.items()})

    def flattened(self, state: dict[str, Tensor]) -> Float[Tensor, "models parameters"]:
        """The trainable ones of tensors ``[models, *shape]``."""
        trained = [name for name, value in build_model(self.recipe, self.data, 0).named_parameters() if value.requires_grad]
        return torch.cat([state[name].flatten(1) for name in trained], 1)


def final_model(case: Case, name: str, attack: Reconstructor) -> AttackResult:
    """Trains shadow models and models to be attacked, reads the examples off them, and judges what was read.

    Raises:
        NotApplicable: there is no recipe, the models are too large for a minute or so, or there are too few examples.
    """
    if case.recipe is None or case.plan is None:
        raise NotApplicable("its shadow models are trained by the target's own recipe: pass recipe= to evaluate()")
    generator = np.random.default_rng(np.random.SeedSequence([case.seed, *b"one unknown"]))
    members = generator.permutation(case.split.members)
    own, known = members[:1], members[1:]
    everything = np.concatenate([known, case.split.public])
    side = generator.permutation(everything)[: attack.shadow_models]
    secrets = generator.permutation(case.split.non_members)[:SECRETS]
    if min(len(side), len(secrets)) < LEAST:
        raise NotApplicable(
            f"there are {len(side)} examples for shadow models and {len(secrets)} held-out ones, and {LEAST} of each are needed"
        )
    seed = case.seed if attack.initial_weights == "known" else None
    stacks = Stacks(case.recipe, case.data, known, case.plan.steps, seed)
    work = stacks.work(len(side) + len(secrets))
    if work > MOST_WORK:
        raise NotApplicable(
            f"the models are too large: {len(side) + len(secrets):,} trainings are {work:.1e} weights times examples times "
            f"steps, and {MOST_WORK:.1e} are a minute or so; train fewer in a script, with evaluation.inversion.reconstructor"
        )
    inputs = case.data.inputs
    read = attack.fit(
        stacks.with_each(side), inputs[torch.from_numpy(side)], torch.Generator().manual_seed(case.seed), case.data.bounds
    )
    true, all_known = inputs[torch.from_numpy(secrets)], inputs[torch.from_numpy(everything)]
    found = read(stacks.with_each(secrets))
    judged = judge_unknown(found, true, all_known, plan=case.plan, bounds=case.data.bounds)
    state = {key: value[None] for key, value in case.target.behind(Access.WEIGHTS).weights().items()}
    released = read(stacks.flattened(state))
    permuted = named_by(found, true, 1, "permuted")
    result = AttackResult(
        name=name,
        status="ok",
        metric="named",
        value=judged.named.value,
        low=judged.named.low,
        high=judged.named.high,
        chance=judged.chance,
        permitted=judged.permitted_named if case.is_private else None,
        access=attack.access.word,
        paper=attack.paper,
        metrics=(
            judged.nearer,
            judged.nearer_by_mean,
            *judged.errors,
            *judged.similarities,
            _of_released(released, inputs[torch.from_numpy(own)]),
        ),
        controls=(permuted,),
        figures=_keep_picture(case, name, secrets, found, all_known),
    )
    verdict, reason = _verdict(judged, permuted, private=case.is_private)
    return dataclasses.replace(result, verdict=verdict, reason=reason)


def _of_released(found: Tensor, true: Tensor) -> Measure:
    value = float((found - true).square().mean())
    return Measure(name="error_of_released_model", value=value, note="of the member that was left out, from the released model")


def _verdict(judged: Unknowns, permuted: Measure, *, private: bool) -> tuple[Verdict, str]:
    low = judged.named.low
    assert low is not None
    assert permuted.low is not None
    if permuted.low > judged.chance:
        return "withheld", f"another secret than its own is named {permuted.value:.3f} of times, which chance does not explain"
    if private and low > judged.permitted_named:
        return "above the plan", judged.text
    if low > judged.chance:
        return ("within the plan" if private else "leak"), judged.text
    return "found nothing", judged.text


def _keep_picture(case: Case, name: str, secrets: Int[np.ndarray, " secrets"], found: Tensor, known: Tensor) -> tuple[str, ...]:
    """Of each class a secret, what was read of it, and the known example that is nearest to it, as arrays in [0, 1]; grey where
    no secret is of the class."""
    if case.folder is None or case.data.kind != "image" or not case.data.classes:
        return ()
    targets = case.data.targets[torch.from_numpy(secrets)].numpy()
    empty = torch.full((len(case.data.classes), *case.data.input_shape), torch.nan)
    rows = {row: empty.clone() for row in ("secret\nexample", "recon-\nstruction", "nearest\nknown")}
    for label in np.unique(targets):
        first = int(np.flatnonzero(targets == label)[0])
        true = case.data.inputs[int(secrets[first])]
        nearest = known[(known - true).flatten(1).norm(dim=1).argmin()]
        for row, own in zip(rows.values(), (true, found[first], nearest), strict=True):
            row[label] = own
    return keep_rows(case.folder, name, rows, case.data.bounds)
