"""A sweep of ``digits``, several jobs at once beside one at a time.

    python -m tests.benchmarks.sweep [--json FILE] [--rounds 3] [--jobs 2] [--epsilons inf 8 4 2 1] [--seeds 0..2] [-- FLAGS]

Each round runs ``dptrain run digits`` into a fresh folder with ``--jobs 1``, once with all of torch's threads, which is what a
user gets who types nothing, and once with one, which is what each of several jobs has; and then with ``--jobs 2``, so that
whatever else the machine does meets all of them. Baselines are left out: 5 budgets × 3 seeds are 15 models, with their attacks
and 64 shadow models each. Three times are taken, of the whole command and of what a round is about:

* ``jobs``: from the first job's beginning to the last one's end, as the run's own files say; with it goes the throughput
* ``before``: imports, data, and the check of all plans before anything is written
* ``after``: the reports

Printed are medians, the median ratio of a round, and half the spread between its quartiles (of few rounds: between its ends).
The ratio of one thread to all of them says what several jobs could gain at most over one that has all cores to itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("command", "before", "jobs", "after")
SINGLE = {"one": [], "one thread": ["--performance.threads", "1"]}
"""Runs of one job at a time, and their flags."""


def once(arguments: list[str], jobs: int) -> dict[str, float]:
    """Seconds of one run, and of its parts."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory(prefix="dptrain-sweep-") as folder:
        root = Path(folder) / "run"
        command = [sys.executable, "-m", "recipes.cli", "run", "digits", *arguments, "--jobs", str(jobs), "--output", str(root)]
        began = time.time()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        ended = time.time()
        claimed, over = ((root / name).stat().st_mtime for name in ("calibrations.json", "failures.json"))
    return {"command": ended - began, "before": claimed - began, "jobs": over - claimed, "after": ended - over}


def spread(values: list[float]) -> float:
    """Half of what lies between the quartiles, or of few values between the ends."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return (ordered[len(ordered) - 1 - cut] - ordered[cut]) / 2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sweep")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epsilons", nargs="+", default=["inf", "8", "4", "2", "1"])
    parser.add_argument("--seeds", nargs="+", default=["0..2"])
    parser.add_argument("rest", nargs="*", help="further flags of `dptrain run`, behind --")
    options = parser.parse_args(arguments)
    given = ["--baselines", "--epsilons", *options.epsilons, "--seeds", *options.seeds, *options.rest]
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        rounds.append({kind: once([*given, *flags], 1) for kind, flags in SINGLE.items()})
        rounds[-1]["several"] = once(given, options.jobs)
        seconds = {name: " / ".join(f"{part[name]:.1f}" for part in rounds[-1].values()) for name in NAMES}
        told = ", ".join(f"{name} {text} s" for name, text in seconds.items())
        print(f"round {number + 1} of {options.rounds}: {told}", flush=True)
    report: dict[str, Any] = {"at_a_time": options.jobs, "arguments": given, "cores": os.cpu_count(), "rounds": rounds}
    for name in NAMES:
        several = statistics.median(each["several"][name] for each in rounds)
        print(f"{name:<8}with --jobs {options.jobs} {several:8.1f} s")
        report[name] = {}
        for kind in SINGLE:
            ratios = [each[kind][name] / each["several"][name] for each in rounds]
            one = statistics.median(each[kind][name] for each in rounds)
            report[name][kind] = {"ratio": round(statistics.median(ratios), 3), "spread": round(spread(ratios), 3)}
            what = "one job at a time" if kind == "one" else "the same with one thread"
            print(f"    {what:<26}{one:8.1f} s, {statistics.median(ratios):.2f} ± {spread(ratios):.2f} times as long")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
