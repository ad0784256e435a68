"""How soon the project's own attacks are noticed, and how often honest clients are taken for attackers, over real HTTP.

    python -m tests.benchmarks.probing                  # digits; with DPTRAIN_DATA a language model as well

A model behind a guard and a monitor is served by uvicorn on the loopback. Thresholds come from sessions that are made of one
half of the held-out examples; honest clients ask for the other half: one at a time, in bursts, of one class, with retries, a
few again and again (:mod:`dptrain.release.monitor.benign`). Each attack is a client of its own, with its own key, and is run by
the code that attacks checkpoints. The monitor only watches here, so that an attack goes on to its end and its whole length is
known. :mod:`tests.benchmarks.monitor` plays recorded queries to the monitor alone, over more seeds.

Printed is, for each attack, how many queries it took in all, after how many the first alert was raised and by which detector;
and for honest clients the share that ever raised one, with its interval (Clopper and Pearson 1934). Alerts are logged as they
are raised: ranking a secret among all that it might be takes some hundred thousand questions a secret, which nobody need wait
for.
"""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.recipe import Recipe
from dptrain.release.keys import Keys
from dptrain.release.limits import Limits
from dptrain.release.loading import Served
from dptrain.release.monitor import Monitor, Session, benign_sessions, calibrate
from dptrain.release.monitor.store import Store
from dptrain.release.server import create_app
from dptrain.release.service import Settings
from dptrain.trainer import Trainer
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.metrics import proportion
from evaluation.plan import EvaluationPlan
from evaluation.remote import RemoteTarget
from evaluation.result import AttackResult
from evaluation.runner import run_attack
from evaluation.target import Target
from recipes import comparison
from recipes.thresholds import answers_of
from tests.dptrain.release.served import serving

EPSILON = 8.0
CALIBRATED = 900
"""Sessions, of which a third is fitted on."""
OF_NUMBERS = (
    "membership.threshold",
    "membership.boundary",
    "membership.noise",
    "membership.shift",
    "inversion.scores",
    "inversion.labels",
)
OF_TEXT = ("membership.threshold", "extraction.exposure", "extraction.generation")


@dataclass(frozen=True)
class Found:
    """What became of one client."""

    name: str
    queries: int
    first: int | None
    """Queries up to the first alert; None where there was none."""
    detector: str
    result: AttackResult | None = None


@dataclass(frozen=True, eq=False)
class Service:
    """A server that runs, and what stands behind it."""

    url: str
    keys: Keys
    store: Store
    monitor: Monitor

    def client(self, name: str) -> tuple[str, RemoteTarget]:
        """The id by which the monitor knows a new client, and its door."""
        key = self.keys.add(name)
        target = RemoteTarget.connect(self.url, key=key)
        return key.split("_")[1], target

    def found(self, client: str, name: str, result: AttackResult | None = None) -> Found:
        self.monitor.save()
        seen = self.monitor.statistics()["clients"].get(client)
        alerts = sorted((row["queries"], row["detector"]) for row in self.store.alerts(1_000_000) if row["client"] == client)
        first, detector = alerts[0] if alerts else (None, "")
        return Found(name, 0 if seen is None else seen["queries"], first, detector, result)


def trained(name: str, flags: Sequence[str], folder: Path) -> tuple[Recipe, DataSet, Split]:
    """A model of a registered recipe under the budget, without attacks."""
    recipe = comparison.load(name, list(flags)).recipe
    recipe = dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, epsilon=EPSILON))
    data = dptrain.data.load(recipe.data)
    split = split_of(data, recipe.data.split, 0)
    Trainer(recipe, data, split, seed=0, folder=folder, progress=False).run()
    return recipe, data, split


def sessions(data: DataSet, target: Target, indices: np.ndarray, count: int, seed: int) -> list[Session]:
    """Of honest clients who ask for these examples."""
    inputs = data.inputs[torch.from_numpy(indices)].numpy()
    return benign_sessions(inputs, answers_of(target), count, np.random.default_rng(seed))


