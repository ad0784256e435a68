"""Flat vectors of standard normal variates, the next one drawn by a thread while the current step computes.

    source = NormalSource(secret_generator())
    vector = source.draw(size)          # its own memory, until the last view of it is gone

A vector drawn ahead is given out once or never. It is lost with its source, it does not pass a fork, and what comes out is
the same with and without drawing ahead: where another size is asked for, the generator goes back to where it was, since
nothing of what it drew has left. A thread lives for one vector. It holds no reference to its source, and ends within a block
(under a millisecond) once the source or the main thread is gone.

Memory is used again, since fresh pages cost as much as the noise: but only once nobody holds a tensor over it. Whoever keeps
one keeps what is in it.

On CUDA vectors come from the device's own generator, with a fresh 64-bit seed from the secret stream for every vector:
:func:`device_normals` says how that differs.
"""

import os
import threading
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dptrain.errors import ProtocolError
from dptrain.noise.stream import PAIRS, NormalFiller, SecretBits, random_words

WORTH_A_THREAD = 4 * PAIRS
"""Shorter vectors are drawn when asked for: starting a thread would cost a good part of the time it saves."""
KEPT = 2
"""Vectors whose memory is kept for later: the one that is given out and the one that is drawn ahead."""
DEVICE_BLOCK = 1 << 22


class _Ahead:
    """One vector that a thread is filling. Knows its source only weakly, so that both can end."""

    def __init__(self, source: "NormalSource", values: np.ndarray, bits: SecretBits, filler: NormalFiller):
        self.values = values
        self.before: Any = bits.state
        """Where the streams stood. In memory alone: never written down."""
        self.filled = False
        self._source = weakref.ref(source)
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, args=(bits, filler), name="dptrain noise")

    def start(self) -> None:
        self._thread.start()

    def _run(self, bits: SecretBits, filler: NormalFiller) -> None:
        self.filled = filler.fill(self.values, bits, self._stop)

    def _stop(self) -> bool:
        return self._cancelled or self._source() is None or not threading.main_thread().is_alive()

    def finish(self) -> None:
        if self._thread.ident is not None:  # Ctrl-C may come before it started
            self._thread.join()

    def cancel(self) -> None:
        self._cancelled = True
        self.finish()
        self.filled = False


class NormalSource:
    """Standard normal vectors from one secret generator, which nobody else may draw from.

    Args:
        ahead: whether to draw the next vector, of the size of the last one, in a thread.
    """

    def __init__(self, generator: np.random.Generator, ahead: bool = True):
        self._bits = SecretBits(generator)
        self._draws_ahead = ahead
        self._filler = NormalFiller()
        self._ahead: _Ahead | None = None
        self._free: list[np.ndarray] = []
        """Memory over which no tensor is left."""
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self) -> Any:
        raise ProtocolError("a noise stream cannot be copied or sent elsewhere: two copies would draw the same noise")

    def draw(self, size: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """The next ``[size]`` variates, float32 or float64.

        Raises:
            ProtocolError: in a forked process, whose parent draws the same.
        """
        self.check_process()
        with self._lock:
            if device is not None and device.type == "cuda":
                self._take_ahead(-1, dtype)
                return device_normals(size, dtype, device, int(random_words(self._bits.generator, 1)[0]))
            values = self._take_ahead(size, dtype)
            if values is None:
                values = self._memory(size, dtype)
                self._filler.fill(values, self._bits)
            if self._draws_ahead and size >= WORTH_A_THREAD:
                self._ahead = _Ahead(self, self._memory(size, dtype), self._bits, self._filler)
                self._ahead.start()
            return self._lend(values)

    def check_process(self) -> None:
        if os.getpid() != self._process:
            raise ProtocolError(
                "this training was forked into another process, which would draw the same noise a second time; call "
                "make_private() in the process that trains"
            )

    def _take_ahead(self, size: int, dtype: torch.dtype) -> np.ndarray | None:
        """What was drawn ahead, if it is what is asked for; otherwise the generator is put back to where it was.

        It is let go of only once its thread has ended, so that Ctrl-C while waiting leaves no thread behind that draws.
        """
        ahead = self._ahead
        if ahead is None:
            return None
        if len(ahead.values) == size and ahead.values.dtype == _numpy(dtype):
            ahead.finish()
        else:
            ahead.cancel()
        values = ahead.values if ahead.filled else None
        if values is None:
            ahead.cancel()
            self._bits.state = ahead.before
        self._ahead = None
        return values

    def _memory(self, size: int, dtype: torch.dtype) -> np.ndarray:
        fitting = [values for values in self._free if len(values) == size and values.dtype == _numpy(dtype)]
        self._free[:] = fitting[1:KEPT]  # other sizes are of no more use
        return fitting[0] if fitting else np.empty(size, _numpy(dtype))

    def _lend(self, values: np.ndarray) -> Tensor:
        """A tensor over this memory, which comes back when the last tensor over it is gone."""
        loan = values[:]
        weakref.finalize(loan, self._free.append, values).atexit = False
        return torch.from_numpy(loan)


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


def device_normals(size: int, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """``[size]`` standard normal variates of torch's own generator on a device.

    Weaker than the CPU stream, and said so: on CUDA it is Philox 4×32-10 (Salmon et al. 2011), which passes statistical tests
    and is no cipher, under a seed of 64 bits instead of 128. Each vector has its own seed out of the AES stream, so whoever
    found one would know one update's noise and no other; that two of 10⁵ updates share a seed has a probability of 3e-10.
    Variates are drawn in float64 (53-bit uniforms: tails to 8.2 σ), where float32's would end at 6.7 σ.
    """
    generator = torch.Generator(device)
    generator.manual_seed(seed)
    flat = torch.empty(size, dtype=dtype, device=device)
    for block in flat.split(DEVICE_BLOCK):
        block.copy_(torch.randn(len(block), dtype=torch.float64, device=device, generator=generator))
    return flat
