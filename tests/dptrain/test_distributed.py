"""One training on several processes: real ones, over gloo, two and three of them.

The ranks of a size are started once and do what each test sends them; what must die has processes of its own.
"""

import copy
import dataclasses
import json
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, distributed, make_private, per_example
from dptrain.distributed import RENDEZVOUS, Group
from dptrain.errors import ProtocolError
from dptrain.ledger import Ledger
from dptrain.noise import secret_generator
from dptrain.private import PrivateTraining
from dptrain.sampling import PoissonSampler, Sampler, sampler_for
from dptrain.stopping import EarlyStopping
from dptrain.trainer import stop_at_step_end

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0)
QUIET = dataclasses.replace(PLAN, noise_multiplier=0.0)
WHOLE = dataclasses.replace(QUIET, sampling_rate=1.0, expected_batch_size=40)
Told = tuple[str, Any]
"""What a rank answers: "gave" and the value, or an error's name and text."""


# -- processes ----------------------------------------------------------------------------------------------------------


class Processes:
    """So many ranks, each of which runs what it is sent: ``processes(work, *arguments)`` gives one answer a rank."""

    def __init__(self, size: int, folder: Path, timeout: float = 60):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # torch is imported once, before any process group
        meeting = (folder / f"rendezvous-{size}-{time.monotonic_ns()}").as_uri()
        pairs = [context.Pipe() for _ in range(size)]
        self.pipes = [own for own, _ in pairs]
        self.ranks = [
            context.Process(target=serve, args=(rank, size, meeting, timeout, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.ranks:
            process.start()
        for _, theirs in pairs:
            theirs.close()

    def answers(self, work: Callable[..., Any], *arguments: Any) -> list[Told]:
        for pipe in self.pipes:
            pipe.send((work, arguments))
        return [self._answer(pipe) for pipe in self.pipes]

    def _answer(self, pipe: Connection) -> Told:
        if not pipe.poll(60):
            return "hangs", "no answer within a minute"
        try:
            return pipe.recv()
        except EOFError:
            return "died", ""

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        answers = self.answers(work, *arguments)
        assert all(kind == "gave" for kind, _ in answers), answers
        return [value for _, value in answers]

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.ranks:
            process.join(1)
            process.kill()
            process.join()


def serve(rank: int, size: int, meeting: str, timeout: float, pipe: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), RENDEZVOUS: meeting}
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="delta is")
    distributed.join(timedelta(seconds=timeout))
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("gave", work(*arguments))
        except (Exception, KeyboardInterrupt) as error:
            answer = (type(error).__name__, str(error))
        pipe.send(answer)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    processes = Processes(2, tmp_path_factory.mktemp("two"))
    yield processes
    processes.end()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    processes = Processes(3, tmp_path_factory.mktemp("three"))
    yield processes
    processes.end()


@pytest.fixture(params=["two", "three"])
def several(request: pytest.FixtureRequest) -> Processes:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


# -- what the ranks do --------------------------------------------------------------------------------------------------


def dataset(count: int = 40) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 5, generator=generator), torch.randint(3, (count,), generator=generator))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def training(plan: PrivacyPlan, count: int = 40, model: nn.Module | None = None, **options: Any) -> PrivateTraining:
    model = small_model() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return make_private(model, optimizer, dataset(count), plan, loss=per_example(F.cross_entropy), **options)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().clone() for value in model.parameters()])


def train(plan: PrivacyPlan, count: int = 40, seed: int | None = None) -> dict[str, Any]:
    """Trains to the end; what was drawn here at each step, the counts over all, and the weights."""
    private = training(plan, count, insecure_seed=seed)
    drawn, examples = [], []
    for batch in private.batches():
        drawn.append(batch._positions)
        private.step(batch)
        assert private.last_counts is not None
        examples.append(private.last_counts.examples)
    return {"drawn": drawn, "examples": examples, "weights": weights(private.model), "draws": private._noise.draws}


