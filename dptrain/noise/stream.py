"""A secret stream of bits, and standard normal variates from it.

The bits are AES-128 in counter mode with a key from the operating system (``randomgen.AESCounter``). A new key is drawn
for every training, also on resume, and no key or counter is ever written down: two steps can never draw the same noise, and
nobody can subtract it later. A fixed seed is for tests and debugging alone. It must be asked for by the name
``insecure_seed`` and is recorded with the model, since whoever knows the seed can remove the noise.

Normal variates come in pairs (Box & Muller 1958, "A Note on the Generation of Random Normal Deviates"):

    x = r sin θ,  y = ± r cos θ,  r² / 2 = -log u,  u uniform on (0, 1),  θ uniform on (-π/2, π/2)

* *Radius*: u is (w + ½) 2⁻⁶³ for 63 random bits w, rounded to float64: true to a probability of 2⁻⁶³, and so are the tails of x
  and y (9.4 σ). A uniform of 24 bits, as float32 generators use, ends at 5.8 σ, one of 32 bits at 6.7 σ.
* *Angle*: 31 bits, an odd whole number w of (π/2)/2³¹. cos θ is computed as the sine of the complement, itself an odd whole
  number, so that neither is coarse where it is near zero, and neither is ever exactly zero.
* *Rounding*: from r on in float32, each variate within 2⁻²⁰ of its value (a relative error; the test allows no more). What
  is added to a sum is enlarged by as much, see ``mechanism.py``.

For these the bits come from OpenSSL's AES-128 in counter mode (package ``cryptography``), under a key of its own that the
generator gives: a third of what the same bits cost through ``randomgen``. float64 sums get numpy's float64 normal ziggurat:
float32 noise would leave their low bits bare.

Why this way: CPU time on one thread in units of ``torch.randn``, on a Zen 4 with AVX-512 under load: this 0.9; the same
with exponential variates of numpy's ziggurat and ``randomgen``'s bits 1.3 to 1.4; float64 ziggurat, converted by blocks 2.9 to
3.1; ziggurat over ChaCha8 4.4; float64 ``erfinv`` 2.4. numpy's own float32 ziggurat costs 2.6 and is a lattice of 2⁻²³ times a
layer's width, with a tail of 24-bit uniforms. ``python -m tests.benchmarks.noise`` gives the first and the third of these for
the machine at hand.
"""

import secrets
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from randomgen import AESCounter

from dptrain.errors import PlanError

PAIRS = 32768
"""Variates are made in blocks of this many pairs, which stay in the cache of a core."""
ALL_BITS = 2**64 - 1
QUARTER_TURN = np.float32(np.pi / 2 / 2**31)


def secret_generator(insecure_seed: int | None = None, stream: str = "noise") -> np.random.Generator:
    """A fresh generator keyed by the operating system; or, with ``insecure_seed``, a repeatable and insecure one.

    Args:
        stream: what it is for; different streams of one insecure seed are independent.
    """
    if insecure_seed is None:
        return _generator(secrets.randbits(128))
    if isinstance(insecure_seed, bool) or not isinstance(insecure_seed, int) or insecure_seed < 0:
        raise PlanError(f"insecure_seed is {insecure_seed!r}; give a whole number from 0 up, or leave it out")
    words = np.random.SeedSequence([insecure_seed, *stream.encode()]).generate_state(2, np.uint64)
    return _generator(int(words[0]) << 64 | int(words[1]))


def _generator(key: int) -> np.random.Generator:
    stream: Any = AESCounter(key=key)  # a numpy bit generator by its capsule, not by its type
    return np.random.Generator(stream)


def random_words(generator: np.random.Generator, count: int) -> np.ndarray:
    """``count`` words of 64 random bits, drawn without the interpreter lock."""
    return generator.integers(0, ALL_BITS, count, dtype=np.uint64, endpoint=True)


