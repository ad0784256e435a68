"""What noise costs, in units of ``torch.randn`` for as many float32 variates: interleaved, on one thread.

    python -m tests.benchmarks.noise [--rounds 15] [--json FILE]

For each workload's number of parameters: CPU time of a vector drawn when asked for (*drawn*) and of numpy's float64 ziggurat
converted to float32 (*ziggurat*). Then of a whole step, matrix products as long as eight vectors and one ``add``, with its
variates drawn when asked for (*at once*) or by a thread during the products (*ahead*): CPU time of the step's own thread
(*foreground*) and wall-clock time (*waited*) in ``add``, and CPU time of all threads beyond the products (*process*).
Figures are medians of the rounds with the quartiles in brackets; wall-clock time means little on a busy machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dptrain.clipping import ClippedSum, Counts
from dptrain.noise import GaussianNoise, secret_generator
from dptrain.noise.ahead import NormalSource

PARAMETERS = {"W1": 26_010, "W2": 2_749_626, "W3": 2_751_498, "W4": 3_225_344}
"""As many variates as the workloads of the performance notes have parameters, or nearly."""
BLOCK = 16384


def interleaved(
    measured: dict[str, Callable[[], object]], clock: Callable[[], float], rounds: int, repeat: int
) -> dict[str, np.ndarray]:
    """Seconds a call, ``[rounds]`` each, in the order A B C A B C."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for function in measured.values():
        function()
    for _ in range(rounds):
        for name, function in measured.items():
            start = clock()
            for _ in range(repeat):
                function()
            seconds[name].append((clock() - start) / repeat)
    return {name: np.array(values) for name, values in seconds.items()}


def quartiles(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def drawing(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU time of one vector, relative to ``torch.randn`` into memory that is there already."""
    ours = NormalSource(secret_generator(), ahead=False)
    generator, wide, narrow, there = secret_generator(), np.empty(BLOCK), np.empty(size, np.float32), torch.empty(size)

    def ziggurat() -> None:
        for start in range(0, size, BLOCK):
            part = narrow[start : start + BLOCK]
            generator.standard_normal(out=wide[: len(part)])
            part[:] = wide[: len(part)]

    repeat = max(1, 2_000_000 // size)
    measured = {"randn": there.normal_, "drawn": lambda: ours.draw(size), "ziggurat": ziggurat}
    seconds = interleaved(measured, time.thread_time, rounds, repeat)
    ratios = {name: quartiles(seconds[name] / seconds["randn"]) for name in ("drawn", "ziggurat")}
    return {"randn_milliseconds": quartiles(1e3 * seconds["randn"]), **ratios}


def stepping(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """What noise costs a step, relative to ``torch.randn``: drawn when asked for, and ahead."""
    square, there = torch.randn(512, 512), torch.empty(size)
    clipped = ClippedSum({"a": torch.zeros(size)}, 1.0, Counts())
    noises = {name: GaussianNoise(1.0, ahead=name == "ahead") for name in ("at_once", "ahead")}
    lone = interleaved({"randn": there.normal_, "product": lambda: torch.mm(square, square)}, time.thread_time, rounds, 1)
    vector, product = np.median(lone["randn"]), np.median(lone["product"])
    products = max(1, round(float(8 * vector / product)))
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in noises}

    def step(name: str | None) -> None:
        for _ in range(products):
            torch.mm(square, square)
        if name is not None:
            begun = time.thread_time(), time.perf_counter()
            noises[name].add(clipped)
            spent[name].append((time.thread_time() - begun[0], time.perf_counter() - begun[1]))

    steps: dict[str, Callable[[], object]] = {"bare": lambda: step(None)}
    steps |= {name: lambda name=name: step(name) for name in noises}
    seconds = interleaved(steps, time.process_time, rounds, 5)
    result: dict[str, dict[str, float]] = {}
    for name in noises:
        foreground, waited = np.array(spent[name][5:]).T
        result[f"foreground_{name}"] = quartiles(foreground / vector)
        result[f"waited_{name}"] = quartiles(waited / vector)
        result[f"process_{name}"] = quartiles((seconds[name] - seconds["bare"]) / vector)
    return result


def shown(figure: dict[str, float]) -> str:
    return f"{figure['median']:6.2f} [{figure['low']:.2f} {figure['high']:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workloads: dict[str, dict[str, dict[str, float]]] = {}
    for name, size in PARAMETERS.items():
        figures = workloads[name] = {**drawing(size, arguments.rounds), **stepping(size, arguments.rounds)}
        print(f"{name}: {size:,} variates; torch.randn {figures['randn_milliseconds']['median']:.2f} ms; in units of it:")
        for key, figure in figures.items():
            if key != "randn_milliseconds":
                print(f"  {key.replace('_', ' '):20s} {shown(figure)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"parameters": PARAMETERS, "workloads": workloads}, indent=2) + "\n")


if __name__ == "__main__":
    main()
