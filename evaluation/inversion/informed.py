"""The informed adversary with a discrete prior: which of n candidates was trained on?

    game = SecretExample(model, loss, known, candidates, plan, learning_rate=0.5)
    truths = game.drawn(trials, generator)                           # independent, equally likely
    guesses = game.trained(truths, generator)                        # one training a truth, by the engine
    found = informed_game(plan, game.candidates, guesses, truths, EXAMPLES)
    print(found.text)

He knows all examples but one, the prior of that one, the plan, the initial weights and everything that is released (Balle,
Cherubin, Hayes 2022, "Reconstructing Training Data with Informed Adversaries"; the discrete prior: Hayes, Mahloujifar,
Balle 2023, "Bounding Training Data Reconstruction in DP-SGD"). With r_t = B g̃_t − Σ_known c_i(w_t) the secret one's noised
part of step t (:mod:`~evaluation.inversion.released`), candidate k has, up to a constant, the log-likelihood

    ℓ_k = Σ_t ( ⟨c_k(w_t), r_t⟩ − ‖c_k(w_t)‖² / 2 ) / (σ Δ)²

and the largest one is the best guess there is, for full batches and independent noise. Ties are broken by chance.

**Two ways to play.** ``trained`` runs :func:`~dptrain.private.make_private` once a trial. ``simulated`` runs the same
mechanism for many trials at once: full batches, contributions by ``torch.func``, normal noise of standard deviation σ Δ
from an ordinary generator, SGD with the same learning rate; σ, Δ, B, T are read from the same plan. A test holds one
against the other.

**The worst case.** :func:`orthogonal_secret` has candidates whose gradients are orthogonal and always of length C. Its
scores are n independent normals of which the true one has mean μ, so that :func:`orthogonal_guesses` plays any number of
trials at once.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain.clipping.fallback import LossFunction
from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from dptrain.private import NO_ACCOUNT, PrivateTraining, make_private
from evaluation.inversion.bound import gaussian_mu, reconstruction_bound
from evaluation.inversion.released import Contributions, Labelled, Release, flattened, known_sum, rests, watch
from evaluation.metrics import proportion
from evaluation.result import Measure

EXAMPLES = "the most likely candidate, from every released update"
ORTHOGONAL = "the most likely of candidates with orthogonal gradients of length C, from every released update"
MOST_NUMBERS = 20_000_000
"""Numbers of per-example gradients that are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class InformedGame:
    """How often the secret example was named, beside what the plan permits."""

    attack: str
    candidates: int
    success: Measure
    """Share of trials, with its Clopper–Pearson interval."""
    bound: float
    """The reconstruction robustness bound; 1 without a guarantee."""
    epsilon: float
    delta: float

    @property
    def baseline(self) -> float:
        """Of a guess that sees nothing."""
        return 1 / self.candidates

    @property
    def exceeds(self) -> bool:
        """Whether the success lies above the bound by more than its interval: plan, engine or game are broken."""
        assert self.success.low is not None
        return self.success.low > self.bound

    @property
    def text(self) -> str:
        s = self.success
        judged = "above" if self.exceeds else "within"
        return (
            f"One of {self.candidates:,} candidates at ε = {self.epsilon:.4g} (δ = {self.delta:g}): named in {s.value:.4f} of "
            f"trials ({s.confidence:.0%}: {s.low:.4f} to {s.high:.4f}), {judged} the {self.bound:.4f} that the plan permits; "
            f"a blind guess has {self.baseline:.4g}. Attack: {self.attack}."
        )


def informed_game(
    plan: PrivacyPlan,
    candidates: int,
    guesses: Int[np.ndarray, " trials"],
    truths: Int[np.ndarray, " trials"],
    attack: str,
    confidence: float = 0.95,
) -> InformedGame:
    """Guesses into figures.

    Args:
        plan: what is claimed; the bound is its own.
    """
    success = proportion(int((guesses == truths).sum()), len(truths), "named", confidence)
    return InformedGame(
        attack=attack,
        candidates=candidates,
        success=success,
        bound=reconstruction_bound(plan, 1 / candidates),
        epsilon=plan.guarantee().epsilon,
        delta=plan.delta,
    )


def most_likely(
    log_likelihoods: Float[np.ndarray, "trials candidates"], generator: np.random.Generator
) -> Int[np.ndarray, " trials"]:
    """The candidate of the largest one in each trial; of equal ones, any with the same chance."""
    top = log_likelihoods == log_likelihoods.max(1, keepdims=True)
    return np.where(top, generator.random(top.shape), -1.0).argmax(1)


