"""What a query costs in the monitor: CPU time of ``Monitor.observe``, on one thread, when a client's memory is full.

    python -m tests.benchmarks.monitor_speed [--queries 2000]

For inputs of 64 and of 784 numbers and for texts of 48 and of 256 tokens: microseconds a query, one at a time and 64 at once,
median of five rounds; then the bytes that a client takes in memory and in the store. All queries differ.
"""

import argparse
import time

import numpy as np

from dptrain.release.monitor import Monitor, benign_sessions, calibrate


def world(kind: str, size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    if kind == "numbers":
        return generator.normal(size=(count, size)).astype(np.float32)
    return generator.integers(0, 90, (count, size))


def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = inputs[:, -1].astype(np.float64)
    return (first > 0).astype(np.int64), np.tanh(np.abs(first))


def microseconds(monitor: Monitor, inputs: np.ndarray, batch: int, rounds: int = 5) -> float:
    labels, margins = answer(inputs)
    found = []
    for part in np.array_split(np.arange(len(inputs)), rounds):
        start = time.process_time()
        for at in range(0, len(part), batch):
            rows = part[at : at + batch]
            monitor.observe("client", inputs[rows], labels[rows], margins[rows])
        found.append((time.process_time() - start) / len(part) * 1e6)
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2000)
    given, generator = parser.parse_args(), np.random.default_rng(0)
    print(f"{'inputs':>14} {'one at a time':>14} {'64 at once':>11} {'memory':>8} {'stored':>8}   (µs a query; bytes a client)")
    for kind, size in (("numbers", 64), ("numbers", 784), ("tokens", 48), ("tokens", 256)):
        pool = world(kind, size, 600, generator)
        sessions = benign_sessions(pool, answer, 120, generator, lengths=(20, 60))
        monitor = Monitor(calibrate(sessions, 0.05, confidence=None), seed=0)
        one, many = world(kind, size, given.queries, generator), world(kind, size, given.queries, generator)
        warm = world(kind, size, 1000, generator)
        monitor.observe("client", warm, *answer(warm))
        speeds = microseconds(monitor, one, 1), microseconds(monitor, many, 64)
        state = monitor._clients["client"].state
        row = f"{size} {kind}"
        print(f"{row:>14} {speeds[0]:14.0f} {speeds[1]:11.0f} {state.nbytes:8} {len(state.to_bytes()):8}", flush=True)


if __name__ == "__main__":
    main()
