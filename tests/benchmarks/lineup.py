"""Would a person recognise it? Reconstructions beside a line-up of ten, for somebody who has not seen them before.

    python -m tests.benchmarks.lineup runs/faces --model non_private/seed=0 --attack inversion.prior --to lineup
    python -m tests.benchmarks.lineup lineup --answers 3 10 1 ...

The first writes one picture a private person into a folder: the reconstruction on the left, on the right a held-out image each
of ten private people, numbered and in random order, the true one among them. No image of the line-up was seen by target,
attack or attacker. As many pictures, mixed among them, show in the reconstruction's place what somebody without the model has:
a public person's mean face; who names the "true" one there more often than once in ten guesses by something else than the face.
Which is which stands in ``key.json`` alone; who answers must not open it. The second counts: the share that was named, with its
Clopper–Pearson interval, for both.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dptrain.data
from dptrain.data import split as splits
from dptrain.data.dataset import DataSet
from evaluation.metrics import proportion
from recipes.runs import load_run

PEOPLE = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a comparison; of a line-up with --answers")
    parser.add_argument("--model", default="non_private/seed=0")
    parser.add_argument("--attack", default="inversion.prior")
    parser.add_argument("--to", type=Path, default=Path("lineup"))
    parser.add_argument("--seed", type=int, default=None, help="of the order; left out, nobody knows it")
    parser.add_argument("--answers", type=int, nargs="+", help="the number that was named, picture by picture")
    given = parser.parse_args()
    if given.answers is not None:
        return count(given.folder, given.answers)
    return write(given.folder, given.model, given.attack, given.to, given.seed)


def write(root: Path, model: str, attack: str, to: Path, seed: int | None) -> int:
    """The pictures of a line-up, and its key."""
    data = dptrain.data.load(load_run(root).recipe.data)
    if data.others is None:
        sys.exit(f"{root} is of {data.name}, which shows no people; give a comparison of `dptrain run faces`")
    kept = sorted((root / model / "evaluation").glob(f"step=*/{attack}.npz"))
    if not kept:
        sys.exit(f"{root / model} holds no reconstructions of {attack}; see {root} for its models, and --attack")
    arrays = np.load(kept[-1])
    found = next(arrays[f"row{at}"] for at, label in enumerate(arrays["labels"]) if "struction" in label)
    generator = np.random.default_rng(seed)
    held_out = _held_out(data, splits.load(root / model / "private" / "split.npz").non_members, generator)
    groups = data.others.groups.numpy()
    strangers = generator.permutation(np.unique(groups))
    key, pictures = [], []
    for person in range(len(found)):
        stranger = data.others.inputs[groups == strangers[person % len(strangers)]].mean(0)
        for shown, kind in ((found[person], "reconstruction"), (_grey(stranger.numpy(), data), "without the model")):
            others = generator.permutation(np.delete(np.arange(len(found)), person))[: PEOPLE - 1]
            row = generator.permutation([person, *others])
            pictures.append((shown, held_out[row]))
            key.append({"true": int(np.flatnonzero(row == person)[0]) + 1, "kind": kind})
    to.mkdir(parents=True, exist_ok=True)
    order = generator.permutation(len(pictures))
    for number, at in enumerate(order):
        _draw(to / f"{number:02}.png", *pictures[at])
    (to / "key.json").write_text(json.dumps([key[at] for at in order]), encoding="utf-8")
    print(f"{len(order)} pictures in {to}; look at each and note the number, 1 to {PEOPLE}, of the same person")
    return 0


def count(folder: Path, answers: list[int]) -> int:
    """Prints how many were named."""
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    if len(answers) != len(key):
        sys.exit(f"{len(answers)} answers were given to {len(key)} pictures; give one each, in their order")
    for kind in ("reconstruction", "without the model"):
        right = [answer == item["true"] for answer, item in zip(answers, key, strict=True) if item["kind"] == kind]
        share = proportion(sum(right), len(right), kind)
        print(f"{kind}: {sum(right)} of {len(right)} named, {share.value:.2f} [{share.low:.2f}, {share.high:.2f}]; chance 0.10")
    return 0


def _held_out(data: DataSet, indices: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One image that was not trained on of each person, ``[people, height, width]``, from 0 to 1."""
    targets = data.targets.numpy()[indices]
    chosen = [int(generator.choice(indices[targets == person])) for person in range(len(data.classes))]
    return np.stack([_grey(data.inputs[index].numpy(), data) for index in chosen])


def _grey(image: np.ndarray, data: DataSet) -> np.ndarray:
    low, high = data.bounds
    return ((image.mean(0) - low) / (high - low)).clip(0, 1)


def _draw(path: Path, shown: np.ndarray, row: np.ndarray) -> None:
    figure = plt.figure(figsize=(12, 4.4))
    grid = figure.add_gridspec(2, 7, width_ratios=(2, 0.2, 1, 1, 1, 1, 1))
    places = [figure.add_subplot(grid[:, 0]), *(figure.add_subplot(grid[at // 5, 2 + at % 5]) for at in range(PEOPLE))]
    for place, image, title in zip(places, (shown, *row), ("who is this?", *map(str, range(1, PEOPLE + 1))), strict=True):
        place.imshow(image, cmap="gray", vmin=0, vmax=1)
        place.set_title(title)
        place.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
