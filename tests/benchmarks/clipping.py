"""A private step beside an ordinary one, and beside Opacus' four modes, on six workloads.

    python -m tests.benchmarks.clipping [--json FILE] [--workloads W1 W3] [--rounds 7] [--peers none]

Every figure is the process CPU time of a whole update (batch, forward, backward, clipping, noise, optimizer) on one
thread. All contestants of a workload take turns in one process, so that whatever else the machine does meets them alike;
printed are the medians over rounds relative to the ordinary step in its better memory layout, and half the spread between
the quartiles. Extra memory is the peak resident size during three updates over that of the built model, each contestant in
a process of its own, after two updates in which ways are tried and proved.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private
from dptrain.recipe import Performance
from tests.benchmarks.workloads import WORKLOADS, Recurrent, Workload, classify

Step = Callable[[], object]
OPACUS = ("hooks", "functorch", "ew", "ghost")
ORDINARY = ("ordinary", "ordinary channels_last")
OURS = "dptrain"


def ordinary(workload: Workload, channels_last: bool = False) -> Step:
    """Forward, backward, update: eager PyTorch without any privacy."""
    model, batch = workload.build(), workload.batch(workload.size)
    data = TensorDataset(*batch)
    everyone = torch.arange(workload.size)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        inputs, targets = (tensor[everyone] for tensor in data.tensors)
        if channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        classify(model, (inputs, targets)).mean().backward()
        optimizer.step()

    return step


def ours(workload: Workload) -> Step:
    """An update of :func:`dptrain.make_private` over the same examples."""
    model = workload.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    plan = PrivacyPlan(
        sampling_rate=1.0,
        expected_batch_size=workload.size,
        steps=1_000_000,
        clipping_norm=1.0,
        delta=1e-9,
        noise_multiplier=1.0,
    )
    private = make_private(
        model, optimizer, TensorDataset(*workload.batch(workload.size)), plan, loss=classify, performance=Performance(threads=1)
    )
    batches = private.batches()
    return lambda: private.step(next(batches))


def opacus(workload: Workload, mode: str) -> Step:
    """An update by Opacus in one of its modes; DPLSTM takes the place of ``nn.LSTM``, which it does not support."""
    from opacus import GradSampleModule
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.layers import DPLSTM
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = workload.build()
    if isinstance(model, Recurrent):
        model = Recurrent(DPLSTM)
    data = workload.batch(workload.size)
    everyone = torch.arange(workload.size)
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    shared: Any = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": workload.size}
    if mode == "ghost":
        wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1, use_ghost_clipping=True)
        optimizer = DPOptimizerFastGradientClipping(inner, **shared)
        criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss(), "mean")

        def ghost_step() -> None:
            inputs, targets = (tensor[everyone] for tensor in data)
            optimizer.zero_grad(set_to_none=True)
            out = wrapped(inputs)
            if out.dim() == 3:
                size = (len(out), out.shape[1])
                criterion(out.flatten(0, 1), targets.flatten(), shape=size).backward()
            else:
                criterion(out, targets).backward()
            optimizer.step()

        return ghost_step
    kind = {"hooks": GradSampleModule}.get(mode)
    if kind is None:
        from opacus.grad_sample import get_gsm_class

        kind = get_gsm_class(mode)
    wrapped = kind(model)
    optimizer = DPOptimizer(inner, **shared)

    def step() -> None:
        inputs, targets = (tensor[everyone] for tensor in data)
        optimizer.zero_grad(set_to_none=True)
        classify(wrapped, (inputs, targets)).mean().backward()
        optimizer.step()

    return step


def contestant(name: str, workload: Workload) -> Step:
    torch.manual_seed(0)
    if name == OURS:
        return ours(workload)
    if name in ORDINARY:
        return ordinary(workload, name != ORDINARY[0])
    return opacus(workload, name)


def race(names: list[str], workload: Workload, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """CPU seconds a step by contestant, one figure a round; and why some could not take part."""
    steps: dict[str, Step] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            steps[name] = contestant(name, copy.copy(workload))
            for _ in range(3):
                steps[name]()
        except Exception as error:  # what a peer cannot do is a result, too
            if name == OURS or name in ORDINARY:
                raise
            steps.pop(name, None)
            absent[name] = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    repeats = {name: _repeats(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            before = time.process_time()
            for _ in range(repeats[name]):
                step()
            times[name].append((time.process_time() - before) / repeats[name])
    return times, absent


def _repeats(step: Step) -> int:
    before = time.process_time()
    step()
    return max(1, min(50, int(0.15 / max(time.process_time() - before, 1e-4))))


def extra_memory(name: str, workload: str) -> float | None:
    """MB that three updates need at most beyond the built model, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.clipping", "--memory-of", workload, name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    return float(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def _measure_memory(workload: Workload, name: str) -> float:
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))  # libraries load before the count
    (torch.zeros(300, 300) @ torch.zeros(300, 300)).sum()
    if name == OURS:
        from dptrain.plan import PrivacyPlan

        tiny = PrivacyPlan(
            sampling_rate=1.0, expected_batch_size=4, steps=1, clipping_norm=1.0, delta=1e-2, noise_multiplier=9.0
        )
        tiny.guarantee()
    step = contestant(name, workload)
    built = _resident("VmRSS")
    for _ in range(2):
        step()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the first updates, in which ways are tried, is forgotten
    for _ in range(3):
        step()
    return _resident("VmHWM") - built


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clipping")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", nargs="+", choices=(*OPACUS, "none"), default=list(OPACUS))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory_of:
        print(_measure_memory(WORKLOADS[options.memory_of[0]], options.memory_of[1]))
        return 0
    report: dict[str, dict[str, object]] = {}
    for name in options.workloads:
        report[name] = _one(name, [peer for peer in options.peers if peer != "none"], options.rounds, not options.no_memory)
    if options.json:
        options.json.write_text(json.dumps({"workloads": report}, indent=1) + "\n")
    return 0