class SecretExample:
    """A training set of which one example is secret.

    Args:
        model: with the initial weights; it is copied for each trial, and must be deterministic.
        known: all other examples; may be none, ``[0, ...]``.
        candidates: of which one is in the training set.
        learning_rate: of plain SGD. What the adversary sees of a step has no part in it but through the weights of the next.

    Raises:
        UserError: the likelihood above is not that of the plan's mechanism.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        known: Labelled,
        candidates: Labelled,
        plan: PrivacyPlan,
        *,
        learning_rate: float,
    ):
        gaussian_mu(plan)  # refuses sampled batches and correlated noise
        if not plan.is_private:
            raise UserError("the plan adds no noise, so one step names the example; give a plan with noise_multiplier above 0")
        if len(candidates[0]) < 2:
            raise UserError(f"there are {len(candidates[0])} candidates, and nothing to choose; give at least 2")
        self.plan, self.learning_rate = plan, learning_rate
        self._model, self._loss, self._known, self._candidates = model, loss, known, candidates
        self._contributions = Contributions(model, loss, plan)
        self._start = flattened([value for value in model.parameters() if value.requires_grad])
        self._deviation = plan.noise_multiplier * plan.sensitivity

    @property
    def candidates(self) -> int:
        return len(self._candidates[0])

    def drawn(self, trials: int, generator: np.random.Generator) -> Int[np.ndarray, " trials"]:
        """The true candidate of each trial."""
        return generator.integers(self.candidates, size=trials)

    def log_likelihoods(self, releases: list[Release]) -> Float[np.ndarray, " candidates"]:
        """ℓ of each candidate, from one training."""
        total = torch.zeros(self.candidates, dtype=torch.float64)
        for release, rest in zip(releases, rests(releases, self._contributions, self._known), strict=True):
            own = self._contributions(release.weights, *self._candidates).double()
            total += own @ rest.double() - own.square().sum(1) / 2
        return (total / self._deviation**2).numpy()

    def trained(
        self,
        truths: Int[np.ndarray, " trials"],
        generator: np.random.Generator,
        prepare: Callable[[PrivateTraining], None] | None = None,
    ) -> Int[np.ndarray, " trials"]:
        """The guess of each trial, from a training by the engine.

        Args:
            generator: breaks ties. Batches and noise are the engine's own, from the operating system.
            prepare: is handed each training before its first step; a test breaks it there.
        """
        found = []
        for truth in truths:
            training = self._training(int(truth))
            if prepare is not None:
                prepare(training)
            releases = watch(training)
            for batch in training.batches():
                training.step(batch)
            found.append(self.log_likelihoods(releases))
        return most_likely(np.stack(found), generator)

    def simulated(
        self, truths: Int[np.ndarray, " trials"], generator: np.random.Generator, noise_scale: float = 1.0
    ) -> Int[np.ndarray, " trials"]:
        """The guess of each trial, from the same mechanism without the engine.

        Args:
            noise_scale: times the noise that the plan states; anything but 1 is a broken mechanism, which the adversary takes
                for a sound one.
        """
        size = (len(self._known[0]) + self.candidates) * self._contributions.parameters
        chunk = max(1, MOST_NUMBERS // size)
        parts = np.split(truths, range(chunk, len(truths), chunk))
        seeds = torch.Generator().manual_seed(int(generator.integers(2**63)))
        found = [self._simulated(torch.from_numpy(part), seeds, noise_scale) for part in parts]
        return most_likely(torch.cat(found).numpy(), generator)

    def _simulated(self, truths: Tensor, generator: torch.Generator, noise_scale: float) -> Tensor:
        weights = self._start.repeat(len(truths), 1)
        scores = torch.zeros(len(truths), self.candidates, dtype=torch.float64)
        contributions = torch.func.vmap(self._contributions, in_dims=(0, None, None))
        known_sums = torch.func.vmap(lambda at: known_sum(self._contributions, at, self._known))
        for _ in range(self.plan.steps):
            own = contributions(weights, *self._candidates)
            noise = torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
            rest = own[torch.arange(len(truths)), truths] + noise_scale * self._deviation * noise
            scores += (torch.einsum("tcp,tp->tc", own, rest) - own.square().sum(2) / 2).double()
            weights = weights - self.learning_rate * (known_sums(weights) + rest) / self.plan.expected_batch_size
        return scores

    def _training(self, truth: int) -> PrivateTraining:
        model = copy.deepcopy(self._model)
        examples = [
            torch.cat([known, own[truth : truth + 1]]) for known, own in zip(self._known, self._candidates, strict=True)
        ]
        optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=self.learning_rate)
        return make_private(model, optimizer, TensorDataset(*examples), self.plan, loss=self._loss, account=NO_ACCOUNT)


def orthogonal_secret(candidates: int, plan: PrivacyPlan) -> SecretExample:
    """Candidate k's gradient is a Dirac on weight k, longer than C, at whatever weights; there are no other examples."""
    length = 100.0 * plan.clipping_norm
    inputs, targets = torch.eye(candidates) * length, torch.zeros(candidates, dtype=torch.int64)
    model = nn.Linear(candidates, 1, bias=False)
    nn.init.zeros_(model.weight)
    none = inputs[:0], targets[:0]
    return SecretExample(model, lambda model, batch: model(batch[0])[:, 0], none, (inputs, targets), plan, learning_rate=0.1)


def orthogonal_guesses(
    plan: PrivacyPlan, candidates: int, truths: Int[np.ndarray, " trials"], generator: np.random.Generator
) -> Int[np.ndarray, " trials"]:
    """The guesses of :func:`orthogonal_secret`, by its closed form: the largest of n normals of variance 1 and mean μ or 0.

    Raises:
        UserError: not every example is in every batch, or noise is correlated.
    """
    mu, guesses = gaussian_mu(plan), []
    chunk = max(1, MOST_NUMBERS // candidates)
    for part in np.split(truths, range(chunk, len(truths), chunk)):
        scores = generator.standard_normal((len(part), candidates))
        scores[np.arange(len(part)), part] += mu
        guesses.append(scores.argmax(1))
    return np.concatenate(guesses)