def one_process(plan: PrivacyPlan, batches: list[np.ndarray], seed: int | None = None) -> Tensor:
    """The weights of one process that is given these batches."""
    private = training(plan, insecure_seed=seed)
    private._stream = ((batch, None) for batch in batches)
    for batch in private.batches():
        private.step(batch)
    return weights(private.model)


FIXED = dataclasses.replace(QUIET, sampling="fixed_size", relation="replace_one", max_examples=40)
"""Exactly so many: an example is in where others are not, so one process must draw."""


def train_with_fixed_size(seed: int) -> dict[str, Any]:
    return train(FIXED, seed=seed)


# -- the same training --------------------------------------------------------------------------------------------------


def test_without_noise_the_weights_are_those_of_one_process(several: Processes):
    straight = one_process(WHOLE, [np.arange(40)] * 6)
    for rank in several(train, WHOLE):
        torch.testing.assert_close(rank["weights"], straight, rtol=1e-5, atol=1e-6)
        assert rank["examples"] == [40] * 6


@pytest.mark.parametrize("plan", [QUIET, dataclasses.replace(QUIET, sampling="balls_in_bins"), PLAN])
def test_the_ranks_batches_together_are_one_batch_of_one_process(several: Processes, plan: PrivacyPlan):
    """With noise, too: one stream, drawn once an update, whatever the number of ranks."""
    ranks = several(train, plan, 40, 7)
    together = [np.sort(np.concatenate(parts)) for parts in zip(*(rank["drawn"] for rank in ranks), strict=True)]
    assert all(len(np.unique(batch)) == len(batch) for batch in together)
    for rank in ranks:
        assert rank["examples"] == [len(batch) for batch in together]
        torch.testing.assert_close(rank["weights"], one_process(plan, together, 7), rtol=1e-5, atol=1e-6)
        assert torch.equal(rank["weights"], ranks[0]["weights"])


def test_batches_whose_examples_depend_on_one_another_are_drawn_by_the_first_rank(several: Processes):
    ranks = several(train_with_fixed_size, 3)
    generator = secret_generator(3, "batches from 0")
    expected = list(sampler_for(FIXED).batches(40, 0, 6, generator))
    for step, batch in enumerate(expected):
        assert len(batch) == 20
        parts = [rank["drawn"][step] for rank in ranks]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(0, 50), st.integers(1, 7))
def test_every_example_belongs_to_exactly_one_rank(examples: int, size: int):
    drawn: list[np.ndarray] = []
    for rank in range(size):
        group = object.__new__(Group)
        group.rank, group.size = rank, size
        drawn += group.batches(PoissonSampler(1.0), examples, 0, 1, None)
    assert sorted(np.concatenate(drawn)) == list(range(examples))


def test_a_sampler_is_drawn_by_one_rank_unless_it_says_otherwise():
    assert not Sampler.by_example
    assert not sampler_for(FIXED).by_example


def test_ranks_without_an_example_train_along(three: Processes):
    """Sharp edge 5: at this rate parts, and whole batches, are empty; with two examples one rank never has any."""
    for plan, count in ((dataclasses.replace(PLAN, sampling_rate=0.02, expected_batch_size=0.8), 40), (PLAN, 2)):
        ranks = three(train, plan, count)
        assert any(len(part) == 0 for rank in ranks for part in rank["drawn"])
        assert all(torch.equal(rank["weights"], ranks[0]["weights"]) for rank in ranks)
        assert all(len(rank["examples"]) == plan.steps for rank in ranks)


# -- randomness ---------------------------------------------------------------------------------------------------------


