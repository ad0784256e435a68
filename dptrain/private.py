"""Differential privacy in anyone's own loop.

    private = make_private(model, optimizer, dataset, plan, loss=per_example_loss)
    for batch in private.batches():
        private.step(batch)
    print(private.guarantee().statement)
    private.save("runs/mine")

``per_example_loss(model, batch)`` gives one value an example. The object draws the batches, clips, adds the noise and
counts: whatever reaches the optimizer was clipped, noised and charged, and an attempt to go around it is an error.
Learning-rate schedules, momentum, weight decay and averaging (:mod:`dptrain.averaging`) work on noised gradients and cost
nothing.
"""

import dataclasses
import functools
import math
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from dptrain import checkpoint, distributed
from dptrain.averaging import WeightAverage
from dptrain.checks import check_fresh_optimizer, check_model, check_optimizer, check_parts, released
from dptrain.chunks import Augment, chunks_of
from dptrain.clipping import Chunk, ClippedSum, Clipper, Clipping, Counts
from dptrain.clipping.fallback import LossFunction
from dptrain.data.examples import Examples
from dptrain.data.split import Split
from dptrain.data.split import save as save_split
from dptrain.errors import CheckpointError, PlanError, ProtocolError, UserError, is_out_of_memory
from dptrain.guards import BITS_EVERY, BITS_FIRST, OptimizerWatch, StateWatch, check_augment, claim
from dptrain.ledger import Account, Announcements, Ledger, Spending, named
from dptrain.noise import noise_for, secret_generator
from dptrain.optimizers import NoiseAware
from dptrain.plain import as_plain, from_plain
from dptrain.plan import Guarantee, PrivacyPlan
from dptrain.recipe import Performance
from dptrain.sampling import sampler_for
from dptrain.update import Update

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, eq=False)
class Batch:
    """One logical batch that the plan drew; of several processes, this one's part. What is in it is private."""

    step: int
    _positions: np.ndarray = field(repr=False)
    """Of its examples; unit by unit where the unit is the user."""
    _issuer: int = field(repr=False)
    _offsets: np.ndarray | None = field(repr=False, default=None)
    """Where the unit is the user: the k-th drawn holds ``_positions[_offsets[k] : _offsets[k + 1]]``, ``[units + 1]``."""


@dataclass(frozen=True)
class Saved:
    """What a callback of :meth:`PrivateTraining.on_save` is told."""

    folder: Path
    """With ``release/`` and ``private/``."""
    step: int
    """Updates taken."""


