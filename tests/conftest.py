"""What every test has: shapes and types checked while it runs, one thread, and the shared data where there is some."""

import csv
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  the hook finds it by name

# The modules whose signatures state shapes. Plans and recipes refuse wrong types in words of their own, which tests read.
SHAPED = ["dptrain.clipping", "dptrain.fleet", "dptrain.data.dataset", "dptrain.data.split"]
SHAPED += ["evaluation.membership", "evaluation.inversion", "evaluation.target", "evaluation.baselines"]
SHAPED += ["evaluation.similarity", "evaluation.utility", "evaluation.extraction", "evaluation.graph"]
install_import_hook(SHAPED, "tests.typechecker.checked")

import torch  # noqa: E402  after the hook

torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of public data sets; the test is skipped where there is none."""
    folder = os.environ.get("DPTRAIN_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs DPTRAIN_DATA: the folder of public data sets")
    return Path(folder)


@pytest.fixture
def speeches(shared_data: Path, tmp_path: Path) -> Path:
    """Tiny Shakespeare as a table: who speaks, and what they say."""
    path = tmp_path / "speeches.csv"
    blocks = (shared_data / "text" / "tinyshakespeare.txt").read_text().split("\n\n")
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["speaker", "speech"])
        table.writerows(block.split(":\n", 1) for block in blocks if ":\n" in block)
    return path