def _one(name: str, peers: list[str], rounds: int, memory: bool) -> dict[str, object]:
    workload = WORKLOADS[name]
    layouts = list(ORDINARY) if workload.images else [ORDINARY[0]]
    times, absent = race([OURS, *layouts, *peers], workload, rounds)
    medians = {contestant: statistics.median(values) for contestant, values in times.items()}
    best = min(layouts, key=lambda layout: medians[layout])
    ratios = sorted(mine / base for mine, base in zip(times[OURS], times[best], strict=True))
    spread = (ratios[(3 * len(ratios)) // 4] - ratios[len(ratios) // 4]) / 2
    entry: dict[str, object] = {
        "ratio_to_non_private": round(statistics.median(ratios), 3),
        "half_quartile_spread": round(spread, 3),
        "ratio_to_opacus": {peer: round(medians[OURS] / medians[peer], 3) for peer in peers if peer in medians},
        "milliseconds": {contestant: round(value * 1000, 2) for contestant, value in medians.items()},
        "non_private_layout": best.removeprefix("ordinary").strip() or "contiguous",
    }
    print(f"{name}  {workload.about}: {statistics.median(ratios):.2f} ± {spread:.2f} of an ordinary step", flush=True)
    for contestant, value in medians.items():
        print(f"      {contestant:<24}{value * 1000:9.2f} ms   {value / medians[best]:6.2f}", flush=True)
    for contestant, reason in absent.items():
        print(f"      {contestant:<24}        –      {reason}", flush=True)
    if memory:
        megabytes = {contestant: extra_memory(contestant, name) for contestant in [*medians]}
        entry["extra_memory_mb"] = {key: round(value, 1) for key, value in megabytes.items() if value is not None}
        mine, base = megabytes[OURS], megabytes[best]
        if mine is not None and base:
            entry["extra_memory_ratio"] = round(mine / base, 2)
            print(f"      extra memory {mine:.0f} MB, {mine / base:.2f} of {base:.0f} MB", flush=True)
    return entry


if __name__ == "__main__":
    sys.exit(main())
