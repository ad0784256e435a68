"""What must hold of a folder whatever befell the runs that wrote it.

What can be held to the bit, and which randomness must be fixed for that: the model ``clip_only`` has no noise, and at a
sampling rate of 1 each of its batches is all members in one order; no draw is left but initial weights, split and shadow
models' membership, which the seed decides. (An ``insecure_seed`` would not do: after a resume batches and noise come from
another stream by design, so that no noise is drawn twice.) Dropout and augmentation are off, as they draw from torch's global
generator, which no checkpoint keeps; one thread adds up in one order; and the way in which shadow models are trained is named,
since the one that is measured to be fastest rounds otherwise. Salts are drawn anew by each run and are left out, with what is
hashed with them, and so are times.

The model under a budget has fresh noise in each process. Of it everything is held that does not hang on the noise.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dptrain import accounting
from dptrain.checkpoint import is_there, load_release, read_folder
from dptrain.data import split
from dptrain.ledger import Ledger
from dptrain.plain import from_plain
from dptrain.plan import PrivacyPlan
from evaluation.result import read_comparison, read_run
from tests.faults.processes import Outcome
from tests.faults.sites import VARYING

EXACT, NOISY = "clip_only/seed=0", "eps=08.00/seed=0"
TIMED = {"seconds", "split_digest", "release_digest"}


def whole(root: Path) -> None:
    """Right after a kill: whatever can be read is whole, and nothing that is half written can be read."""
    for folder in [path for name in ("checkpoint", "release") for path in root.glob(f"*/seed=*/**/{name}") if path.is_dir()]:
        read_folder(folder)
    for path in root.glob("*/seed=*/private/split.npz"):
        split.load(path)
    for path in root.glob("*/seed=*/private/ledger.jsonl"):
        Ledger(path).entries()
    for path in root.glob("*/seed=*/evaluation/*/result.json"):
        read_run(path)
    for path in [*root.glob("*.json"), *root.glob("*/seed=*/private/*.json")]:
        json.loads(path.read_bytes())
    for path in root.glob("*.html"):
        assert path.read_text().rstrip().endswith("</html>"), f"{path} is cut off"


def exact(root: Path, reference: Path) -> None:
    """The run without noise is the uninterrupted one: weights, optimizer, average, early stopping, attacks."""
    mine, other = dict(_facts(root)), dict(_facts(reference))
    assert mine.keys() == other.keys(), f"{mine.keys() ^ other.keys()}"
    different = [name for name, value in mine.items() if value != other[name]]
    assert not different, f"{', '.join(different)} differ from those of the run that was not interrupted"


def _facts(root: Path) -> Iterable[tuple[str, Any]]:
    run = root / EXACT
    weights, card = load_release(run / "release")
    yield "weights", {name: value.numpy().tobytes() for name, value in weights.items()}
    files = read_folder(run / "private" / "checkpoint")
    yield "checkpoint", files["state.safetensors"]
    state = json.loads(files["state.json"])
    drawn, blocks = state.pop("drawn"), state.pop("blocks")
    for name in ("run", "account"):  # the run's own name in its data set's account, drawn at random
        state.pop(name, None)
    yield "steps", sum(last - first for first, last in drawn)
    yield "announced", sorted(step for _, _, first, last in blocks for step in range(first, last))
    yield "optimizer and average", state
    yield "early stopping", json.loads((run / "private" / "stopping.json").read_bytes())
    card.pop("split_commitment")
    card["data"].pop("commitment")
    yield "card", card
    for path in sorted(run.glob("evaluation/step=*/result.json")):
        yield str(path.relative_to(run)), _untimed(json.loads(path.read_bytes()))


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key not in TIMED}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def nothing_left(root: Path, reference: Path) -> None:
    """The same files as after an uninterrupted run: nothing is missing, no half of one is left."""
    mine, other = _files(root), _files(reference)
    assert mine == other, f"left over: {sorted(mine - other)}; missing: {sorted(other - mine)}"
    for path in root.rglob("events.out.tfevents.*.dptrain"):
        assert len(list(path.parent.glob("events.out.tfevents.*.dptrain"))) == 1, f"{path.parent} has several sets of views"


def _files(root: Path) -> set[str]:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    for pattern, same in VARYING:
        found = {pattern.sub(same, name) for name in found}
    return found


def accounted(root: Path, lives: list[Outcome], exactly: bool = False) -> None:
    """The ledger says of each step at least as often as it was taken that it was taken, and composes to at least as much.

    Args:
        exactly: the run has ended, so that its card can be held against what its weights went through.
    """
    truth: Counter[int] = Counter()
    composed: list[tuple[int, int]] = []
    for life in lives:
        taken = [number for label, number, _ in life.steps if label == NOISY]
        truth.update(taken)
        if taken:
            assert taken == list(range(taken[0], taken[-1] + 1))
            composed.append((taken[0] - 1, taken[-1]))
    path = root / NOISY / "private" / "ledger.jsonl"
    blocks = Ledger(path).blocks()
    stated = Counter(number for _, first, last in blocks for number in range(first + 1, last + 1))
    assert all(stated[number] >= times for number, times in truth.items()), f"ledger {dict(stated)}, truth {dict(truth)}"
    if not composed:
        return
    plan = blocks[0][0]
    assert all(each == plan for each, _, _ in blocks)
    said = _epsilon(plan, tuple(sorted((first, last) for _, first, last in blocks)))
    true = _epsilon(plan, tuple(sorted(composed)))
    assert said >= true - 1e-9, f"the ledger says ε = {said}, and {true} was spent"
    if exactly:
        card = load_release(root / NOISY / "release")[1]
        released = from_plain(PrivacyPlan, card["plan"], "card")
        assert card["steps_taken"] == released.steps == max(truth)
        assert card["guarantee"]["epsilon"] >= _epsilon(released, ((0, released.steps),)) - 1e-9


@functools.cache
def _epsilon(plan: PrivacyPlan, parts: tuple[tuple[int, int], ...]) -> float:
    """Of the steps from the first to before the last of each part, composed."""
    from dp_accounting import ComposedDpEvent

    event = ComposedDpEvent([plan.event(last, first) for first, last in parts if last > first])
    return accounting.epsilon(event, plan.delta, plan.relation)


def fresh(lives: list[Outcome], reference: Outcome) -> None:
    """No two processes drew the same noise; without noise each step moved the weights as it would have uninterrupted."""
    noisy = [digest for life in [*lives, reference] for label, _, digest in life.steps if label == NOISY]
    assert len(noisy) == len(set(noisy)), "the same noise was drawn twice"
    expected = {number: digest for label, number, digest in reference.steps if label == EXACT}
    for life in lives:
        for label, number, digest in life.steps:
            assert label != EXACT or digest == expected[number], f"step {number} after a resume is another one"


def nothing_lost(lives: list[Outcome]) -> None:
    """Each process goes on at least from the last checkpoint that one before it had said to be on the disk."""
    kept: dict[str, int] = {}
    for life in lives:
        for label in {label for label, _, _ in life.steps}:
            begun = next(number for name, number, _ in life.steps if name == label)
            assert begun > kept.get(label, 0), f"{label} was at step {kept[label]} on the disk and began again at {begun}"
        for label, number in life.saved.items():
            kept[label] = max(number, kept.get(label, 0))


def verified(root: Path) -> None:
    """What is published of it verifies, is loaded, and answers; the reports are of all models."""
    from dptrain.release.loading import Served

    for label in (EXACT, NOISY):
        Served.load(root / label / "release")
        assert is_there(root / label / "private" / "checkpoint")
    result = read_comparison(root / "results.json")
    assert {run.label for run in result.runs} == {EXACT, NOISY}
    assert not result.failures
    assert all(attack.status == "ok" for run in result.runs for attack in run.attacks)
