"""``dptrain serve thresholds``: what a monitor takes for probing, calibrated by whoever runs the server.

    dptrain serve thresholds runs/digits/eps=08.00/seed=0                    # from the run's own held-out examples
    dptrain serve thresholds published --inputs benign.npy                   # from examples like those that will be asked about

Benign sessions are made of examples that the model was not trained on (:mod:`dptrain.release.monitor.benign`). A third of the
examples is left out of the calibration, and how many sessions made of those raise an alert is measured and stated. The file
holds means and directions of the examples: it is the operator's, and is not to be published. Sessions of recorded traffic are
better still (:func:`dptrain.release.monitor.calibrate`).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from dptrain.errors import CheckpointError, ConfigError
from dptrain.files import write_file
from dptrain.ledger import Account, note_read
from dptrain.release.loading import Served, find
from dptrain.release.monitor import Thresholds, benign_sessions, calibrate, measured
from dptrain.release.monitor.benign import Answer
from dptrain.release.monitor.sketch import sketched
from evaluation.access import Access
from evaluation.target import Target

SESSIONS = 600
"""Enough for a false alarm rate of 1% at 95% confidence if each were of examples of its own, those that are fitted on among
them (:func:`~dptrain.release.monitor.calibrate`)."""
PLAYED = 300
"""Sessions of examples that were left out."""
MOST = 9000
"""Examples."""


def main(arguments: Sequence[str], parser: Callable[..., argparse.ArgumentParser]) -> int:
    """Writes the file, and says what it promises.

    Raises:
        UserError: the release or the examples cannot be used.
    """
    reader = parser(prog="dptrain serve thresholds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("run", metavar="RUN", help="folder of a run, or of a release")
    reader.add_argument(
        "--inputs", type=Path, help="benign examples, an array of numpy.save; left out, the run's held-out ones"
    )
    reader.add_argument("--output", type=Path, default=Path("monitor.json"), help="(%(default)s)")
    given = reader.parse_args(arguments)
    folder = find(Path(given.run))
    served = Served.load(folder)
    if served.kind == "regression":
        raise ConfigError(f"{folder} predicts a value, and a monitor watches classes; serve it with --monitor off")
    inputs = held_out_of(Path(given.run)) if given.inputs is None else _read(given.inputs, served)
    thresholds = of_examples(inputs, answers_of(Target.open(folder, Access.SCORES)), len(served.classes))
    write_file(given.output, json.dumps(thresholds.to_json()).encode(), 0o600)
    print(f"{given.output}: {thresholds.statement()}")
    print(f"Keep it to yourself, and serve with: dptrain serve {given.run} --thresholds {given.output}")
    return 0


def of_examples(inputs: Shaped[np.ndarray, "examples ..."], answer: Answer, classes: int, seed: int = 0) -> Thresholds:
    """Thresholds from two thirds of the distinct examples, with what those make of sessions of the others.

    Raises:
        DataError: there are too few examples.
    """
    generator = np.random.default_rng(seed)
    _, first = np.unique(sketched(inputs, 0).digests, return_index=True)
    inputs = inputs[generator.permutation(first)[:MOST]]
    calibrating, left_out = np.split(inputs, [2 * len(inputs) // 3])
    thresholds = calibrate(benign_sessions(calibrating, answer, SESSIONS, generator), classes=classes)
    return measured(thresholds, benign_sessions(left_out, answer, PLAYED, generator))


def answers_of(target: Target) -> Answer:
    """The label and the margin between the two highest scores; of a language model, of what comes next."""

    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = torch.from_numpy(inputs)
        scores = target.read(given)[0].exp().numpy() if target.kind == "language" else target.scores(given)
        best = np.sort(scores, axis=1)
        return scores.argmax(1), best[:, -1] - best[:, -2]

    return answer


def held_out_of(run: Path) -> np.ndarray:
    """The examples that the run's split kept from the model. That they are read stands in their account.

    Raises:
        UserError: it is no run of a comparison whose data are there.
    """
    import dptrain.data
    from dptrain.data.split import load as load_split
    from recipes import runs

    path = run / "private" / "split.npz"
    root = next((folder for folder in run.resolve().parents if (folder / "comparison.toml").is_file()), None)
    if root is None or not path.is_file():
        raise CheckpointError(
            f"{run} is no run of `dptrain run`, so its held-out examples are not known; give benign examples with --inputs "
            "FILE.npy"
        )
    data, split = dptrain.data.load(runs.load_run(root).recipe.data), load_split(path)
    note_read(run, Account(data.fingerprint, data.name), "thresholds of a monitor")
    return data.inputs[torch.from_numpy(split.held_out)].numpy()


def _read(path: Path, served: Served) -> np.ndarray:
    """Examples of the shape and within the bounds that the model reads."""
    try:
        inputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--inputs is {path}, which cannot be read ({error}); give an array of numpy.save") from None
    shape = served.input_shape
    whole = served.whole
    if not isinstance(inputs, np.ndarray) or inputs.shape[1:] != shape or inputs.dtype.kind not in ("iu" if whole else "iuf"):
        what = f"{inputs.dtype} {inputs.shape}" if isinstance(inputs, np.ndarray) else "several arrays"
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(f"--inputs holds {what}; give {kind} of shape (examples, {', '.join(map(str, shape))})")
    low, high = served.bounds
    if not np.isfinite(inputs).all() or inputs.min(initial=high) < low or inputs.max(initial=low) > high:
        raise ConfigError(f"--inputs holds numbers outside the model's bounds, {low:g} to {high:g}; scale it as for training")
    return inputs.astype(np.int64) if whole else inputs.astype(np.float32)
