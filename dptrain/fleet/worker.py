"""A process that trains some models of a fleet: ``python -m dptrain.fleet.worker FOLDER``, started by ``processes.py``.

It reads a way and numbers of models, one block a line, trains them, and answers with the path of a file that holds what is kept
of them. It ends with its input, so that it does not outlive whoever started it.
"""

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from dptrain.fleet.cache import write_answers
from dptrain.fleet.processes import read_job


def main(folder: Path) -> None:
    """Trains what it is told to until its input ends."""
    said, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    job = read_job(folder)
    bar = tqdm(disable=True)
    for line in sys.stdin:
        way, numbers = json.loads(line)
        answers, path = job.train(way, numbers, bar), folder / f"{numbers[0]:06d}.npz"
        write_answers(path, answers, job.digest, job.membership[answers.models])
        print(path, file=said, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
