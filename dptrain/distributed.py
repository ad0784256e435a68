"""One training on several processes: data-parallel, over gloo on CPUs and NCCL on GPUs.

    torchrun --nproc-per-node 2 -m recipes.cli run mnist        # or: dptrain run mnist --distributed 2

    distributed.join()                                          # or torch.distributed.init_process_group(...)
    private = make_private(model, optimizer, dataset, plan, loss=loss)      # the same lines on every rank
    for batch in private.batches():
        private.step(batch)
    private.save("runs/mine")                                   # on every rank, too: the first one alone writes

The mechanism is that of one process, and so is its ε; how many processes there are is a matter of speed:

    released = (Σ_ranks Σ_{i in the rank's part of the batch} clip(g_i) + noise of rank 0 alone) / expected batch size

* **Batches.** Example i belongs to rank i mod ranks, and each rank tosses the coins of its own examples from a secret
  stream of its own. Where a sampler's coins are independent by example, independent ranks give exactly its law. Any other
  sampler is drawn by the first rank, which tells the others. A rank whose part is empty adds zeros, and waits for nobody.
* **Noise.** The first rank holds the only noise stream and sends out the noised sum: its variance is that of one process,
  and every rank steps its optimizer with the same bits.
* **Weights.** They start as the first rank's, and are compared to the bit every :data:`CHECK_EVERY` updates and before each
  save.
* **Failures.** Before anything is exchanged the ranks meet, say where they are, and whether they failed: what breaks one
  is raised by all, at the same place. A rank that died, is silent for too long or is elsewhere is a :class:`RankError`.

Whatever else one process of a group trains for itself, such as shadow models, it trains inside of :func:`alone`.
"""

import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dptrain.clipping import ClippedSum, Counts
from dptrain.errors import ElsewhereError, PlanError, ProtocolError, RankError
from dptrain.noise import NoisedSum, noised_sum, secret_generator

if TYPE_CHECKING:
    from dptrain.sampling import Sampler

T = TypeVar("T")

CHECK_EVERY = 100
"""Updates between two comparisons of all ranks' weights."""
TIMEOUT = timedelta(minutes=30)
"""For how long a rank may be silent between two meetings."""
PATIENCE = timedelta(days=30)
"""The same while the first rank works and the others wait; one that dies is noticed at once all the same."""
RENDEZVOUS = "DPTRAIN_RENDEZVOUS"
"""Environment variable: where the processes that ``dptrain run --distributed`` started find each other."""
NOTE = 2048
"""Bytes of what a rank says at a meeting."""


class Noise(Protocol):
    """What makes a clipped sum fit for an optimizer."""

    @property
    def draws(self) -> int:
        """Updates that were given noise so far, by this process."""
        ...

    def add(self, clipped: ClippedSum) -> NoisedSum: ...