def make_private(
    model: nn.Module,
    optimizer: Optimizer,
    dataset: Any,
    plan: PrivacyPlan,
    *,
    loss: LossFunction,
    units: Any = None,
    views: int = 1,
    augment: Augment | None = None,
    performance: Performance | None = None,
    ledger: str | Path | None = None,
    account: Account | Spending | str | None = None,
    average: float | None = None,
    before: Callable[[np.random.Generator], None] | None = None,
    insecure_seed: int | None = None,
) -> "PrivateTraining":
    """Binds a plan to a model, its optimizer and the private examples.

    Args:
        model: any module whose examples do not look at each other; weights are changed in place. Under torchrun every rank
            gives the same one, plain or in DistributedDataParallel; see :mod:`dptrain.distributed`.
        optimizer: any ``torch.optim`` optimizer over exactly the model's trainable parameters.
        dataset: a map-style data set (``len`` and ``[index]``), or a :class:`~dptrain.data.dataset.DataSet`.
        loss: ``loss(model, batch)`` gives one value an example, ``[examples]``.
        views: how often each example is taken in a batch; the averaged gradient of its views is clipped as one, so that they
            cost no privacy.
        augment: changes collated rows, each by itself, with random numbers of torch, numpy or ``random``; tried on a few
            examples before the first step. A data set that draws its own augmentation needs none.
        units: whose each example is, where the plan's unit is the user: a private array of whole numbers, ``[examples]``.
        performance: what may change the speed, never the mechanism.
        ledger: file in which steps are announced before they are taken.
        account: which data set's, over all runs (:mod:`dptrain.ledger.account`). Left out, it is found by the content of a
            :class:`~dptrain.data.dataset.DataSet` or a ``TensorDataset``; of another one, and of one that grows, give its name,
            such as ``"patients-2026"``. ``"none"`` keeps none, as of public data.
        average: decay of a moving average of the weights, such as 0.99; then that average is what :meth:`save` releases.
        before: makes what the plan releases before its first update (``aggregations``, ``edge_release``), with the secret
            generator that it is given. It is called once, when the ledger has announced the first steps, and may write into the
            model; the plan counts it with the first update.
        insecure_seed: repeatable batches and noise, for tests alone: whoever knows the seed can remove the noise.

    Raises:
        PlanError: δ is not below 1/N, N is not what the plan states, the model cannot be made private, the optimizer is not
            fresh, or ``augment`` mixes examples.
        DataError: the data set is empty or cannot be indexed, or ``units`` does not fit it.
        LedgerError: ``account`` is no name.
    """
    if not isinstance(plan, PrivacyPlan):
        raise PlanError(f"plan is {plan!r}; give a PrivacyPlan, such as PrivacyPlan(...).calibrate(epsilon=8)")
    check_parts(model, optimizer, loss, augment, performance)
    model = distributed.unwrap(model)
    private = math.isfinite(plan.clipping_norm)
    check_model(model, private=private)
    check_optimizer(model, optimizer)
    check_fresh_optimizer(optimizer)
    examples = _examples_of(dataset, units, plan)
    plan.check_examples(examples.units)
    plan.check_batch_size(examples.units)
    if plan.is_private and plan.unit != "edge" and (plan.unit != "node" or before is None):
        plan.check_delta(examples.units)  # of a graph, whoever releases something of it has held δ against all of it
    if before is None and plan.is_private and (plan.aggregations or plan.edge_release != "none"):
        raise PlanError(
            f"the plan counts releases before the first update (aggregations {plan.aggregations}, edge_release "
            f"{plan.edge_release!r}), and nothing is given that makes them; give before=, as dptrain.graph.release.releases() "
            "does"
        )
    performance = performance or Performance()
    if not isinstance(views, int) or isinstance(views, bool) or views < 1:
        raise PlanError(f"views is {views!r}; give a whole number from 1 up")
    largest = views * (plan.max_examples_per_unit or 1)
    if largest > performance.max_physical_batch:
        raise PlanError(
            f"what is clipped as one has up to {largest} rows, and performance.max_physical_batch is "
            f"{performance.max_physical_batch}; give at least {largest}, or fewer views or examples a user"
        )
    if augment is not None and private:
        check_augment(augment, examples, views)
    return PrivateTraining(
        model,
        optimizer,
        examples,
        plan,
        loss,
        performance,
        None if ledger is None else Path(ledger),
        insecure_seed,
        spending=_spending_of(account, examples),
        average=average,
        before=before,
        views=views,
        augment=augment,
    )


def _examples_of(dataset: Any, units: Any, plan: PrivacyPlan) -> Examples:
    """The data set as units of the plan's kind. An example whose user is unknown has no place in a promise to users."""
    given = isinstance(dataset, Examples) and dataset.has_units
    if isinstance(dataset, Examples) and units is not None:
        raise PlanError("units is given beside Examples; write Examples(dataset, indices, units) instead")
    if plan.unit == "user" and units is None and not given:
        raise PlanError("unit is 'user', and it is not said whose each example is; give units, one whole number an example")
    if plan.unit == "example" and (units is not None or given):
        raise PlanError(
            "units is given and the plan's unit is 'example', which promises nothing to users; give a plan with unit='user' "
            "and max_examples_per_unit, or leave units out"
        )
    return dataset if isinstance(dataset, Examples) else Examples(dataset, units=units)


