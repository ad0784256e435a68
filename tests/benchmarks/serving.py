"""What guard and monitor cost the server, and whether its memory stays flat.

    python -m tests.benchmarks.serving [--requests 2000] [--rounds 5] [--at-once 8]
    python -m tests.benchmarks.serving --memory 200000 [--clients 1000]

The model is an untrained MLP (64 to 256 to 10) of the shape of `digits`, since weights change no time; requests are digits, one
each, as JSON over connections that stay open, from a process of their own. Server and load share the machine, so that on two
cores each has about one.

The first command starts a server with guard and monitor, one with the guard alone and one with neither, each as `dptrain serve`
does and in a process of its own, and asks them in turn, the order turned from round to round. Printed are requests a second and
the 99th percentile of the time of an answer, as medians over rounds, and the ratio of the first server to the others with a 95%
interval over rounds (Student's t of the logarithms).

The second command asks one server, guard and monitor on, as many clients with keys of their own, and prints its resident memory
(VmRSS) over the requests, and the growth over the second half.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from scipy.stats import t as student
from sqlalchemy import create_engine

import dptrain.data
from dptrain import models
from dptrain.checkpoint import save_release
from dptrain.plain import as_plain
from dptrain.recipe import DataConfig, ModelConfig, Recipe, RegularizationConfig
from dptrain.release.keys import Keys
from dptrain.release.loading import Served
from dptrain.release.monitor import benign_sessions, calibrate
from dptrain.release.predictor import Predictor

GUARD = "top5-rounded"
KINDS = {
    "guard and monitor": ("--guard", GUARD, "--monitor", "log"),
    "guard alone": ("--guard", GUARD, "--monitor", "off"),
    "neither": ("--guard", "none", "--monitor", "off"),
}
WARM = 200
"""Requests before any is timed."""
SEEN = 20
"""How often memory is read."""


def prepare(folder: Path, clients: int) -> tuple[np.ndarray, list[str]]:
    """A release, thresholds and keys below ``folder``; the inputs that are asked, and the keys."""
    data = dptrain.data.load(DataConfig(name="digits"))
    config = ModelConfig(name="mlp", hidden=(256,))
    torch.manual_seed(0)
    model = models.build(config, data.input_shape, data.outputs, RegularizationConfig())
    facts = {"kind": "image", "classes": list(data.classes), "bounds": list(data.bounds), "input_shape": list(data.input_shape)}
    card = {"recipe": as_plain(Recipe(model=config)), "data": {"name": "digits", **facts}}
    save_release(folder / "release", model.state_dict(), card)
    predictor = Predictor.of(Served.load(folder / "release"), None, bytes(32), most=256)

    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = predictor.answer([torch.from_numpy(inputs)])
        return given.labels, given.margins

    inputs = data.inputs.numpy()
    sessions = benign_sessions(inputs, answer, 450, np.random.default_rng(0), lengths=(20, 200))
    (folder / "monitor.json").write_text(json.dumps(calibrate(sessions, 0.01, confidence=None).to_json()))
    keys = Keys(create_engine(f"sqlite:///{folder / 'state.db'}"))
    return inputs, [keys.add(f"client {number}") for number in range(clients)]


@contextmanager
def server(folder: Path, flags: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Address and process of one server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recipes.cli", "serve", "release", "--port", str(port), "--state", "state.db", *flags]
    command += ["--thresholds", "monitor.json"] if "off" not in flags else []
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            while True:
                if process.poll() is not None:
                    raise SystemExit("the server did not start")
                try:
                    httpx.get(f"{address}/healthz")
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
            yield address, process.pid
        finally:
            process.terminate()


async def load(
    address: str, bodies: Sequence[bytes], keys: Sequence[str], requests: int, at_once: int
) -> tuple[float, np.ndarray]:
    """Seconds that all requests took, and each one's own. Requests go round the clients."""
    host, _, port = address.removeprefix("http://").partition(":")
    numbers, times = iter(range(requests)), np.full(requests, np.nan)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in numbers:
            body, key = bodies[number % len(bodies)], keys[number % len(keys)]
            head = (
                f"POST /v1/predict HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json"
                f"\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            begin = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            times[number] = time.perf_counter() - begin
            if answer.split(b" ", 2)[1] != b"200":
                raise SystemExit(f"a request was answered with {answer[:60]!r}")
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    return time.perf_counter() - start, times


def bodies_of(inputs: np.ndarray) -> list[bytes]:
    """One digit a request, in random order."""
    order = np.random.default_rng(1).permutation(len(inputs))
    return [json.dumps({"inputs": [np.round(inputs[row], 4).tolist()]}).encode() for row in order]


def compare(requests: int, rounds: int, at_once: int) -> None:
    """Prints the first table."""
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    slow: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        inputs, keys = prepare(Path(name), clients=50)
        bodies = bodies_of(inputs)
        addresses = {kind: stack.enter_context(server(Path(name), flags))[0] for kind, flags in KINDS.items()}
        for address in addresses.values():
            asyncio.run(load(address, bodies, keys, WARM, at_once))
        for turn in range(rounds):
            for kind in np.roll(list(KINDS), turn):
                seconds, times = asyncio.run(load(addresses[kind], bodies, keys, requests, at_once))
                rates[kind].append(requests / seconds)
                slow[kind].append(float(np.quantile(times, 0.99)))
    print(f"{requests} requests a round, {rounds} rounds, {at_once} at once, {os.cpu_count()} cores\n")
    print("| server | requests a second | p99, ms |\n|---|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {statistics.median(rates[kind]):.0f} | {1000 * statistics.median(slow[kind]):.1f} |")
    first, *others = KINDS
    for other in others:
        for what, figures in (("requests a second", rates), ("p99", slow)):
            print(f"{first} against {other}, {what}: {interval(figures[first], figures[other])}")


def interval(first: Sequence[float], other: Sequence[float]) -> str:
    """The ratio with its 95% interval."""
    logs = np.log(np.array(first) / np.array(other))
    if len(logs) < 2:
        return f"{np.exp(logs.mean()):.3f}"
    half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def resident(process: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def memory(requests: int, clients: int, at_once: int) -> None:
    """Prints the second table."""
    with tempfile.TemporaryDirectory() as name:
        inputs, keys = prepare(Path(name), clients)
        bodies = bodies_of(inputs)
        with server(Path(name), KINDS["guard and monitor"]) as (address, process):
            print("| requests | resident memory, MB |\n|---|---|")
            found = [resident(process)]
            print(f"| 0 | {found[0]:.1f} |", flush=True)
            for part in range(SEEN):
                asyncio.run(load(address, bodies, keys, requests // SEEN, at_once))
                found.append(resident(process))
                print(f"| {(part + 1) * (requests // SEEN)} | {found[-1]:.1f} |", flush=True)
    print(f"{clients} clients; growth over the second half: {found[-1] - found[len(found) // 2]:+.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--memory", type=int, default=0, metavar="REQUESTS")
    parser.add_argument("--clients", type=int, default=1000)
    given = parser.parse_args()
    if given.memory:
        memory(given.memory, given.clients, given.at_once)
    else:
        compare(given.requests, given.rounds, given.at_once)


if __name__ == "__main__":
    main()
