"""Fleets: every way trains the same models, what was kept is used only if it is whole and of this very fleet."""

import dataclasses
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.errors import UserError
from dptrain.fleet import (
    Fleet,
    Views,
    design,
    draw_membership,
    fleet_digest,
    logits_of,
    named_views,
    processes,
    recipe_digest,
    retrain_fleet,
    train_fleet,
    training,
)
from dptrain.fleet.processes import read_job, shared_out, startable, write_job
from dptrain.fleet.training import Job, Single
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, Performance, PrivacyConfig, Recipe, TrainingConfig
from dptrain.registry import MODELS
from dptrain.trainer import build_model

STEPS = 4
QUIET = Recipe(
    optimizer=OptimizerConfig(learning_rate=2.0),
    privacy=PrivacyConfig(mechanism="clip_only"),
    training=TrainingConfig(steps=STEPS),
)
"""Full batches without noise: every way, and every repetition, gives the same models."""
WAYS = training.WAYS


@pytest.fixture(scope="module")
def digits() -> DataSet:
    whole = dptrain.data.load(DataConfig())
    return dataclasses.replace(whole, inputs=whole.inputs[:300], targets=whole.targets[:300])


def clipped_at(norm: float) -> Recipe:
    return dataclasses.replace(QUIET, privacy=dataclasses.replace(QUIET.privacy, clipping_norm=norm))


def train(data: DataSet, recipe: Recipe = QUIET, way: Any = "measured", **options: Any) -> Fleet:
    options = {"models": 5, "rate": 0.5, "progress": False, **options}
    return train_fleet(recipe, data, performance=Performance(fleet=way), **options)


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.npz")
    return path


MIRRORED = Views("mirrored", lambda inputs: torch.stack([inputs, inputs.flip(-1)]))


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_every_way_trains_the_same_models_and_keeps_the_same_of_them(digits: DataSet, name: str):
    recipe = dataclasses.replace(QUIET, model=ModelConfig(name=name))
    fleets = {way: train(digits, recipe, way, keep_weights=True, views=MIRRORED) for way in WAYS}
    expected = fleets["one by one"]
    assert np.array_equal(expected.membership, draw_membership(5, 300, 0.5))
    assert not np.allclose(expected.logits[0], expected.logits[1], atol=0.01)
    for fleet in fleets.values():
        assert fleet.digest == expected.digest
        assert fleet.logits.dtype == np.float32
        assert np.allclose(fleet.logits, expected.logits, atol=1e-4)
        assert fleet.views is not None
        assert expected.views is not None
        assert np.allclose(fleet.views[:, 0], fleet.logits, atol=1e-4)
        assert np.allclose(fleet.views, expected.views, atol=1e-4)
        for index in (0, 4):
            assert np.allclose(logits_of(fleet.model(index), digits), fleet.logits[index], atol=1e-4)
        mirrored = dataclasses.replace(digits, inputs=digits.inputs.flip(-1))
        assert np.allclose(logits_of(fleet.model(2), mirrored), fleet.views[2, 1], atol=1e-4)