class Ranks:
    """The processes of one training. This class is a process by itself, which sends nothing; :class:`Group` is several."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes, counts and draws the noise."""
        return self.rank == 0

    def start(self, model: nn.Module, facts: dict[str, object]) -> None:
        """Begins a training: all ranks must have the same ``facts``, and get the first one's weights and buffers.

        Raises:
            PlanError: a fact differs; it is named, and its value is not.
        """

    def batches(
        self, sampler: "Sampler", examples: int, first: int, steps: int, insecure_seed: int | None
    ) -> Iterator[np.ndarray]:
        """This rank's part of the batches of steps ``first`` to ``steps - 1``, as positions among all examples.

        What the sampler draws is dealt out whole: if a position stands for all examples of a user, one rank clips them all.
        """
        return sampler.batches(examples, first, steps, secret_generator(insecure_seed, f"batches from {first}"))

    def sum(self, at: str, compute: Callable[[], ClippedSum]) -> ClippedSum:
        """The sum, over all ranks, of what each computes of its own part."""
        return compute()

    def noise(self, make: Callable[[], Noise]) -> Noise:
        """The training's one noise stream."""
        return make()

    def check_weights(self, model: nn.Module) -> None:
        """Raises ProtocolError, with the name of the first parameter that is not the same on all ranks to the bit."""

    def first(self, at: str, do: Callable[[], T]) -> T:
        """What the first rank gives, a small JSON value, on every rank; the others wait for it."""
        return do()

    def together(self, at: str, do: Callable[[], T]) -> T:
        """What each rank gives by itself; where one of them fails, all do."""
        return do()

    def files(self, at: str, read: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
        """Files that the first rank reads, on every rank."""
        return read()

    def any(self, at: str, wish: bool) -> bool:
        """Whether any rank wishes it."""
        return wish


class Group(Ranks):
    """Several processes. Every method is called by all of them, in the same order."""

    def __init__(self, timeout: timedelta = TIMEOUT):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        self._group = dist.new_group(backend=backend, timeout=timeout)
        self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)

    # -- the training -----------------------------------------------------------------------------------------------

    def start(self, model: nn.Module, facts: dict[str, object]) -> None:
        facts = {**facts, "parameters": [(name, tuple(value.shape), str(value.dtype)) for name, value in _tensors(model)]}
        digests = {name: hashlib.sha256(repr(fact).encode()).hexdigest()[:16] for name, fact in facts.items()}
        notes = self._meet("make_private()", said=digests)
        for name in facts:
            differs = next((rank for rank, note in enumerate(notes) if note["said"].get(name) != digests[name]), None)
            if differs is not None:
                raise PlanError(
                    f"rank {self.rank} and rank {differs} were given different {name}: one training has one; call "
                    "make_private() with the same arguments on every rank"
                )
        with torch.no_grad():
            for _, value in _tensors(model):
                value.copy_(self._from_first(value.detach()))

    def batches(
        self, sampler: "Sampler", examples: int, first: int, steps: int, insecure_seed: int | None
    ) -> Iterator[np.ndarray]:
        if not sampler.by_example:
            yield from self._dealt_out(super().batches(sampler, examples, first, steps, insecure_seed), first, steps)
            return
        own = np.arange(self.rank, examples, self.size)
        generator = secret_generator(insecure_seed, f"batches of rank {self.rank} of {self.size} from {first}")
        for drawn in sampler.batches(len(own), first, steps, generator):
            yield own[drawn]

    def _dealt_out(self, drawn: Iterator[np.ndarray], first: int, steps: int) -> Iterator[np.ndarray]:
        """Batches that the first rank draws whole, of which each rank takes its share."""
        for step in range(first, steps):
            batch, error = _attempt(lambda: next(drawn)) if self.is_first else (None, None)
            notes = self._meet(f"batch {step}", error, None if batch is None else len(batch))
            empty = torch.empty(notes[0]["said"], dtype=torch.int64)
            yield self._from_first(empty if batch is None else torch.from_numpy(batch).long()).numpy()[self.rank :: self.size]

    def sum(self, at: str, compute: Callable[[], ClippedSum]) -> ClippedSum:
        own, error = _attempt(compute)
        notes = self._meet(at, error, None if own is None else dataclasses.asdict(own.counts))
        assert own is not None  # or the meeting would have raised
        counts = sum((Counts(**note["said"]) for note in notes), Counts())

        def add(flat: Tensor) -> Tensor:
            self._exchange(lambda group: dist.all_reduce(flat, group=group))
            return flat

        gradients = _in_one_piece(own.gradients, add)
        return dataclasses.replace(own, gradients=gradients, counts=counts, flat=None)

    def noise(self, make: Callable[[], Noise]) -> Noise:
        return SharedNoise(self, make() if self.is_first else None)

    def noised(self, noise: Noise | None, clipped: ClippedSum) -> NoisedSum:
        """The sum with the first rank's noise; the others have no stream, and are sent what it made."""
        noised, error = (None, None) if noise is None else _attempt(lambda: noise.add(clipped))
        facts = [item.name for item in dataclasses.fields(NoisedSum) if item.init and item.name != "gradients"]
        notes = self._meet("noise", error, {name: getattr(noised, name, None) for name in facts})
        shaped = clipped.gradients if noised is None else noised.gradients
        return noised_sum(_in_one_piece(shaped, self._from_first), **notes[0]["said"])

    def check_weights(self, model: nn.Module) -> None:
        self._meet("comparing weights")
        names = [name for name, _ in _tensors(model)]
        digests = [hashlib.sha256(_bytes(value.detach().cpu()).numpy().tobytes()).digest() for _, value in _tensors(model)]
        own = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8)
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        self._exchange(lambda group: dist.all_gather(everyone, own, group=group))
        for rank, theirs in enumerate(everyone):
            if not torch.equal(theirs, everyone[0]):
                name = names[int((theirs != everyone[0]).nonzero()[0]) // 32]
                raise ProtocolError(
                    f"{name!r} on rank {rank} is not what it is on rank 0: something changes weights outside of step(), or "
                    "the ranks' optimizers differ; give every rank the same optimizer and schedule, and change nothing else"
                )

    # -- working together -------------------------------------------------------------------------------------------

    def first(self, at: str, do: Callable[[], T]) -> T:
        self._meet(at)
        value, error = None, None
        if self.is_first:
            with alone():
                value, error = _attempt(do)
        return self._meet(at, error, value, patient=True)[0]["said"]

    def together(self, at: str, do: Callable[[], T]) -> T:
        self._meet(at)
        with alone():
            value, error = _attempt(do)
        self._meet(at, error, patient=True)
        made: Any = value
        return made

    def files(self, at: str, read: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
        self._meet(at)
        found, error = _attempt(read) if self.is_first else (None, None)
        sizes = None if found is None else {name: len(content) for name, content in found.items()}
        notes = self._meet(at, error, sizes, patient=True)
        files: dict[str, bytes] = {}
        for name, size in notes[0]["said"].items():
            content = bytearray(size) if found is None else bytearray(found[name])
            files[name] = self._from_first(torch.frombuffer(content, dtype=torch.uint8)).numpy().tobytes() if size else b""
        return files

    def any(self, at: str, wish: bool) -> bool:
        return any(note["said"] for note in self._meet(at, said=wish))

    # -- what is sent -----------------------------------------------------------------------------------------------

    def _meet(self, at: str, error: BaseException | None = None, said: Any = None, *, patient: bool = False) -> list[Any]:
        """Every rank's note. What breaks one rank is raised by all.

        Args:
            at: where this rank is; all must be there.
            patient: the first rank may have worked for long before, and the others wait.

        Raises:
            RankError: the ranks are not at the same place.
            ElsewhereError: another rank failed.
        """
        own = torch.zeros(NOTE, dtype=torch.uint8)
        told = None if error is None else "".join(letter for letter in str(error) if letter.isprintable())[:300]
        note = {"at": at, "said": said, "error": told, "kind": type(error).__name__}
        content = torch.frombuffer(bytearray(json.dumps(note, ensure_ascii=False).encode()), dtype=torch.uint8)
        own[: len(content)] = content
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        self._exchange(lambda group: dist.all_gather(everyone, own, group=group), patient=patient)
        notes = [json.loads(theirs.numpy().tobytes().rstrip(b"\0")) for theirs in everyone]
        places = [f"rank {rank} is at {note['at']!r}" for rank, note in enumerate(notes)]
        if any(note["at"] != at for note in notes):
            raise RankError(
                f"the processes of this training are apart: {', '.join(places)}; every rank must make the same calls in the "
                "same order, save() included"
            ) from error
        failed = next((rank for rank, note in enumerate(notes) if note["error"] is not None), None)
        if failed == self.rank and error is not None:
            raise error
        if failed is not None:
            if notes[failed]["kind"] == "KeyboardInterrupt":
                raise KeyboardInterrupt
            raise ElsewhereError(f"rank {failed} failed at {at!r}: {notes[failed]['kind']}: {notes[failed]['error']}")
        return notes

    def _from_first(self, value: Tensor) -> Tensor:
        """The first rank's ``value``, to the bit, in whatever type; a new tensor."""
        sent = value.clone(memory_format=torch.contiguous_format)
        self._exchange(lambda group: dist.broadcast(_bytes(sent), 0, group=group))
        return sent

    def _exchange(self, collective: Callable[[Any], object], *, patient: bool = False) -> None:
        try:
            collective(self._patient if patient else self._group)
        except RuntimeError as error:
            said = re.sub(r"^\[[^\]]*\]\s*", "", " ".join(str(error).split()))[:120]  # not where in gloo's source it was
            raise RankError(
                f"rank {self.rank} lost another process of this training, which ended or was silent for too long ({said}); "
                "nothing more is released; resume from the last checkpoint"
            ) from error


class SharedNoise:
    """One noise stream for all ranks: the first one's."""

    def __init__(self, ranks: Group, own: Noise | None):
        self._ranks, self._own = ranks, own

    def __reduce__(self) -> Any:
        raise ProtocolError("a noise stream cannot be copied or sent elsewhere: two copies would draw the same noise")

    @property
    def draws(self) -> int:
        return 0 if self._own is None else self._own.draws

    def add(self, clipped: ClippedSum) -> NoisedSum:
        """The clipped sum of all ranks with one draw of noise, the same bits on every rank."""
        return self._ranks.noised(self._own, clipped)


# -- which group this process is of -----------------------------------------------------------------------------------

_alone = 0
_known: tuple[object, Group] | None = None


@contextmanager
def alone() -> Iterator[None]:
    """What is trained inside of it is this process' own and shared with no other: a shadow model, one seed of many."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def current() -> Ranks:
    """The ranks that a training begun now runs on.

    Raises:
        ProtocolError: torchrun started several processes and none joined a group: each would train for itself, and their
            releases together would spend several times what each of them states.
    """
    global _known
    if _alone or not dist.is_available():
        return Ranks()
    if not dist.is_initialized():
        if dist.is_torchelastic_launched() and _world_size() > 1:
            raise ProtocolError(
                f"torchrun started {_world_size()} processes, and this one has joined no group; call "
                "dptrain.distributed.join() first, or train inside of dptrain.distributed.alone() what each has for itself"
            )
        return Ranks()
    if dist.get_world_size() == 1:
        return Ranks()
    if _known is None or _known[0] is not dist.group.WORLD:
        _known = (dist.group.WORLD, Group(_timeout))
    return _known[1]


_timeout = TIMEOUT


def join(timeout: timedelta = TIMEOUT) -> Ranks:
    """Joins the processes that torchrun or ``dptrain run --distributed`` started beside this one, if they did.

    Args:
        timeout: for how long another process may be silent between two meetings; after that, this one gives up.
    """
    global _timeout
    _timeout = timeout
    if _world_size() > 1 and not dist.is_initialized():
        accelerated = torch.cuda.is_available() and dist.is_nccl_available()
        if accelerated:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if accelerated else "gloo",
            init_method=os.environ.get(RENDEZVOUS, "env://"),
            rank=int(os.environ["RANK"]),
            world_size=_world_size(),
            timeout=timeout,
        )
    return current()


def leave() -> None:
    """Leaves the group that :func:`join` joined."""
    global _known
    if dist.is_available() and dist.is_initialized():
        _known = None
        dist.destroy_process_group()


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


# -- models that other tools have wrapped -----------------------------------------------------------------------------


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module. DDP would average gradients that were neither clipped nor noised.

    Raises:
        PlanError: its parameters are sharded over processes.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    sharding = sys.modules.get("torch.distributed.tensor")  # where nobody has imported it, nothing is sharded
    sharded = [name for name, value in model.named_parameters() if sharding and isinstance(value, sharding.DTensor)]
    if sharded:
        raise PlanError(
            f"parameter {sharded[0]!r} is a DTensor, sharded by fully_shard() or a tensor-parallel plan: ranks gather it in "
            "each forward pass, of which Poisson batches give them different numbers, so they would wait for one another for "
            "good; give the plain model, whole on every rank (DistributedDataParallel or nothing around it), and where memory "
            "is short a lower performance.max_physical_batch"
        )
    return model


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _bytes(value: Tensor) -> Tensor:
    """The same memory as ``[bytes]``; a copy where it is not contiguous."""
    return value.contiguous().reshape(-1).view(torch.uint8)


def _in_one_piece(values: dict[str, Tensor], exchange: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Tensors that were exchanged as one flat tensor for each type and device."""
    kinds: dict[Any, list[str]] = {}
    for name, value in values.items():
        kinds.setdefault((value.dtype, value.device), []).append(name)
    exchanged: dict[str, Tensor] = {}
    for names in kinds.values():
        flat = exchange(torch.cat([values[name].reshape(-1) for name in names]))
        parts = flat.split([values[name].numel() for name in names])
        exchanged |= {name: part.view(values[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: exchanged[name] for name in values}


def _attempt(do: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return do(), None
    except (Exception, KeyboardInterrupt) as error:
        return None, error