@contextmanager
def served(release: Path, calibrated: list[Session], guard: str | None, folder: Path) -> Iterator[Service]:
    """The release on a free port of the loopback, watched."""
    store = Store(f"sqlite:///{folder / 'state.db'}")
    keys, loaded = Keys(store.engine), Served.load(release)
    monitor = Monitor(calibrate(calibrated, classes=len(loaded.classes)), store=store, seed=0)
    app = create_app(
        loaded, guard_text=guard, monitor=monitor, limits=Limits(), store=store, keys=keys, settings=Settings(timeout=60.0)
    )
    try:
        with serving(app) as address:
            yield Service(address, keys, store, monitor)
    finally:
        store.close()


def honest(service: Service, asked: list[Session]) -> list[Found]:
    """Every session by a client of its own."""
    found = []
    for number, session in enumerate(asked):
        client, target = service.client(f"honest {number}")
        ask = target.read if target.kind == "language" else target.labels
        for query in session.inputs:
            ask(torch.from_numpy(np.asarray(query))[None])
        found.append(service.found(client, "honest"))
    return found


def attacked(service: Service, name: str, recipe: Recipe, data: DataSet, split: Split) -> Found:
    """One attack on the server, by the code that attacks checkpoints."""
    client, target = service.client(name)
    case = Case(
        target=target, untrained=None, data=data, split=split, plan=None, evaluation=EvaluationPlan(attacks=(name,)), seed=0
    )
    return service.found(client, name, run_attack(case, name, lambda: None))


def watched(title: str, name: str, flags: Sequence[str], guard: str | None, attacks: Sequence[str], clients: int) -> None:
    """Trains, serves, asks and attacks; prints a table."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe, data, split = trained(name, flags, folder / "run")
        model = Target.open(folder / "run" / "release", Access.SCORES)
        held_out = np.random.default_rng(0).permutation(split.non_members)
        ours, theirs = held_out[: len(held_out) // 2], held_out[len(held_out) // 2 :]
        with served(folder / "run" / "release", sessions(data, model, ours, CALIBRATED, 1), guard, folder) as service:
            print(f"\n{title}, guard {guard or 'none'}\n{service.monitor.thresholds.statement()}\n")
            alarmed = honest(service, sessions(data, model, theirs, clients, 2))
            false = proportion(sum(one.first is not None for one in alarmed), len(alarmed))
            asked = [one.queries for one in alarmed]
            print(
                f"honest clients: {len(alarmed)} with {min(asked)} to {max(asked)} queries; of them raised an alert: "
                f"{false.value:.1%} [{false.low:.1%}, {false.high:.1%}]\n"
            )
            print(f"{'attack':<28}{'queries':>9}{'flagged after':>15}{'share':>9}  detector            what it got")
            for attack in attacks:
                found = attacked(service, attack, recipe, data, split)
                print(_line(found), flush=True)


def _line(found: Found) -> str:
    share = "missed" if found.first is None else f"{found.first / max(found.queries, 1):.2%}"
    got: Any = found.result
    said = f"{got.status}: {got.reason}" if got.status != "ok" else f"{got.metric} {got.value:.3f}"
    return f"{found.name:<28}{found.queries:>9}{found.first or '–':>15}{share:>9}  {found.detector:<20}{said}"


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--clients", type=int, default=300, help="honest ones")
    reader.add_argument("--guard", default="top5-rounded", help="before the model of digits; none for none")
    reader.add_argument("--attacks", nargs="+", default=None, help="of the model of digits; by default all that ask a server")
    given = reader.parse_args()
    guard = None if given.guard == "none" else given.guard
    mlp = ["--model.name", "mlp", "--model.hidden", "64"]
    watched("Digits, an MLP", "digits", mlp, guard, given.attacks or OF_NUMBERS, given.clients)
    if os.environ.get("DPTRAIN_DATA"):
        small = ["--data.characters", "60000", "--model.hidden", "64", "--pretraining.steps", "0", "--training.steps", "60"]
        batches = ["--privacy.expected-batch-size", "94"]
        watched("A language model", "shakespeare", [*small, *batches], None, OF_TEXT, max(30, given.clients // 5))


if __name__ == "__main__":
    main()