def test_no_model_sees_the_test_part_and_stacks_of_any_size_give_the_same(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    test = np.arange(250, 300)
    expected = train(digits, test=test)
    assert not expected.membership[:, 250:].any()
    monkeypatch.setattr("dptrain.fleet.stacked.MOST_MODELS", 2)
    assert np.allclose(train(digits, way="masked", test=test).logits, expected.logits, atol=1e-4)


@pytest.mark.parametrize("fastest", WAYS)
def test_what_the_first_steps_show_to_be_the_fastest_trains_them_all(
    digits: DataSet, fastest: str, monkeypatch: pytest.MonkeyPatch
):
    begin, finish = Job.begin, Job.finish
    way_of: dict[Any, str] = {}
    finished: list[str] = []

    def begun(self: Job, way: Any, missing: list[int]) -> Any:
        block = begin(self, way, missing)
        way_of[block] = way
        return block

    def ended(self: Job, block: Any, missing: list[int], bar: tqdm) -> Any:
        finished.append(way_of[block])
        return finish(self, block, missing, bar)

    def seconds(block: Any, steps: int) -> float:
        block.step()
        return 1.0 if way_of[block] == fastest else 2.0

    monkeypatch.setattr("dptrain.fleet.stacked.MOST_MODELS", 2)
    monkeypatch.setattr(Job, "begin", begun)
    monkeypatch.setattr(Job, "finish", ended)
    monkeypatch.setattr(training, "_seconds", seconds)
    monkeypatch.setattr(training, "_known", {})
    fleet = train(digits)
    assert set(way_of.values()) == set(WAYS)
    assert finished == [fastest] * (5 if fastest == "one by one" else 3)
    for recipe, ways in ((QUIET, {fastest}), (clipped_at(0.5), set(WAYS))):  # what is known is not measured again; all else is
        before = len(way_of)
        train(digits, recipe)
        assert set(list(way_of.values())[before:]) == ways
    monkeypatch.undo()
    assert np.allclose(fleet.logits, train(digits, way="one by one").logits, atol=1e-4)


def test_a_budget_is_no_reason_to_measure_again_and_none_at_all_is(digits: DataSet):
    def kind(epsilon: float, share: float = 0.5) -> tuple[Any, ...]:
        recipe = dataclasses.replace(QUIET, privacy=PrivacyConfig(epsilon=epsilon))
        job = Job(recipe, digits, draw_membership(5, 300, share), STEPS, "", Performance())
        return training._kind_of(job, [0, 1, 2, 3, 4])

    assert kind(8.0) == kind(0.5)
    assert kind(8.0) != kind(float("inf"))
    assert kind(8.0) != kind(8.0, share=0.05)


def test_a_way_for_which_there_is_no_memory_any_more_is_measured_again(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "_known", {})
    monkeypatch.setattr(training, "_seconds", lambda block, steps: 1.0 if isinstance(block, Single) else 0.1)
    train(digits)
    (known,) = training._known.values()
    assert known != "one by one"

    def step(self: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")

    monkeypatch.setattr("dptrain.fleet.stacked.Stack.step", step)
    monkeypatch.setattr(training, "_seconds", lambda block, steps: block.step() or 1.0)
    assert np.isfinite(train(digits, clipped_at(0.1)).logits).all()
    assert list(training._known.values()) == ["one by one"]


def test_a_way_that_two_models_show_to_be_hopeless_is_not_tried_with_more(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    begin = Job.begin
    sizes: list[tuple[str, int]] = []

    def begun(self: Job, way: Any, missing: list[int]) -> Any:
        sizes.append((way, len(missing)))
        return begin(self, way, missing)

    monkeypatch.setattr(Job, "begin", begun)
    monkeypatch.setattr(training, "_seconds", lambda block, steps: 1.0 if block.models == 1 else 9.0)
    monkeypatch.setattr(training, "_known", {})
    train(digits)
    assert sizes[:3] == [("one by one", 5), ("gathered", 2), ("masked", 2)]
    assert all(way == "one by one" for way, _ in sizes[3:])


def test_an_interrupted_fleet_leaves_no_whole_file_and_goes_on_where_it_was(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    straight = train(digits)
    step, begin = Single.step, Job.begin
    taken, begun = [], []

    def interrupted(self: Single) -> None:
        taken.append(1)
        if len(taken) > 2 * STEPS + 1:
            raise KeyboardInterrupt
        step(self)

    def recorded(self: Job, way: Any, missing: list[int]) -> Any:
        begun.append(missing[0])
        return begin(self, way, missing)

    monkeypatch.setattr(Single, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(digits, way="one by one", folder=tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    monkeypatch.setattr(Single, "step", step)
    monkeypatch.setattr(Job, "begin", recorded)
    resumed = train(digits, way="one by one", folder=tmp_path)
    assert begun == [2, 3, 4]
    assert np.allclose(resumed.logits, straight.logits, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [f"{resumed.digest}.npz"]
    again = train(digits, way="one by one", folder=tmp_path)
    assert begun == [2, 3, 4]
    assert np.array_equal(again.logits, resumed.logits)


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _drop_a_model(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    kept = {name: arrays[name][:-1] for name in ("models", "logits", "membership")}
    np.savez(path, **{**arrays, **kept})  # pyright: ignore[reportArgumentType]  names are keywords here


def _give_to_others(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "membership": ~arrays["membership"]})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("harm", [_damage, _shorten, _drop_a_model, _give_to_others])
def test_a_file_that_is_damaged_incomplete_or_of_other_models_is_made_again(digits: DataSet, tmp_path: Path, harm: Any):
    before = train(digits, folder=tmp_path)
    whole = the_file(tmp_path).read_bytes()
    harm(the_file(tmp_path))
    assert the_file(tmp_path).read_bytes() != whole
    after = train(digits, folder=tmp_path)
    assert np.allclose(after.logits, before.logits, atol=1e-4)
    assert np.array_equal(after.membership, before.membership)
    assert len(the_file(tmp_path).read_bytes()) == len(whole)


def test_a_file_under_another_fleets_name_is_not_taken_for_it(digits: DataSet, tmp_path: Path):
    train(digits, folder=tmp_path / "one")
    longer = dataclasses.replace(QUIET, training=TrainingConfig(steps=9))
    expected = train(digits, longer)
    (tmp_path / "two").mkdir()
    the_file(tmp_path / "one").rename(tmp_path / "two" / f"{expected.digest}.npz")
    assert np.allclose(train(digits, longer, folder=tmp_path / "two").logits, expected.logits, atol=1e-4)


def test_weights_that_were_not_kept_are_trained_and_then_serve_both(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    without = train(digits, folder=tmp_path)
    with pytest.raises(UserError, match="keep_weights=True"):
        without.model(0)
    kept = train(digits, folder=tmp_path, keep_weights=True)
    assert np.allclose(logits_of(kept.model(3), digits), without.logits[3], atol=1e-4)
    monkeypatch.setattr(Job, "begin", None)
    assert train(digits, folder=tmp_path, keep_weights=True).weights is not None
    assert train(digits, folder=tmp_path).weights is None


def test_everything_that_defines_a_model_is_in_the_hash(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    other_data = dataclasses.replace(digits, targets=digits.targets.flip(0))
    none = np.empty(0, dtype=np.int64)

    def digest(recipe: Recipe = QUIET, steps: int = STEPS, data: DataSet = digits, *rest: Any) -> str:
        numbers: tuple[Any, ...] = rest or (5, 0.5, none)
        return fleet_digest(recipe_digest(recipe, build_model(recipe, data, 0), steps), data, *numbers)

    changed = [
        digest(),
        digest(dataclasses.replace(QUIET, model=ModelConfig(name="mlp"))),
        digest(dataclasses.replace(QUIET, optimizer=OptimizerConfig(learning_rate=1.0))),
        digest(dataclasses.replace(QUIET, privacy=PrivacyConfig(mechanism="none"))),
        digest(QUIET, 3),
        digest(QUIET, STEPS, other_data),
        digest(QUIET, STEPS, dataclasses.replace(digits, classes=(*digits.classes, "none"))),
        digest(QUIET, STEPS, dataclasses.replace(digits, bounds=(-1.0, 1.0))),
        digest(QUIET, STEPS, digits, 6, 0.5, none),
        digest(QUIET, STEPS, digits, 5, 0.4, none),
        digest(QUIET, STEPS, digits, 5, 0.5, np.array([299])),
        digest(QUIET, STEPS, digits, 5, 0.5, none, "mirrored"),
    ]
    monkeypatch.setattr(design, "code_digest", lambda: "another version")
    changed.append(digest())
    assert len(set(changed)) == len(changed)


class Scaled(nn.Linear):
    gain = 1.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.gain * super().forward(input)


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers)


def frozen() -> nn.Sequential:
    layer = nn.Linear(64, 10)
    layer.bias.requires_grad_(False)
    return chain(layer)


def gained() -> nn.Sequential:
    layer = Scaled(64, 10)
    layer.gain = 3.0
    return chain(layer)


def starting_at(value: float) -> nn.Sequential:
    layer = nn.Linear(64, 10)
    nn.init.constant_(layer.weight, value)
    return chain(layer)


BUILT: list[Callable[[], nn.Module]] = [
    lambda: chain(nn.Linear(64, 10)),
    lambda: chain(nn.Linear(64, 8), nn.Linear(8, 10)),
    lambda: chain(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)),
    lambda: chain(nn.Linear(64, 10, bias=False)),
    lambda: chain(nn.Linear(64, 10, dtype=torch.float64)),
    lambda: chain(Scaled(64, 10)),
    frozen,
    gained,
    lambda: starting_at(0.5),
    lambda: starting_at(0.25),
]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], nn.Module]]:
    """What a factory builds that never changes itself: the last of these."""
    made: list[Callable[[], nn.Module]] = []
    monkeypatch.setattr(Elsewhere, "made", made)
    return made


class Elsewhere:
    made: ClassVar[list[Callable[[], nn.Module]]] = []


@MODELS.register("test_fleet_elsewhere", "a factory whose model is written elsewhere")
def from_elsewhere(*_: Any) -> nn.Module:
    return Elsewhere.made[-1]()


ELSEWHERE = dataclasses.replace(QUIET, model=ModelConfig(name="test_fleet_elsewhere"))


def test_another_model_from_the_same_factory_is_another_fleet(digits: DataSet, built: list[Callable[[], nn.Module]]):
    def digests() -> list[str]:
        found: list[str] = []
        for make in BUILT:
            built.append(make)
            found.append(recipe_digest(ELSEWHERE, build_model(ELSEWHERE, digits, 0), STEPS))
        return found

    assert len(set(digests())) == len(BUILT)
    assert digests() == digests()


def test_a_fleet_of_another_architecture_is_never_used(
    digits: DataSet, tmp_path: Path, built: list[Callable[[], nn.Module]], monkeypatch: pytest.MonkeyPatch
):
    """Kept weights that do not fit are trained anew even where every hash says that they are the right ones."""
    monkeypatch.setattr(training, "recipe_digest", lambda *_: "the same")
    for make in BUILT[:4]:
        built.append(make)
        fleet = train(digits, ELSEWHERE, folder=tmp_path, keep_weights=True)
        assert np.allclose(logits_of(fleet.model(3), digits), fleet.logits[3], atol=1e-4)
    monkeypatch.setattr(Job, "begin", None)
    assert train(digits, ELSEWHERE, folder=tmp_path, keep_weights=True).weights is not None


@pytest.mark.parametrize(("width", "given"), [(12, "12 outputs"), (1, "1 outputs")])
def test_outputs_that_are_not_one_a_class_are_refused_and_not_kept(
    digits: DataSet, tmp_path: Path, built: list[Callable[[], nn.Module]], width: int, given: str
):
    options: Any = {"models": 2, "rate": 0.5, "progress": False, "folder": tmp_path}
    with pytest.raises(UserError, match=f"{given} an example.*'digits' has 10 classes"):
        retrain_fleet(lambda *_: chain(nn.Linear(64, width)), digits, digest="mine", **options)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_recipes_model_with_more_outputs_than_classes_is_refused(digits: DataSet, built: list[Callable[[], nn.Module]]):
    built.append(lambda: chain(nn.Linear(64, 12)))
    with pytest.raises(UserError, match=r"12 outputs an example.*'digits' has 10 classes"):
        train(digits, ELSEWHERE)


def test_a_function_of_anyones_own_makes_a_fleet_that_is_kept_only_under_a_name(digits: DataSet, tmp_path: Path):
    calls: list[int] = []

    def retrain(members: np.ndarray, seed: int) -> nn.Module:
        calls.append(seed)
        torch.manual_seed(seed)
        last = nn.Linear(64, 10)
        nn.init.constant_(last.bias, float(len(members)))
        return nn.Sequential(nn.Flatten(), last)

    options: Any = {"models": 3, "rate": 0.5, "progress": False}
    with pytest.raises(UserError, match="digest"):
        retrain_fleet(retrain, digits, folder=tmp_path, **options)
    fleet = retrain_fleet(retrain, digits, folder=tmp_path, digest="mine, first version", **options)
    assert len(calls) == len(set(calls)) == 3
    assert np.allclose(fleet.logits.mean((1, 2)), fleet.membership.sum(1), rtol=0.05)
    again = retrain_fleet(retrain, digits, folder=tmp_path, digest="mine, first version", **options)
    assert len(calls) == 3
    assert np.array_equal(again.logits, fleet.logits)
    retrain_fleet(retrain, digits, folder=tmp_path, digest="mine, second version", **options)
    assert len(calls) == 6


def test_views_of_another_shape_are_refused(digits: DataSet):
    with pytest.raises(UserError, match=r"\[views, \*the inputs' shape\]"):
        train(digits, views=Views("flat", lambda inputs: inputs))


# -- processes ----------------------------------------------------------------------------------------------------------


def job_of(data: DataSet, models: int = 5, **options: Any) -> Job:
    performance = Performance(fleet="one by one")
    return Job(QUIET, data, draw_membership(models, len(data), 0.5), STEPS, "a digest", performance, **options)


def test_a_worker_reads_the_very_job_that_was_written(digits: DataSet, tmp_path: Path):
    data = dataclasses.replace(digits, bounds=(-np.inf, np.inf), published_test=20)
    write_job(tmp_path, job_of(data, keep_weights=True, views=named_views("shift", 3)))
    read = read_job(tmp_path)
    assert read.views is named_views("shift", 3)
    assert read.recipe == QUIET
    assert (read.steps, read.digest, read.keep_weights) == (STEPS, "a digest", True)
    assert np.array_equal(read.membership, draw_membership(5, 300, 0.5))
    for field in dataclasses.fields(DataSet):
        if field.name not in ("inputs", "targets"):
            assert getattr(read.data, field.name) == getattr(data, field.name), field.name
    (tmp_path / processes.TARGETS).write_bytes((tmp_path / processes.TARGETS).read_bytes()[:-8] + b"\1" + bytes(7))
    with pytest.raises(ValueError, match="does not hold the data"):
        read_job(tmp_path)


@MODELS.register("test_fleet_own", "registered in this process alone")
def own(*_: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_no_process_is_started_for_what_it_could_not_know():
    assert startable(QUIET, None)
    assert not startable(dataclasses.replace(QUIET, model=ModelConfig(name="test_fleet_own")), None)
    assert not startable(QUIET, MIRRORED)
    assert startable(QUIET, named_views("shift", 3))
    assert not startable(QUIET, Views("shift 3", MIRRORED.of))  # another function under a name that is taken


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started from here on."""
    found: list[Any] = []
    start = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> Any:
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", recorded)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", ["masked", "gathered"])
def test_models_shared_out_over_processes_are_the_same_and_a_dead_worker_costs_none(
    digits: DataSet, way: Any, started: list[Any], monkeypatch: pytest.MonkeyPatch
):
    views = named_views("shift_flip", 3)
    job = job_of(digits, models=8, keep_weights=True, views=views)
    alone = train(digits, models=8, way="one by one", views=views)
    expected, seen = alone.logits, alone.views
    assert seen is not None
    here: list[int] = []
    delivered = threading.Event()
    train_block, read = Job.train, processes.read_answers

    def patient(self: Job, way: Any, numbers: list[int], bar: tqdm) -> Any:
        """The first model that is trained here takes until a worker has delivered one, and the other worker dies meanwhile."""
        if not here:
            started[0].kill()
            assert delivered.wait(120)
        here.append(numbers[0])
        return train_block(self, way, numbers, bar)

    def recorded(*arguments: Any) -> Any:
        answers = read(*arguments)
        if answers is not None:
            delivered.set()
        return answers

    monkeypatch.setattr(Job, "train", patient)
    monkeypatch.setattr(processes, "read_answers", recorded)
    blocks = [[0, 1], [2, 3], [4], [5], [6, 7]]
    found = list(shared_out(job, way, blocks, 2, tqdm(disable=True)))
    assert sorted(part.models.tolist() for part in found) == blocks
    assert 0 < len(here) < len(blocks)
    for part in found:
        assert np.allclose(part.logits, expected[part.models], atol=1e-4)
        assert part.views is not None
        assert np.allclose(part.views, seen[part.models], atol=1e-4)
        assert part.weights is not None
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_whoever_stops_early_leaves_no_process_behind(digits: DataSet, started: list[Any]):
    shared = shared_out(job_of(digits, models=40), "one by one", [[i] for i in range(40)], 1, tqdm(disable=True))
    next(shared)
    assert started[0].poll() is None
    shared.close()
    assert started[0].poll() is not None


@pytest.mark.slow
def test_long_trainings_go_to_all_cores_that_torch_may_use(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    """As many processes train as torch had threads, each with one; and then torch has its threads again."""
    asked: list[int] = []

    def counted(job: Job, way: Any, blocks: list[list[int]], workers: int, bar: tqdm) -> Any:
        asked.append(workers)
        assert torch.get_num_threads() == 1
        yield from shared_out(job, way, blocks, workers, bar)

    monkeypatch.setattr(training, "WORTH_STARTING", 0.0)
    monkeypatch.setattr(training, "shared_out", counted)
    expected = train(digits, way="one by one").logits
    assert not asked
    torch.set_num_threads(3)
    try:
        slowed = training.Single.step
        monkeypatch.setattr(training.Single, "step", lambda self: (slowed(self), time.sleep(0.01))[0])
        fleet = train(digits, way="one by one")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert asked == [2]
    assert np.allclose(fleet.logits, expected, atol=1e-4)
