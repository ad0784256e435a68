"""What the monitor sees of the project's own attacks, and how often it cries wolf.

    python -m tests.benchmarks.monitor [--seeds 3] [--first 10] [--json FILE]

A model is trained on some of the digits, and one on windows of Tiny Shakespeare with made-up secrets among them. The monitor
is calibrated on benign sessions from one group of held-out examples; false alarms are counted on sessions from another group,
which nothing was calibrated on. Then each attack runs, its queries are recorded in order with what the model answered, and
they are played to the monitor as one client's (*ten clients*: as theirs, in turns). A line says after how many queries the
first alert came, of how many, and by which detector. Rates are not watched: an attacker can be slow.
"""

import argparse
import copy
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dptrain.data import digits
from dptrain.data.alphabet import LABELS, START, encode
from dptrain.data.secrets import plant
from dptrain.models.lstm import CharacterLSTM
from dptrain.recipe import DataConfig, SecretsConfig
from dptrain.release.monitor import Session, Thresholds, benign_sessions, calibrate
from dptrain.release.monitor.detectors import DETECTORS
from dptrain.release.monitor.session import maxima, played
from dptrain.release.monitor.shared import Shared
from evaluation.access import Access
from evaluation.extraction.attacks import ExposureAttack, GenerationAttack
from evaluation.inversion.blackbox import ScoreInversion
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.labels import LabelInversion
from evaluation.membership import Knowledge, LabelledExamples
from evaluation.membership.boundary import BoundaryDistance
from evaluation.membership.robustness import NoiseRobustness, ShiftRobustness
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import proportion
from evaluation.target import Target

KEPT = 20_000
"""Queries of an attack that are recorded; the rest is counted."""
SPREAD = 10
WINDOW = 48
"""Characters of a text that is asked for."""
CALIBRATING, JUDGING = 600, 1000
"""Sessions."""


@dataclass(frozen=True)
class Row:
    """One attack, under one seed."""

    attack: str
    seed: int
    queries: int
    flagged: int | None
    """After how many queries; None where it never was among those that were recorded."""
    detector: str
    recorded: int
    by_detector: dict[str, int]
    """After how many queries each detector would have been first."""


class Recorder(Target):
    """A target that keeps what it is asked, in order."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.inputs: list[np.ndarray] = []
        self.labels_shown: list[np.ndarray] = []
        self.margins: list[np.ndarray] = []
        self.asked = 0

    def _keep(self, inputs: Tensor, logits: np.ndarray) -> None:
        room = max(0, KEPT - self.asked)
        self.asked += len(inputs)
        if room:
            labels, margins = read_off(logits[:room])
            self.inputs.append(inputs[:room].numpy().copy())
            self.labels_shown.append(labels)
            self.margins.append(margins)

    def _logits(self, inputs: Tensor, needed: Access) -> np.ndarray:
        found = super()._logits(inputs, needed)
        self._keep(inputs, found)
        return found

    def read(self, tokens: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The tokens so far travel along as one more part of the state."""
        so_far = tokens if state is None else torch.cat([state[-1][0], tokens], 1)
        found, after = super().read(tokens, None if state is None else state[:-1])
        self._keep(so_far, found.numpy())
        return found, (*after, so_far[None])

    def session(self) -> Session:
        labels, margins = np.concatenate(self.labels_shown), np.concatenate(self.margins)
        if self.kind == "language":
            return Session([row for block in self.inputs for row in block], labels, margins)
        return Session(np.concatenate(self.inputs), labels, margins)


