"""64 shadow models of ``digits`` at once, beside one after the other on one core.

    python -m tests.benchmarks.fleet [--json FILE] [--models 64] [--rounds 7] [--alone 8]

The recipes are those of ``recipes/digits.toml``: the plan of ε = 1, and the non-private one with its own learning rate. Each
round trains the whole fleet as :func:`dptrain.fleet.train_fleet` does (ways tried, models trained, answers to all examples),
and then ``--alone`` models one after the other, whose time is scaled up to the fleet's number. Both take turns in one process
on one thread, so that whatever else the machine does meets them alike; printed are medians of process CPU time and of wall
time, the median ratio of a round, and half the spread between its quartiles.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import dptrain.data
from dptrain.fleet import train_fleet
from dptrain.recipe import Performance, Recipe
from recipes.comparison import load

RATE = 0.5
ONE_BY_ONE = Performance(fleet="one by one")


def recipes() -> dict[str, Recipe]:
    """As ``dptrain run digits`` makes them."""
    jobs = load("digits").jobs()
    private = next(job.recipe for job in jobs if job.variant == "dp" and job.epsilon == 1)
    return {"eps=1": private, "non-private": next(job.recipe for job in jobs if job.variant == "non_private")}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Process CPU time and wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def race(recipe: Recipe, models: int, alone: int, rounds: int) -> dict[str, object]:
    """The fleet and single models in turn, after a round that is not counted."""
    data = dptrain.data.load(recipe.data)

    def fleet(count: int, performance: Performance) -> Callable[[], object]:
        return lambda: train_fleet(recipe, data, models=count, rate=RATE, performance=performance, progress=False)

    together, one_by_one = fleet(models, Performance()), fleet(alone, ONE_BY_ONE)
    times = []
    for _ in range(rounds + 1):
        here, there = seconds(together), seconds(one_by_one)
        times.append((*here, *(value * models / alone for value in there)))
    columns = list(zip(*times[1:], strict=True))
    entry: dict[str, object] = {}
    for kind, mine, others in (("cpu", columns[0], columns[2]), ("wall", columns[1], columns[3])):
        ratios = sorted(other / own for own, other in zip(mine, others, strict=True))
        entry[f"{kind}_seconds"] = round(statistics.median(mine), 3)
        entry[f"{kind}_seconds_one_by_one"] = round(statistics.median(others), 3)
        entry[f"{kind}_ratio"] = round(statistics.median(ratios), 2)
        entry[f"{kind}_half_quartile_spread"] = round((ratios[(3 * len(ratios)) // 4] - ratios[len(ratios) // 4]) / 2, 2)
    return entry


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--alone", type=int, default=8)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    report: dict[str, dict[str, object]] = {}
    for name, recipe in recipes().items():
        report[name] = entry = race(recipe, options.models, options.alone, options.rounds)
        print(f"digits, {name}, {options.models} models", flush=True)
        for kind in ("cpu", "wall"):
            print(
                f"      {kind:<5}{entry[f'{kind}_seconds']:8.2f} s, one by one {entry[f'{kind}_seconds_one_by_one']:8.2f} s: "
                f"{entry[f'{kind}_ratio']:.1f} ± {entry[f'{kind}_half_quartile_spread']:.1f} times as fast",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"models": options.models, "recipes": report}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