def _spending_of(account: Account | Spending | str | None, examples: Examples) -> Spending | None:
    """The way to the account of these examples; None where there is none, or another process keeps it."""
    if not distributed.current().is_first or account == NO_ACCOUNT:
        return None
    if isinstance(account, Spending):
        return account
    if isinstance(account, Account):
        return Spending(account, _SCRIPT)
    if account is not None:
        return Spending(Account(named(account), account), _SCRIPT)
    if examples.content:
        return Spending(Account(examples.content, examples.name), _SCRIPT)
    warnings.warn(
        "this training stands in no account: of this data set no fingerprint is known, so that nothing adds up what its runs "
        "spend together; name it, such as make_private(..., account='patients-2026'), or account='none' where it is public",
        stacklevel=3,
    )
    return None


NO_ACCOUNT = "none"
_SCRIPT = {"label": "make_private()"}


class PrivateTraining:
    """A training under a plan; made by :func:`make_private`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        examples: Examples,
        plan: PrivacyPlan,
        loss: LossFunction,
        performance: Performance,
        ledger: Path | None,
        insecure_seed: int | None,
        *,
        spending: Spending | None = None,
        average: float | None = None,
        before: Callable[[np.random.Generator], None] | None = None,
        views: int = 1,
        augment: Augment | None = None,
    ):
        self._model = model
        self._optimizer = optimizer
        self.ranks = distributed.current()
        """The processes that train this model together; one, where there are no others."""
        self._plan = plan
        self.insecure = insecure_seed is not None
        """Whether batches and noise, of any part of it, can be repeated by whoever knows the seed."""
        self.last_counts: Counts | None = None
        """Private: what happened in the latest batch, for telemetry that is not released."""
        self._examples = examples
        self._performance, self._loss = performance, loss
        self._clipper = Clipper(model, loss, Clipping.of(plan), performance, divisor=plan.expected_batch_size)
        self._views, self._augment = views, augment
        self._before, self._began, self._begun = before, False, False
        self._chunk_size = performance.max_physical_batch
        """Rows that are in memory at once; halved where it runs out."""
        self._insecure_seed = insecure_seed
        facts = {
            "plan": plan,
            "examples": examples.facts if self.ranks.size > 1 else None,
            "insecure_seed": insecure_seed,
            "views": views,
            "average": average,
        }
        self.ranks.start(model, facts)
        self._average = None if average is None else WeightAverage(model, average)
        self._noise = self.ranks.noise(lambda: noise_for(plan, insecure_seed))
        own = Ledger(ledger, examples.fingerprint) if ledger is not None and self.ranks.is_first else None
        self._announced = Announcements(plan, own, spending if self.ranks.is_first else None)
        self._earlier: tuple[tuple[int, int], ...] = ()
        """Ranges of steps that were drawn, each in one go, before this object took over."""
        self._first = 0
        self._taken = 0
        """This object's own range ends here. The one number in which a step is counted, always before it is released."""
        self._stream: Iterator[tuple[np.ndarray, np.ndarray | None]] | None = None
        self._walk: object = None
        self._last_batch: Batch | None = None
        self._entered = threading.Lock()
        self._permit: int | None = None
        """The thread whose next optimizer step is the released one."""
        self._owner = object()
        """Stands for this training where weights are marked as moved by it."""
        self._laid = False
        """Whether examples were clipped, after which the engine lays the weights in another way no more."""
        self._watch = StateWatch(model, loss) if math.isfinite(plan.clipping_norm) else None
        self._qualifications: tuple[str, ...] = ()
        self._on_save: tuple[Callable[[Saved], None], ...] = ()
        self._split: Split | None = None
        self._about: dict[str, Any] = {}
        self._may_be_saved = True
        """Not where it stands in no ledger because its weights are for nobody else."""
        optimizer.register_step_pre_hook(self._refuse_foreign_step)
        self._optimizer_watch = OptimizerWatch(optimizer)

    @property
    def model(self) -> nn.Module:
        """Whose weights this training moves; fixed for good."""
        return self._model

    @property
    def optimizer(self) -> Optimizer:
        """Moves the weights in :meth:`step`, and there alone; fixed for good. Its options may be changed between steps."""
        return self._optimizer

    @property
    def plan(self) -> PrivacyPlan:
        """Fixed for good: ε is counted by it."""
        return self._plan

    @property
    def examples(self) -> Examples:
        """Private: those that are trained on."""
        return self._examples

    @property
    def spending(self) -> Spending | None:
        """Private: the way to the data set's account; None where this run stands in none, or another process keeps it."""
        return self._announced.spending

    @property
    def steps_taken(self) -> int:
        """Updates released so far, those before a resume included."""
        return self._taken

    @property
    def _drawn(self) -> tuple[tuple[int, int], ...]:
        """Ranges of steps whose batches were drawn in one go, for the accounting event. What was released before the first
        update counts with that update, also where it was not taken."""
        end = max(self._taken, self._first + 1) if self._began else self._taken
        return (*self._earlier, *(((self._first, end),) if end > self._first else ()))

    @property
    def _pending(self) -> Batch | None:
        """The batch that was drawn and not released."""
        batch = self._last_batch
        return batch if batch is not None and batch.step == self._taken else None

    # -- the loop ---------------------------------------------------------------------------------------------------

    def batches(self, until: int | None = None) -> Generator[Batch, None, None]:
        """The batches of the steps that remain, or of those before step ``until``; each must be stepped before the next.

        An empty batch comes like any other: it releases noise alone. One that was left without a step comes again: drawing
        anew would let the loop choose its batches.
        """
        last = self.plan.steps if until is None else min(until, self.plan.steps)
        claim(self._model.parameters(), self._owner)
        walk = self._walk = object()
        if self._taken >= last:
            return
        self._announced.settle(self._paid)  # what an older iterator left open
        if self._announced.until < last:
            self._announce(last)
        try:
            self._begin()
            while self._taken < last:
                batch = self._pending or self._draw()
                yield batch
                if walk is not self._walk:
                    raise ProtocolError("batches() was called again, so this iterator ended; use the newer one")
                if batch is self._pending:
                    raise ProtocolError(
                        f"batch {batch.step} was skipped: leaving out a batch, even an empty one, tells who was in it; call "
                        "step(batch) for each"
                    )
        finally:
            if walk is self._walk:
                self._announced.settle(self._paid)

    def _begin(self) -> None:
        """What is released before the first update; once, and anew only where an interrupt cut it off."""
        if self._before is None or self._begun or self._taken > 0:
            return
        if self.ranks.size > 1:
            raise PlanError("what is released before the first update is made in one process; train without torchrun")
        self._began = True  # counted before it is made
        self._before(secret_generator(self._insecure_seed, f"releases before update {self._first}"))
        self._begun = True
        if self._watch is not None:
            self._watch.renew(self._model)

    def _draw(self) -> Batch:
        """The next batch. One stream serves the object's whole life: where batches of an epoch are drawn together,
        stopping and going on must not draw them anew."""
        if self._stream is None:
            sampler, units = sampler_for(self.plan), self._examples.units
            drawn = self.ranks.batches(sampler, units, self._first, self.plan.steps, self._insecure_seed)
            self._stream = self._drawn_examples(drawn)
        stream, self._stream = self._stream, iter(())  # what an interrupt cuts off is not taken up in its middle
        drawn = next(stream, None)
        if drawn is None:
            raise ProtocolError(
                "an interrupt cut off the draw of a batch, and another in its place would be one that the plan did not draw; "
                "save(), and go on from there with make_private() and resume()"
            )
        batch = self._last_batch = Batch(self._taken, drawn[0], id(self), drawn[1])
        self._stream = stream
        return batch

    def _drawn_examples(self, drawn: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Positions of the examples of each batch of units; and where the unit is the user, where each one's begin."""
        most = self.plan.max_examples_per_unit
        if most is None:
            yield from ((units, None) for units in drawn)
            return
        generator = secret_generator(self._insecure_seed, f"examples of users on rank {self.ranks.rank} from {self._first}")
        for units in drawn:
            yield self._examples.of_units(units, most, generator)

    def step(self, batch: Batch) -> None:
        """Clips, adds noise, divides by the expected batch size, and lets the optimizer move the weights once.

        The step is counted before the weights move: whatever breaks in between, ε is never less than what was released.

        Raises:
            ProtocolError: the batch is not the one that ``batches()`` gave last, or a step is under way; or something but this
                method wrote into model or loss, and then for good. :class:`~dptrain.guards.StateWatch` says what is seen of it.
        """
        if not self._entered.acquire(blocking=False):
            raise ProtocolError("step() was called inside of a step, or by two threads at once; one step at a time")
        try:
            self._step(batch)
        finally:
            self._permit = None
            self._entered.release()

    def _step(self, batch: Batch) -> None:
        if not isinstance(batch, Batch) or batch is not self._pending or batch._issuer != id(self):
            raise ProtocolError(
                "step() takes the batch that batches() gave last, once: ε holds only for batches that the plan drew; "
                "write `for batch in private.batches(): private.step(batch)`"
            )
        if batch.step >= self._announced.until:
            raise ProtocolError(f"step {batch.step} was not announced; go on with `for batch in private.batches()`")
        if self._average is not None and self._average.is_shown:
            raise ProtocolError("step() was called inside of averaged(), where the model does not hold its trained weights")
        check_optimizer(self._model, self._optimizer)
        self._optimizer_watch.check()
        claim((value for group in self._optimizer.param_groups for value in group["params"]), self._owner)
        clipped = self.ranks.sum(f"step {batch.step}", lambda: self._own_sum(batch))
        check_sensitivity(clipped, self.plan)
        event = self.plan.update_event(batch.step + 1, batch.step)
        update = Update.of(self._noise.add(clipped), event=event)
        if isinstance(self._optimizer, NoiseAware):
            self._optimizer.noise_deviation = update.standard_deviation
        self._optimizer.zero_grad(set_to_none=True)  # whatever a backward() outside left there
        self._laid = self._laid or clipped.counts.examples > 0
        try:
            with update.in_gradients(self._model):
                self._taken = batch.step + 1
                self._permit = threading.get_ident()
                self._optimizer.step()
        finally:
            self._optimizer_watch.record()
            self._moved()
        if self._average is not None:
            self._average.update()
        self.last_counts = clipped.counts
        if self._taken % distributed.CHECK_EVERY == 0:
            self.ranks.check_weights(self._model)

    def _own_sum(self, batch: Batch) -> ClippedSum:
        """The clipped sum of this process' part of the batch, by a model that kept nothing of it.

        Where memory does not suffice, it begins anew with chunks of half the size, and keeps to them.
        """
        self._look("what came before a step")
        if self._watch is not None:
            self._watch.follow(self._model)
        while True:
            try:
                clipped = self._clipper.sum(self._chunks(batch), reuse=True)
                break
            except ProtocolError:
                self._look("the forward pass of a training step", bits=True)  # what was written there is the cause, and latches
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._chunk_size <= self._views * (self.plan.max_examples_per_unit or 1):
                    raise
            self._chunk_size //= 2
            warnings.warn(f"memory ran out: chunks hold {self._chunk_size} rows from here on", stacklevel=5)
        self._look("the forward pass of a training step")
        return clipped

    def _bits(self) -> bool:
        """Whether content is compared around the step to come; version counters are at each."""
        return not self._laid or self._taken - self._first < BITS_FIRST or self._taken % BITS_EVERY == 0

    def _look(self, during: str, bits: bool = False) -> None:
        if self._watch is not None:
            self._watch.check(during, bits=bits or self._bits())

    def _moved(self) -> None:
        """The weights were just moved by right."""
        if self._watch is not None:
            self._watch.record(bits=self._bits())

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model as it is released: inside, it holds its averaged weights; afterwards the trained ones again.

        Without ``average`` the two are the same.

        Raises:
            ProtocolError: this was entered twice, or the weights were moved outside of a step.
        """
        if self._average is None:
            yield self._model
            return
        if self._average.is_shown:
            raise ProtocolError("averaged() was entered twice; leave the first one before")
        self._look("what came before averaged()")
        try:
            self._average.show()
            self._moved()
            yield self._model
        finally:
            self._average.hide()
            self._moved()

    def _chunks(self, batch: Batch) -> Iterator[Chunk]:
        device = next(self._model.parameters()).device
        chunks = chunks_of(
            batch._positions,
            batch._offsets,
            self._examples,
            rows=self._chunk_size,
            views=self._views,
            augment=self._augment,
            filled=self._performance.chunks == "filled",
        )
        for chunk in chunks:
            there = pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, chunk.batch)
            yield dataclasses.replace(chunk, batch=there)

    def _refuse_foreign_step(self, optimizer: Optimizer, *_: Any) -> None:
        allowed, self._permit = self._permit == threading.get_ident(), None
        if not allowed:
            raise ProtocolError(
                "optimizer.step() was called directly: that gradient was neither clipped nor noised nor charged; call "
                "private.step(batch)"
            )

    # -- the account ------------------------------------------------------------------------------------------------

    def event(self) -> "DpEvent":
        """What the steps taken so far have released."""
        from dp_accounting import ComposedDpEvent

        return ComposedDpEvent([self.plan.event(last, first) for first, last in self._drawn if last > first])

    def epsilon(self) -> float:
        """ε spent so far, as it is reported; infinity where the plan promises nothing."""
        from dptrain import accounting

        if not self.plan.is_private:
            return math.inf
        return accounting.epsilon(self.event(), self.plan.delta, self.plan.relation)

    def guarantee(self) -> Guarantee:
        """ε spent so far by both accountants, with its assumptions in words."""
        guarantee = self.plan.guarantee(self.steps_taken, self._drawn)
        words = " ".join((guarantee.statement, *self._qualifications))
        guarantee = dataclasses.replace(guarantee, statement=words)
        if not (self.insecure and self.plan.is_private):
            return guarantee
        caveat = " Batches and noise came from a fixed seed: nothing is promised against someone who knows or guesses it."
        return dataclasses.replace(guarantee, statement=guarantee.statement + caveat)

    def qualify(self, *sentences: str) -> None:
        """Adds what must be known beside the guarantee; it stands at the end of its statement."""
        self._qualifications += sentences

    def _announce(self, last: int) -> None:
        """Says on the disk, to whoever keeps account, that the steps up to ``last`` are about to be taken."""
        first, draw = max(self._taken, self._announced.until), f"{id(self):x}/{self._first}"
        block = self.ranks.first(f"steps {first} to {last}", lambda: self._announced.reserve(first, last, draw))
        self._announced.opens(block, draw, first, last)

    def open_account(self) -> None:
        """Says in the data set's account that this training reads the data, unless that was said."""
        self._announced.open_account()

    @property
    def _paid(self) -> int:
        """Steps before this one are paid for: those that were taken, a batch that is drawn and may yet be stepped, and what was
        released before the first update."""
        end = self._taken + (self._pending is not None)
        return max(end, self._first + 1) if self._began else end

    def again(self, model: nn.Module, optimizer: Optimizer, examples: Examples) -> "PrivateTraining":
        """Another training of the same kind, not yet begun: the same plan and loss, other examples, noise of its own. It is in
        no ledger: its weights are for whoever may see the examples anyhow, such as an evaluation's shadow models, and
        :meth:`save` refuses them."""
        average = None if self._average is None else self._average.decay
        more: dict[str, Any] = {"average": average, "before": self._before, "views": self._views, "augment": self._augment}
        made = PrivateTraining(model, optimizer, examples, self.plan, self._loss, self._performance, None, None, **more)
        made._may_be_saved = False
        return made

    # -- on disk ----------------------------------------------------------------------------------------------------

    def card(self, about: dict[str, Any] | None = None) -> dict[str, Any]:
        """The public facts of this training: plan, ε, steps, versions; ``about`` adds the caller's own."""
        from dptrain.version import versions

        guarantee = self.guarantee()
        return {
            **(about or {}),
            "plan": as_plain(self.plan),
            "guarantee": as_plain(guarantee),
            "steps_taken": self.steps_taken,
            "insecure_randomness": self.insecure,
            "average": None if self._average is None else self._average.decay,
            "versions": versions(),
        }

    def on_save(
        self, callback: Callable[[Saved], None], *, split: Split | None = None, about: dict[str, Any] | None = None
    ) -> None:
        """Calls back each time :meth:`save` has written, in the first of several processes.

        What the callback raises, :meth:`save` raises; what was saved is on the disk by then.

        Args:
            split: kept by a :meth:`save` that is given none.
            about: public facts that stand in each card.
        """
        self._on_save += (callback,)
        self._split = self._split if split is None else split
        self._about |= about or {}

    def save(
        self,
        path: str | Path,
        about: dict[str, Any] | None = None,
        split: Split | None = None,
        student: Callable[[], nn.Module] | None = None,
    ) -> Path:
        """Writes ``release/`` (can be published) and ``private/checkpoint/`` (resumes; can not) below ``path``.

        Of several processes all call it, and the first one writes, once their weights were seen to be the same.

        Args:
            about: public facts to add to the card.
            split: who was trained on and who was held out; kept under ``private/``, and without it no attack can be judged.
            student: makes the model that is released in place of the trained one, out of that one and public data alone.

        Raises:
            ProtocolError: something wrote into model or loss but :meth:`step`; this is inside of :meth:`averaged`; or the
                training is one of :meth:`again`.
        """
        if not self._may_be_saved:
            raise ProtocolError(
                "a training that again() made stands in no account, and its weights are for an evaluation alone; train what is "
                "to be saved with make_private()"
            )
        path = Path(path)
        self.ranks.check_weights(self._model)
        if self._watch is not None:
            watch = self._watch
            self.ranks.together("save()", lambda: watch.check("what came before save()", bits=True))
        about, split = {**self._about, **(about or {})}, self._split if split is None else split
        self.ranks.first("save()", lambda: self._write(path, about, split, student))
        for callback in self._on_save:
            self.ranks.first("a callback of save()", functools.partial(callback, Saved(path, self.steps_taken)))
        return path

    def _write(
        self,
        path: Path,
        about: dict[str, Any] | None,
        split: Split | None,
        student: Callable[[], nn.Module] | None,
    ) -> None:
        if split is not None:
            save_split(split, path / "private" / "split.npz")
            about = {"split_commitment": split.digest, **(about or {})}
        if self._average is not None and self._average.is_shown:
            raise ProtocolError("save() was called inside of averaged(); call it outside, and it releases the averaged weights")
        tensors, plain = checkpoint.pack_optimizer(self._optimizer)
        average, kept = ({}, None) if self._average is None else self._average.pack()
        state = {"steps_taken": self.steps_taken, "drawn": self._drawn, "plan": as_plain(self.plan), "optimizer": plain}
        state |= {"insecure_randomness": self.insecure, "average": kept}
        state |= self._announced.pack(self._paid)
        weights = {f"model/{name}": value for name, value in self._model.state_dict().items()}
        packed = checkpoint.pack_tensors({**weights, **tensors, **average})
        checkpoint.write_folder(
            path / "private" / "checkpoint",
            {"state.safetensors": packed, "state.json": checkpoint.pack_json(state)},
        )
        if student is not None:
            checkpoint.save_release(path / "release", released(student()), self.card(about))
            return
        with self.averaged() as model:
            checkpoint.save_release(path / "release", released(model), self.card(about))

    def resume(self, path: str | Path) -> int:
        """Takes weights, optimizer and step count from ``private/checkpoint/`` below ``path``; gives the step count.

        Batches and noise go on from fresh entropy, never from the old stream. Two resumes from one checkpoint are two
        branches, and each spends for itself.

        Raises:
            CheckpointError: it is incomplete or changed, or belongs to another plan or model.
            ProtocolError: this object has drawn a batch: its own steps would be forgotten.
        """
        if self._last_batch is not None:
            raise ProtocolError("this training has begun, and resuming would forget its steps; call make_private() anew")
        folder = Path(path) / "private" / "checkpoint"
        files = self.ranks.files("resume()", lambda: checkpoint.read_folder(folder))
        state = checkpoint.unpack_json(files["state.json"], folder / "state.json")
        tensors = checkpoint.unpack_tensors(files["state.safetensors"], folder / "state.safetensors")
        stored = as_plain(from_plain(PrivacyPlan, state["plan"], str(folder)))  # one of an earlier version lacks later fields
        if stored != as_plain(self.plan):
            changed = sorted(key for key, value in as_plain(self.plan).items() if stored[key] != value)
            raise CheckpointError(f"{folder} was made under another plan ({', '.join(changed)} differ); use the same one")
        if self._average is not None:
            self._average.unpack(tensors, state.get("average"))
        elif state.get("average") is not None:
            raise CheckpointError(
                f"{folder} was made with average={state['average']['decay']}; give the same to make_private()"
            )
        try:
            self._model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
        except RuntimeError as error:
            raise CheckpointError(f"{folder} does not fit the model: {error}") from None
        checkpoint.unpack_optimizer(self._optimizer, tensors, state["optimizer"])
        self._optimizer_watch.record()
        self._earlier = tuple((int(first), int(last)) for first, last in state["drawn"])
        self._first = self._taken = int(state["steps_taken"])
        self._announced.unpack(state)
        self._noise = self.ranks.noise(lambda: noise_for(self.plan, self._insecure_seed, self._first))
        self.insecure = self.insecure or bool(state["insecure_randomness"])
        claim(self._model.parameters(), self._owner, all_replaced=True)
        if self._watch is not None:
            self._watch.renew(self._model)
        return self.steps_taken


def check_sensitivity(clipped: ClippedSum, plan: PrivacyPlan) -> None:
    """Raises PlanError where a sum states less than the plan's relation lets neighbours differ, or is not over the public
    batch size: σ would multiply too little."""
    stated = clipped.sensitivity * clipped.divisor
    if stated < plan.sensitivity * (1 - 1e-12):
        raise PlanError(
            f"the clipped sum states a sensitivity of {stated:g}, and under {plan.relation} neighbours differ by up to "
            f"{plan.sensitivity:g}; clip by the plan's own relation"
        )
    if clipped.divisor != plan.expected_batch_size:
        raise PlanError(f"the sum was divided by {clipped.divisor:g}, and the plan says {plan.expected_batch_size:g}")


def per_example(loss: Callable[..., Tensor], **options: Any) -> LossFunction:
    """A torch loss on ``(inputs, targets)`` batches as one that gives a value an example.

    make_private(..., loss=per_example(torch.nn.functional.cross_entropy))
    """
    if "reduction" in options:
        raise UserError("per_example() sets reduction='none' itself; leave reduction out")

    def losses(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        values = loss(model(inputs), targets, reduction="none", **options)
        return values.flatten(1).mean(1) if values.dim() > 1 else values

    return losses