class SecretBits:
    """Two streams of its own, a generator and bits of OpenSSL's AES, under two keys that a secret generator gives.

    The given generator goes on and is never set back, so that whoever else draws keys from it gets others. ``state`` is in
    memory alone and never written down.
    """

    def __init__(self, generator: np.random.Generator):
        low, high = (int(word) for word in random_words(generator, 2))
        self.generator = _generator(high << 64 | low)
        self._key = random_words(generator, 2).tobytes()
        self._blocks = 0
        """Blocks of 16 bytes that were drawn."""
        self._encryptor: Any = None
        self._zeros = np.empty(0, np.uint8)

    @property
    def state(self) -> Any:
        """Where both streams stand; setting it puts them back there."""
        return self.generator.bit_generator.state, self._blocks

    @state.setter
    def state(self, state: Any) -> None:
        self.generator.bit_generator.state, self._blocks = state
        self._encryptor = None

    def fill(self, buffer: np.ndarray) -> None:
        """Fills bytes; ``buffer`` has 16 more than are filled, and as many as are filled are whole blocks."""
        count = len(buffer) - 16
        if self._encryptor is None:
            counter = modes.CTR(self._blocks.to_bytes(16, "big"))
            self._encryptor = Cipher(algorithms.AES(self._key), counter).encryptor()
        if len(self._zeros) < count:
            self._zeros = np.zeros(count, np.uint8)
        self._blocks += count // 16  # first: what an interrupt leaves behind is never drawn again
        self._encryptor.update_into(self._zeros[:count], buffer)


class NormalFiller:
    """Fills arrays with standard normal variates; keeps its own working memory, so one thread at a time (others wait)."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._bytes = np.empty(0, np.uint8)
        self._exponentials = np.empty(0)
        self._radius = np.empty(0, np.float32)
        self._integers = np.empty(0, np.int32)

    def fill(self, out: np.ndarray, bits: SecretBits, stop: Callable[[], bool] = lambda: False) -> bool:
        """Fills ``out`` (one dimension, float32 or float64), unless ``stop()`` says so between two blocks.

        Returns:
            Whether it was filled to its end.
        """
        with self._busy:
            for start in range(0, len(out), 2 * PAIRS):
                if stop():
                    return False
                block = out[start : start + 2 * PAIRS]
                if out.dtype == np.float64:
                    bits.generator.standard_normal(out=block)
                else:
                    self._pairs(block, bits)
        return True

    def _pairs(self, out: np.ndarray, bits: SecretBits) -> None:
        pairs = (len(out) + 1) // 2
        padded = -(-pairs // 4) * 4  # whole blocks of the cipher
        if len(self._radius) < pairs:
            self._bytes, self._exponentials = np.empty(12 * padded + 16, np.uint8), np.empty(pairs)
            self._radius, self._integers = np.empty(pairs, np.float32), np.empty(pairs, np.int32)
        raw = self._bytes[: 12 * padded + 16]
        bits.fill(raw)
        words = raw[8 * padded : 12 * padded].view(np.int32)[:pairs]
        exponentials = exponential(raw[: 8 * pairs].view(np.uint64), self._exponentials[:pairs])
        box_muller(exponentials, words, out, self._radius[:pairs], self._integers[:pairs])


def exponential(words: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Exponential variates -log((w + ½) 2⁻⁶³), from 0 to 44.36; w are the upper bits of uint64 words, which are lost.

    (Of a signed number the conversion has no branch, which random bits would make the processor guess wrong half of the time.)
    """
    np.right_shift(words, 1, out=words)
    np.copyto(out, words.view(np.int64), casting="unsafe")
    np.add(out, 0.5, out=out)
    np.multiply(out, 2.0**-63, out=out)
    np.log(out, out=out)
    return np.negative(out, out=out)


def box_muller(
    exponentials: np.ndarray, words: np.ndarray, out: np.ndarray, radius: np.ndarray, integers: np.ndarray
) -> np.ndarray:
    """Turns ``p`` exponential variates and ``p`` random int32 words into 2p normal variates, or 2p - 1.

    A word's upper 31 bits are the angle, its lowest bit is the sign of the second variate. ``radius`` (float32) and
    ``integers`` (int32) are working memory, ``[p]`` each.
    """
    pairs = len(words)
    first, second = out[:pairs], out[pairs:]
    np.multiply(exponentials, 2, out=radius, casting="same_kind")
    np.sqrt(radius, out=radius)
    np.bitwise_or(words, 1, out=integers)
    np.copyto(first, integers, casting="unsafe")
    np.abs(integers, out=integers)
    np.bitwise_xor(integers, 0x7FFFFFFE, out=integers)  # 2³¹ - |w|, for odd w
    np.copyto(second, integers[: len(second)], casting="unsafe")
    for part in (first, second):
        np.multiply(part, QUARTER_TURN, out=part)
        np.sin(part, out=part)
        np.multiply(part, radius[: len(part)], out=part)
    np.left_shift(words, 31, out=integers)
    signs = second.view(np.int32)
    np.bitwise_xor(signs, integers[: len(second)], out=signs)
    return out
