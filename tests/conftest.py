"""What every test has: shapes and types checked while it runs, one thread, and the shared data where there is some."""

import contextlib
import csv
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # for what tests start, too; a worker a core has no more than that
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402  after the number of threads
from jaxtyping import install_import_hook  # noqa: E402

import tests.typechecker  # noqa: E402, F401  the hook finds it by name

# The modules whose signatures state shapes. Plans and recipes refuse wrong types in words of their own, which tests read.
SHAPED = ["dptrain.clipping", "dptrain.fleet", "dptrain.data.dataset", "dptrain.data.split"]
SHAPED += ["evaluation.membership", "evaluation.inversion", "evaluation.target", "evaluation.baselines"]
SHAPED += ["evaluation.similarity", "evaluation.utility", "evaluation.extraction", "evaluation.graph"]
install_import_hook(SHAPED, "tests.typechecker.checked")

import torch  # noqa: E402  after the hook

torch.set_num_threads(1)


LONGEST = (
    "recipes/test_sweeps.py",
    "faults/test_kills.py",
    "conformance/test_digits.py",
    "evaluation/test_final_model.py",
    "recipes/test_launch.py",
    "conformance/test_membership.py",
    "recipes/test_cli.py",
    "recipes/test_select.py",
    "evaluation/test_report.py",
    "recipes/test_adding.py",
    "recipes/test_examples.py",
    "conformance/test_faces.py",
    "evaluation/test_defences.py",
    "conformance/test_fleet.py",
    "conformance/test_audit.py",
    "recipes/test_tensorboard_seen.py",
    "recipes/test_lora.py",
    "recipes/test_audit.py",
    "recipes/test_release.py",
    "test_readme.py",
)
"""Files that take longest, whose tests come first: one that is begun last leaves all other processes without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {Path(__file__).parent / name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))  # each file's tests stay together, in their order


@pytest.fixture(scope="session", autouse=True)
def ledgers_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test writes into anyone's home: what fixtures of a whole module train is accounted for here."""
    folder = tmp_path_factory.mktemp("ledgers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPTRAIN_LEDGER", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def ledgers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the accounts of this test's data sets are kept: empty when it begins."""
    folder = tmp_path_factory.getbasetemp() / "ledgers-of-tests" / secrets.token_hex(8)
    monkeypatch.setenv("DPTRAIN_LEDGER", str(folder))
    return folder


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Results are gathered and written, and neither their page nor TensorBoard's pictures are drawn."""
    patch.setattr("evaluation.report.html.write", lambda *given: None)
    patch.setattr("evaluation.report.tensorboard.write", lambda *given: None)
    patch.setattr("recipes.runs._beside", lambda *given: contextlib.nullcontext(lambda: True))  # nor by a process of their own


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that train, and read neither page nor pictures: drawing forty figures takes longer than a small training."""
    leave_undrawn(monkeypatch)


def take_same_keys(patch: pytest.MonkeyPatch) -> None:
    """Keys of noise, batches and coins come from one row of numbers, and no longer from the operating system."""
    patch.setattr("dptrain.noise.stream.secrets", SimpleNamespace(randbits=random.Random(0).getrandbits))


@pytest.fixture
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that judge what a secret training drew, by figures that chance alone passes once in some hundreds or thousands
    of runs: they see the same draws in each run. Every key is another one, and nothing but its origin differs from a secret
    training; under an ``insecure_seed`` the product would say and record that there is no guarantee."""
    take_same_keys(monkeypatch)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; where there is none, what needs it is skipped."""
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
