"""A fleet that several jobs want is trained once, by one of them; under an insecure seed it is the same fleet every time."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dptrain.data.dataset import DataSet
from dptrain.fleet import training
from dptrain.recipe import PrivacyConfig
from tests.dptrain.test_fleet import QUIET, WAYS, digits, train

assert digits  # a fixture of that module

NOISY = dataclasses.replace(QUIET, privacy=PrivacyConfig(epsilon=8.0, sampling_rate=0.5, expected_batch_size=75, delta=1e-4))


def test_two_jobs_that_want_one_fleet_train_it_once(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained, begun, go_on = [], threading.Event(), threading.Event()
    whole = training._trained

    def slowly(job: Any, missing: list[int], bar: Any) -> Any:
        trained.append(threading.get_ident())
        begun.set()
        assert go_on.wait(60)
        yield from whole(job, missing, bar)

    monkeypatch.setattr(training, "_trained", slowly)
    fleets: list[Any] = [None, None]

    def job(number: int) -> None:
        fleets[number] = train(digits, folder=tmp_path)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive()  # it waits
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(trained) == 1
    assert np.array_equal(fleets[0].logits, fleets[1].logits)
    assert [path.name for path in tmp_path.iterdir()] == [f"{fleets[0].digest}.npz"]


@pytest.mark.parametrize("way", WAYS)
def test_an_insecure_seed_repeats_the_noise_of_a_fleet_and_names_it(digits: DataSet, way: Any):
    one, same, other, secret = (train(digits, NOISY, way, insecure_seed=seed) for seed in (1, 1, 2, None))
    assert np.array_equal(one.logits, same.logits)
    assert not np.array_equal(one.logits, other.logits)
    assert not np.array_equal(one.logits, secret.logits)
    assert len({one.digest, other.digest, secret.digest}) == 3
    assert len(np.unique(one.logits[:, 0, 0])) == len(one.logits)  # each model has noise of its own