def read_off(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels, and the margins between the two highest scores."""
    scores = np.exp(logits - logits.max(1, keepdims=True))
    best = np.sort(scores / scores.sum(1, keepdims=True), 1)
    return logits.argmax(1), best[:, -1] - best[:, -2]


def answering(model: nn.Module, *, last: bool = False) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            logits = model(torch.from_numpy(inputs))
        return read_off((logits[:, -1] if last else logits).double().numpy())

    return answer


def trained(model: nn.Module, inputs: Tensor, targets: Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        chosen = torch.arange(step * 64, (step + 1) * 64) % len(inputs)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[chosen]).flatten(0, -2), targets[chosen].flatten()).backward()
        optimizer.step()
    return model.eval()


def watched(pool: np.ndarray, held_out: np.ndarray, answer, seed: int, classes: int) -> tuple[Thresholds, Shared, dict]:
    """Thresholds from one group of examples, and false alarms on another."""
    random = np.random.default_rng([seed, 1])
    thresholds = calibrate(benign_sessions(pool, answer, CALIBRATING, random), classes=classes)
    limits, shared = limits_of(thresholds), thresholds.watch.shared()
    judged = benign_sessions(held_out, answer, JUDGING, random)
    found = np.array([maxima(thresholds.watch, one, shared, f"benign {row}", random) for row, one in enumerate(judged)])
    alarms = int((found > limits).any(1).sum())
    share = proportion(alarms, len(judged))
    by = {name: int(count) for name, count in zip(DETECTORS, (found > limits).sum(0), strict=True) if count}
    figures = {"seed": seed, "alarms": alarms, "sessions": len(judged), "low": share.low, "high": share.high, "by": by}
    return thresholds, shared, figures


def limits_of(thresholds: Thresholds) -> np.ndarray:
    return np.array([thresholds.values.get(name, np.inf) for name in DETECTORS])


def flagged(name: str, recorder: Recorder, thresholds: Thresholds, shared: Shared, seed: int) -> Row:
    """Of an attack that one client makes."""
    session, random = recorder.session(), np.random.default_rng(seed)
    found = played(thresholds.watch, thresholds.watch.fresh(), session, copy.deepcopy(shared), name, random)
    return row_of(name, seed, recorder.asked, found > limits_of(thresholds))


def row_of(name: str, seed: int, asked: int, above: np.ndarray) -> Row:
    first = {detector: int(above[:, at].argmax()) + 1 for at, detector in enumerate(DETECTORS) if above[:, at].any()}
    winner = min(first, key=first.__getitem__, default="")
    return Row(name, seed, asked, first.get(winner), winner, len(above), first)


def spread(name: str, recorder: Recorder, thresholds: Thresholds, shared: Shared, seed: int) -> Row:
    """Of one that ten clients make in turns: when the first of them is flagged, counted over all."""
    session, shared, random = recorder.session(), copy.deepcopy(shared), np.random.default_rng(seed)
    states = [thresholds.watch.fresh() for _ in range(SPREAD)]
    most, above = min(len(session.labels), 6000), []
    for row in range(most):
        one = Session(session.inputs[row : row + 1], session.labels[row : row + 1], session.margins[row : row + 1])
        who = row % SPREAD
        above.append(played(thresholds.watch, states[who], one, shared, f"{name} {who}", random)[0] > limits_of(thresholds))
    return row_of(f"{name}, ten clients", seed, recorder.asked, np.array(above))


def of_digits(seed: int) -> tuple[list[Row], dict]:
    data = digits.load(DataConfig(name="digits"))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data.inputs)))
    members, others, public, pool, held_out = order.split([500, 150, 100, 500, len(order) - 1250])
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    trained(model, data.inputs[members], data.targets[members], 200)
    inputs = data.inputs.numpy()
    thresholds, shared, alarms = watched(inputs[pool.numpy()], inputs[held_out.numpy()], answering(model), seed, 10)
    asked_about = torch.cat([members[:150], others])
    examples = LabelledExamples(data.inputs[asked_about], data.targets[asked_about], asked_about.numpy())
    knowledge = ClassKnowledge((1, 8, 8), data.inputs[public], data.targets[public])
    rows = []

    def target(access: Access) -> Recorder:
        return Recorder(copy.deepcopy(model), access, bounds=data.bounds, classes=10)

    for name, attack in {
        "membership.threshold": LossThreshold(),
        "membership.boundary": BoundaryDistance(),
        "membership.noise": NoiseRobustness(),
        "membership.shift": ShiftRobustness(),
    }.items():
        recorder = target(attack.access)
        attack.run(recorder, examples, Knowledge())
        rows.append(flagged(name, recorder, thresholds, shared, seed))
        if name in ("membership.boundary", "membership.noise"):
            rows.append(spread(name, recorder, thresholds, shared, seed))
    for name, inversion in {"inversion.scores": ScoreInversion(), "inversion.labels": LabelInversion()}.items():
        recorder = target(inversion.access)
        inversion.run(recorder, knowledge, torch.Generator().manual_seed(seed))
        rows.append(flagged(name, recorder, thresholds, shared, seed))
        rows.append(spread(name, recorder, thresholds, shared, seed))
    return rows, alarms


def of_text(seed: int, folder: Path) -> tuple[list[Row], dict]:
    text = encode((folder / "text" / "tinyshakespeare.txt").read_text())
    windows = text[: len(text) // WINDOW * WINDOW].view(-1, WINDOW)
    windows = torch.cat([torch.full((len(windows), 1), START), windows], 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(windows)))
    members, pool, held_out = order[:2000], order[2000:3500], order[3500:5000]
    planted = plant(SecretsConfig(each=1, insertions=(16,), formats=("pin", "password")), len(windows), WINDOW)
    sequences = torch.cat([torch.full((len(planted.sequences), 1), START), planted.sequences], 1)
    training = torch.cat([sequences, windows[members]])
    torch.manual_seed(seed)
    model = CharacterLSTM(len(LABELS), 48)
    trained(model, training[:, :-1], training[:, 1:], 200)
    asked = windows.numpy()
    answer = answering(model, last=True)
    thresholds, shared, alarms = watched(asked[pool.numpy()], asked[held_out.numpy()], answer, seed, len(LABELS))
    rows = []
    for name, attack in {
        "extraction.exposure": ExposureAttack(candidates=2000),
        "extraction.generation": GenerationAttack(),
    }.items():
        bounds = (0.0, float(len(LABELS) - 1))
        recorder = Recorder(copy.deepcopy(model), Access.SCORES, bounds=bounds, classes=len(LABELS), kind="language")
        secrets = planted.secrets if name == "extraction.generation" else planted.secrets[-1:]
        attack.run(recorder, secrets, np.random.default_rng(seed))
        rows.append(flagged(name, recorder, thresholds, shared, seed))
        rows.append(spread(name, recorder, thresholds, shared, seed))
    return rows, alarms


def shown(rows: list[Row]) -> str:
    lines = [f"{'attack':38} {'seed':>4} {'queries':>8} {'flagged':>8} {'share':>8}  detector (others)"]
    for row in rows:
        others = {name: count for name, count in row.by_detector.items() if name != row.detector}
        after = "never" if row.flagged is None else str(row.flagged)
        share = "" if row.flagged is None else f"{row.flagged / row.queries:.2%}"
        lines.append(f"{row.attack:38} {row.seed:4} {row.queries:8} {after:>8} {share:>8}  {row.detector} {others or ''}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=10, help="seed; those below 10 were looked at while the monitor was made")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, alarms = [], []
    folder = os.environ.get("DPTRAIN_DATA")
    for seed in range(given.first, given.first + given.seeds):
        for kind in ("digits", "text") if folder else ("digits",):
            found, false = of_digits(seed) if kind == "digits" else of_text(seed, Path(folder or ""))
            rows += found
            alarms.append({"data": kind, **false})
            print(json.dumps(alarms[-1]), flush=True)
            print(shown(found), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"alarms": alarms, "attacks": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
