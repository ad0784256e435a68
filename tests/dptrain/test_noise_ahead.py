"""Drawing ahead changes when noise is drawn, and nothing else: never given out twice, copied, or left behind."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import dptrain.noise.ahead as ahead_module
from dptrain.errors import ProtocolError
from dptrain.noise import GaussianNoise, secret_generator
from dptrain.noise.ahead import WORTH_A_THREAD, NormalSource
from dptrain.noise.stream import NormalFiller, SecretBits
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining, make_private, per_example

LONG = WORTH_A_THREAD + 5


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dptrain noise"]


class Endless(NormalFiller):
    """Fills until it is told to stop."""

    def fill(self, out, bits, stop=lambda: False):
        while not stop():
            time.sleep(0.001)
        return False


def test_an_insecure_seed_gives_the_same_with_and_without_drawing_ahead():
    """Also where a vector drawn ahead turns out to have the wrong size or precision."""
    asked = [(LONG, torch.float32)] * 3 + [(17, torch.float32), (LONG, torch.float32), (LONG + 2, torch.float32)]
    asked += [(LONG + 2, torch.float64)] * 2 + [(LONG, torch.float32), (3, torch.float64)]
    sources = [NormalSource(secret_generator(7), ahead=ahead) for ahead in (True, False)]
    for size, dtype in asked:
        first, second = (source.draw(size, dtype) for source in sources)
        assert first.dtype == dtype
        assert torch.equal(first, second)


def test_no_vector_comes_twice():
    """Sharp edge 24. Of the same numbers in each run: two of 80 float32 variates are alike by chance once in 25,000."""
    source = NormalSource(secret_generator(1))
    sizes = [LONG, LONG, 9, LONG, LONG + 1, LONG, LONG, 9, 9]
    starts = np.concatenate([source.draw(size)[:9].numpy().copy() for size in sizes])
    assert len(np.unique(starts)) == len(starts)


def test_an_interrupt_while_waiting_repeats_nothing(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C anywhere in a draw: what was drawn ahead is given out once, afterwards, or never."""
    source = NormalSource(secret_generator(2))
    seen = [source.draw(LONG)[:9].numpy().copy()]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for place in ("finish", "start"):
        with monkeypatch.context() as patched:
            patched.setattr(ahead_module._Ahead, place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                source.draw(LONG)
        seen += [source.draw(LONG)[:9].numpy().copy() for _ in range(2)]
    assert len(np.unique(np.concatenate(seen))) == 9 * len(seen)


def test_two_threads_never_draw_the_same():
    source = NormalSource(secret_generator(3))
    drawn: list[np.ndarray] = []

    def draw() -> None:
        drawn.extend(source.draw(LONG)[:9].numpy().copy() for _ in range(5))

    drawing = [threading.Thread(target=draw) for _ in range(2)]
    for thread in drawing:
        thread.start()
    for thread in drawing:
        thread.join()
    assert len(np.unique(np.concatenate(drawn))) == 9 * len(drawn)


def test_what_is_kept_is_never_overwritten():
    """A view, of a view, by torch or by numpy, holds its memory; the rest is used again."""
    source = NormalSource(secret_generator())
    kept = [source.draw(LONG), source.draw(LONG)[5:8], source.draw(LONG).numpy()[2:4], source.draw(LONG).view(-1)[1]]
    copies = [copy.deepcopy(value) for value in kept]
    for _ in range(8):
        source.draw(LONG).fill_(9.0)
    for value, before in zip(kept, copies, strict=True):
        assert np.array_equal(np.asarray(value), np.asarray(before))


def test_memory_is_used_again_once_nobody_holds_it():
    source = NormalSource(secret_generator())
    places = {source.draw(LONG).data_ptr() for _ in range(10)}
    assert len(places) == 2
    many = [source.draw(LONG) for _ in range(6)]
    del many
    assert len(source._free) <= 6
    source.draw(LONG)
    assert len(source._free) <= 3


def test_a_source_cannot_be_copied():
    source = NormalSource(secret_generator())
    source.draw(LONG)
    for duplicate in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(ProtocolError, match="same noise"):
            duplicate(source)


def test_what_was_drawn_ahead_does_not_pass_a_fork():
    source = NormalSource(secret_generator())
    source.draw(LONG)
    child = os.fork()
    if child == 0:
        try:
            source.draw(LONG)
        except ProtocolError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    source.draw(LONG)


def test_a_thread_ends_with_its_source():
    source = NormalSource(secret_generator())
    source._ahead = job = ahead_module._Ahead(source, np.empty(LONG, np.float32), SecretBits(secret_generator()), Endless())
    job.start()
    assert threads()
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None
    job._thread.join(timeout=30)
    assert not job._thread.is_alive()
    assert not job.filled


def test_no_thread_keeps_the_interpreter_alive():
    code = (
        "import numpy as np\n"
        "from tests.dptrain.test_noise_ahead import Endless, LONG, NormalSource, ahead_module, SecretBits, secret_generator\n"
        "source = NormalSource(secret_generator())\n"
        "source._ahead = ahead_module._Ahead(source, np.empty(LONG, np.float32), SecretBits(secret_generator()), Endless())\n"
        "source._ahead.start()\n"
        "print('end of the script')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "end of the script", "")


def test_short_vectors_start_no_thread():
    source = NormalSource(secret_generator())
    source.draw(1000)
    assert source._ahead is None


def test_each_vector_of_a_device_has_its_own_secret_seed(monkeypatch: pytest.MonkeyPatch):
    """On a machine without CUDA: the same path, with the device's generator put in its place."""
    seeds: list[int] = []

    def on_cpu(size: int, dtype: torch.dtype, device: torch.device, seed: int) -> torch.Tensor:
        assert device.type == "cuda"
        seeds.append(seed)
        return torch.zeros(size, dtype=dtype)

    monkeypatch.setattr(ahead_module, "device_normals", on_cpu)
    for source in (NormalSource(secret_generator()), NormalSource(secret_generator())):
        source.draw(LONG)  # one drawn ahead on the CPU is dropped
        for _ in range(50):
            source.draw(4, torch.float32, torch.device("cuda"))
    assert len(set(seeds)) == 100
    assert 0.4 < np.mean([seed >> 63 for seed in seeds]) + np.mean([seed & 1 for seed in seeds]) < 1.6


def test_a_resume_drops_what_was_drawn_ahead(tmp_path: Path):
    """Sharp edge 17: fresh entropy; the vector that waited for the next update of the old object is gone with it."""
    plan = PrivacyPlan(sampling_rate=0.2, expected_batch_size=8, steps=4, clipping_norm=1.0, delta=1e-3, noise_multiplier=1.0)

    def training() -> PrivateTraining:
        model = torch.nn.Linear(LONG // 2, 2)
        data = torch.utils.data.TensorDataset(torch.zeros(40, LONG // 2), torch.zeros(40, dtype=torch.long))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        return make_private(model, optimizer, data, plan, loss=per_example(torch.nn.functional.cross_entropy))

    first = training()
    for batch in first.batches(1):
        first.step(batch)
    first.save(tmp_path)
    resumed = training()
    unused = weakref.ref(resumed._noise)
    resumed.resume(tmp_path)
    assert unused() is None
    assert isinstance(resumed._noise, GaussianNoise)
    assert isinstance(first._noise, GaussianNoise)
    assert resumed._noise._source._ahead is None
    job = first._noise._source._ahead
    assert job is not None
    for batch in resumed.batches():
        resumed.step(batch)
    gone = weakref.ref(job)
    del job, first
    gc.collect()
    assert gone() is None


def test_two_mechanisms_of_one_generator_never_draw_the_same():
    """Sharp edge 24: what one draws ahead and puts back is its own."""
    generator = secret_generator()
    first = GaussianNoise(1.0, generator)
    first._source.draw(LONG)
    second = GaussianNoise(1.0, generator)
    first._source.draw(10)
    third = GaussianNoise(1.0, generator)
    assert not torch.equal(second._source.draw(100), third._source.draw(100))