def noise_of_one_update() -> Tensor:
    """What one update adds to the weights of a model whose batches are empty, times the expected batch size."""
    torch.manual_seed(0)
    model = nn.Linear(200, 200)
    plan = dataclasses.replace(PLAN, sampling_rate=1e-9, expected_batch_size=4e-8, noise_multiplier=2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    data = TensorDataset(torch.zeros(40, 200), torch.zeros(40, dtype=torch.long))
    private = make_private(model, optimizer, data, plan, loss=per_example(F.cross_entropy))
    before = model.weight.detach().clone()
    for batch in private.batches(1):
        private.step(batch)
    return (model.weight.detach() - before).double() * plan.expected_batch_size


def coins(count: int, steps: int) -> np.ndarray:
    """Who was in which batch here, ``[steps, examples]``, though all ranks have seeded everything alike."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  the very generator that a careless script seeds
    private = training(dataclasses.replace(PLAN, steps=steps), count)
    thrown = np.zeros((steps, count), dtype=bool)
    for batch in private.batches():
        thrown[batch.step, batch._positions] = True
        private.step(batch)
    return thrown


def test_sharp_edge_10_one_noise_stream_and_independent_batches(two: Processes):
    """Sharp edge 10: the noise of two ranks has the variance σ²C², not 2σ²C², and their coins know nothing of each other."""
    noise = two(noise_of_one_update)
    assert torch.equal(noise[0], noise[1])
    assert float(noise[0].var()) == pytest.approx((2.0 * 0.5) ** 2, rel=0.04)  # 40,000 draws: 5.6 standard errors
    assert [rank["draws"] for rank in two(train, PLAN)] == [PLAN.steps, 0]

    steps, count = 40, 200
    first, second = two(coins, count, steps)
    assert not first[:, 1::2].any()
    assert not second[:, 0::2].any()
    a, b = first[:, 0::2].ravel() - 0.5, second[:, 1::2].ravel() - 0.5
    pairs = len(a)
    assert abs(a.mean()) < 5 * 0.5 / pairs**0.5
    assert abs(b.mean()) < 5 * 0.5 / pairs**0.5
    assert abs((a * b).mean()) < 5 * 0.25 / pairs**0.5
    again, _ = two(coins, count, steps)
    assert not np.array_equal(again, first)


def test_an_insecure_seed_gives_every_rank_coins_of_its_own(two: Processes):
    first, second = (rank["drawn"] for rank in two(train, QUIET, 40, 5))
    assert not all(np.array_equal(a + 1, b) for a, b in zip(first, second, strict=True))
    assert sum(map(len, first)) > 0


# -- the same guarantee, kept once --------------------------------------------------------------------------------------


def train_and_save(folder: Path, plan: PrivacyPlan, until: int | None = None, resume: bool = False) -> tuple[dict, Tensor]:
    private = training(plan, ledger=folder / f"ledger-{distributed.current().rank}.jsonl")
    if resume:
        private.resume(folder)
    for batch in private.batches(until):
        private.step(batch)
    private.save(folder)
    return private.card(), weights(private.model)


def test_guarantee_and_card_do_not_know_the_number_of_ranks(several: Processes, tmp_path: Path):
    alone, _ = train_and_save(tmp_path / "alone", PLAN)
    for card, _ in several(train_and_save, tmp_path / "together", PLAN):
        assert card == alone
    stored = (json.loads((tmp_path / where / "release" / "card.json").read_text()) for where in ("alone", "together"))
    assert next(stored) == next(stored)


def test_the_ledger_is_kept_once(two: Processes, tmp_path: Path):
    """Sharp edge 17: two ranks spend what one would."""
    two(train_and_save, tmp_path, PLAN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger-0.jsonl", "ledger-0.jsonl.head", "private", "release"]
    assert Ledger(tmp_path / "ledger-0.jsonl").blocks() == [(PLAN, 0, 6)]


def test_a_checkpoint_resumes_on_another_number_of_ranks(two: Processes, three: Processes, tmp_path: Path):
    straight = one_process(WHOLE, [np.arange(40)] * 6)
    two(train_and_save, tmp_path, WHOLE, 2)
    three(train_and_save, tmp_path, WHOLE, 4, True)
    _, ended = train_and_save(tmp_path, WHOLE, None, True)
    torch.testing.assert_close(ended, straight, rtol=1e-5, atol=1e-6)


def test_a_missing_checkpoint_is_missing_on_every_rank(two: Processes, tmp_path: Path):
    answers = two.answers(train_and_save, tmp_path, WHOLE, None, True)
    assert [kind for kind, _ in answers] == ["CheckpointError", "ElsewhereError"]
    assert "no complete checkpoint" in answers[1][1]


# -- weights ------------------------------------------------------------------------------------------------------------


def start_with_own_weights() -> list[Tensor]:
    torch.manual_seed(10 + distributed.current().rank)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    before = weights(model)
    return [before, weights(training(QUIET, model=model).model)]


def test_every_rank_begins_with_the_first_ones_weights(several: Processes):
    ranks = several(start_with_own_weights)
    assert not torch.equal(ranks[0][0], ranks[1][0])
    assert all(torch.equal(after, ranks[0][0]) for _, after in ranks)


def spoil_a_weight(folder: Path) -> None:
    private = training(QUIET)
    for batch in private.batches(2):
        private.step(batch)
    if private.ranks.rank == 1:
        with torch.no_grad():
            private.model.get_parameter("2.bias")[1] += 1e-7
    private.save(folder)


def test_weights_that_came_apart_are_named_and_not_saved(several: Processes, tmp_path: Path):
    for kind, text in several.answers(spoil_a_weight, tmp_path):
        assert kind == "ProtocolError"
        assert "'2.bias' on rank 1" in text
    assert not list(tmp_path.iterdir())


def train_with_own_rate() -> None:
    private = training(dataclasses.replace(QUIET, steps=distributed.CHECK_EVERY + 1))
    private.optimizer.param_groups[0]["lr"] = 0.1 * (1 + private.ranks.rank)
    for batch in private.batches():
        private.step(batch)


def test_weights_are_compared_under_way(two: Processes):
    for kind, text in two.answers(train_with_own_rate):
        assert kind == "ProtocolError"
        assert "'0.weight' on rank 1" in text


def differing_plans() -> None:
    training(dataclasses.replace(PLAN, noise_multiplier=1.0 + distributed.current().rank))


def differing_data() -> None:
    training(PLAN, 40 + distributed.current().rank)


@pytest.mark.parametrize(("work", "named"), [(differing_plans, "different plan"), (differing_data, "different examples")])
def test_ranks_that_were_given_different_things_are_refused(two: Processes, work: Callable[[], None], named: str):
    for kind, text in two.answers(work):
        assert kind == "PlanError"
        assert named in text


def refuse_to_average(state: object, bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    raise AssertionError("DDP averaged gradients")


def train_in_ddp() -> tuple[str, Tensor]:
    model = DistributedDataParallel(small_model())
    model.register_comm_hook(None, refuse_to_average)
    private = training(WHOLE, model=model)
    for batch in private.batches():
        private.step(batch)
    return type(private.model).__name__, weights(private.model)


def test_ddp_is_taken_off_and_averages_nothing(two: Processes):
    plain = two(train, WHOLE)[0]["weights"]
    for name, trained in two(train_in_ddp):
        assert name == "Sequential"
        assert torch.equal(trained, plain)


def train_sharded() -> None:
    from torch.distributed.fsdp import fully_shard

    model = small_model()
    mesh = torch.distributed.init_device_mesh("cpu", (distributed.current().size,))
    fully_shard(model, mesh=mesh)
    training(PLAN, model=model)


def test_sharded_parameters_are_refused_with_what_to_do(two: Processes):
    for kind, text in two.answers(train_sharded):
        assert kind == "PlanError"
        assert "'0.weight' is a DTensor" in text
        assert "max_physical_batch" in text


# -- failures -----------------------------------------------------------------------------------------------------------


def fail_on_one(failing: int, error: type[BaseException]) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        if distributed.current().rank == failing:
            raise error("the disk is gone")
        return per_example(F.cross_entropy)(model, batch)

    model = small_model()
    private = make_private(model, torch.optim.SGD(model.parameters(), lr=0.5), dataset(), WHOLE, loss=loss)
    for batch in private.batches():
        private.step(batch)


def test_what_breaks_one_rank_is_raised_by_all_and_they_stay_together(several: Processes):
    answers = several.answers(fail_on_one, 1, ValueError)
    assert answers[1] == ("ValueError", "the disk is gone")
    for kind, text in answers[:1] + answers[2:]:
        assert kind == "ElsewhereError"
        assert text == "rank 1 failed at 'step 0': ValueError: the disk is gone"
    assert [kind for kind, _ in several.answers(fail_on_one, 0, KeyboardInterrupt)] == ["KeyboardInterrupt"] * len(answers)
    assert len(several(train, WHOLE)) == len(answers)


def ask_one_to_stop() -> bool:
    with stop_at_step_end(distributed.current()) as asked:
        if not distributed.current().is_first:
            os.kill(os.getpid(), signal.SIGINT)
        return asked()


def test_a_wish_to_stop_that_one_rank_hears_stops_all_after_the_same_step(several: Processes):
    assert all(several(ask_one_to_stop))


def end_by_public_loss() -> int:
    """Rank 0 sees its public loss fall, the others see theirs rise: rounding could part them, if not as far."""
    private = training(QUIET)
    ending = EarlyStopping(private, 2, torch.zeros(1, 5), torch.zeros(1, dtype=torch.long))
    sign = -1.0 if private.ranks.is_first else 1.0
    ending._loss = lambda: sign * private.steps_taken
    for batch in private.batches():
        private.step(batch)
        if ending.reached():
            break
    return private.steps_taken


def test_early_stopping_ends_all_after_the_same_step(several: Processes):
    assert set(several(end_by_public_loss)) == {3}


def save_on_the_first_alone(folder: Path) -> None:
    private = training(PLAN)
    for batch in private.batches():
        private.step(batch)
        if private.ranks.is_first:
            private.save(folder)


def end_under_way(how: str) -> None:
    private = training(PLAN)
    for batch in private.batches():
        if batch.step == 2 and private.ranks.rank == 1:
            if how == "die":
                os._exit(3)
            time.sleep(3600)
        private.step(batch)


def test_ranks_at_different_places_are_told_so(tmp_path: Path):
    processes = Processes(2, tmp_path)
    for kind, text in processes.answers(save_on_the_first_alone, tmp_path):
        assert kind == "RankError"
        assert "rank 0 is at 'comparing weights', rank 1 is at 'step 1'" in text
        assert "save() included" in text
    processes.end()


def test_a_rank_that_dies_ends_the_others(tmp_path: Path):
    processes = Processes(3, tmp_path)
    started = processes.answers(end_under_way, "die")
    assert [kind for kind, _ in started] == ["RankError", "died", "RankError"]
    assert "ended or was silent for too long" in started[0][1]
    processes.end()


def test_a_rank_that_is_silent_ends_the_others(tmp_path: Path):
    processes = Processes(2, tmp_path, timeout=10)  # in which they also have to meet first
    for pipe in processes.pipes:
        pipe.send((end_under_way, ("sleep",)))
    kind, text = processes._answer(processes.pipes[0])
    assert kind == "RankError"
    assert "resume from the last checkpoint" in text
    processes.end()


def train_alone() -> Tensor:
    """The first rank alone, as where it trains the shadow models of an attack."""
    if not distributed.current().is_first:
        return torch.zeros(0)
    with distributed.alone():
        private = training(WHOLE)
        for batch in private.batches():
            private.step(batch)
    return weights(private.model)


def test_what_one_rank_trains_for_itself_waits_for_nobody(two: Processes):
    trained, _ = two(train_alone)
    torch.testing.assert_close(trained, one_process(WHOLE, [np.arange(40)] * 6))


def test_processes_of_torchrun_that_joined_nothing_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Each would train and publish for itself, and state its own part of the spending alone."""
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ProtocolError, match=r"distributed\.join"):
        training(PLAN)
    with distributed.alone():
        assert training(PLAN).ranks.size == 1


def copy_the_noise() -> None:
    copy.deepcopy(training(PLAN)._noise)


def test_no_rank_has_a_stream_to_copy(two: Processes):
    """Sharp edge 24."""
    for kind, text in two.answers(copy_the_noise):
        assert kind == "ProtocolError"
        assert "same noise" in text
