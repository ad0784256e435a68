"""README cannot rot: its Python runs, and each of its commands is one that the command line takes."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dptrain.data
from dptrain import MODELS, draw
from dptrain.data.dataset import DataSet
from dptrain.recipe import DataConfig
from recipes import cli, comparison, release, runs, sweep

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "dptrain/README.md", "evaluation/README.md", "recipes/README.md")
README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
STAND_INS = {"RECIPE": "digits", "RUN": "runs/mine", "FOLDER": "folder", "RUNS...": "runs/mine", "OUTPUT": "runs/mine"}
SMALL = [
    "--epsilons",
    "8",
    "--seeds",
    "0",
    "--baselines",
    "--training.steps",
    "4",
    "--evaluation.attacks",
    "membership.threshold",
]


class Reached(BaseException):
    """Everything that was typed has been read, and work would begin."""


def python_blocks() -> list[str]:
    return [text for language, text in BLOCK.findall(README) if language == "python"]


def commands() -> list[str]:
    """What stands behind ``dptrain`` in blocks and in running text, each once."""

    def found() -> Iterator[str]:
        for language, text in BLOCK.findall(README):
            if language != "python":
                for line in text.replace("\\\n", " ").splitlines():
                    yield from re.findall(r"(?:^|&& |/)dptrain ([a-z][^#&]*)", line)
        for text in re.findall(r"`dptrain ([a-z][^`]*)`", BLOCK.sub("", README)):
            yield text

    return list(dict.fromkeys(" ".join(command.split()) for command in found()))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture
def placeholders(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What README takes for granted in its blocks: a model, its optimizer, data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODELS, "_added", {})
    real = cli.main
    monkeypatch.setattr(cli, "main", lambda arguments: real([*arguments, *SMALL]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    split = draw(len(data))
    dataset = TensorDataset(data.inputs[split.members], data.targets[split.members])
    inputs, targets = data.inputs.numpy(), data.targets.numpy()
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.5),
        "dataset": dataset,
        "data": data,
        "split": split,
        "inputs": torch.from_numpy(inputs),
        "targets": torch.from_numpy(targets),
        "logits_of": lambda some: np.zeros((len(some), 10)),
        "secret": bytes(32),
    }


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.strip().splitlines()[-1][:40])
def test_python_of_the_readme_runs(block: str, placeholders: dict[str, Any]):
    code: object = 0
    try:
        exec(compile(block, "README.md", "exec"), placeholders)
    except SystemExit as ended:
        code = ended.code
    assert code == 0


def reach(*_: Any, **__: Any) -> NoReturn:
    raise Reached


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Types a command up to where work begins; what was wrong with it, or nothing."""
    monkeypatch.chdir(tmp_path)
    load = comparison.load
    monkeypatch.setattr(comparison, "load", lambda *given: (load(*given), reach()))
    for place, name in ((runs, "load_run"), (runs, "gather"), (runs, "report"), (release, "examine")):
        monkeypatch.setattr(place, name, reach)

    def type_(command: str) -> str:
        words = [STAND_INS.get(word, word) for word in shlex.split(command)]
        if "..." in words:
            words = words[: words.index("...") - 1]
        if len(words) == 1 and words[0] in cli.COMMANDS:
            return ""  # the text speaks of the command
        try:
            code = cli.main(words)
        except Reached:
            return ""
        said = capsys.readouterr().err
        folders = [word for word in words[1:] if not word.startswith("-") and ("/" in word or word == "published")]
        return "" if code == 0 or any(word in said for word in folders) else said  # no such folder is here

    return type_


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_taken(command: str, taken: Callable[[str], str]):
    """Its recipe is there, its flags exist and have values that fit. What it would do is not done."""
    assert taken(command) == ""


@pytest.mark.parametrize(
    "command",
    [
        "rum digits",
        "run digitz",
        "run digits --privacy.epsilom 4",
        "run digits --epsilons four",
        "evaluate runs/mine --attacks membership.lirra",
        "serve published --rat 10",
        "release runs/mine --guart top5",
        "audit digits --how twice",
    ],
)
def test_a_command_that_is_mistyped_would_be_found_out(command: str, taken: Callable[[str], str]):
    assert taken(command) != ""


def test_flags_that_the_readme_names_exist():
    known = {*comparison.options(), *(flag[2:].replace("-", "_") for flag in sweep.FLAGS)}
    named = set(re.findall(r"`[^`]*?(--[a-z-]+\.[a-z.-]+)", README))
    unknown = {flag for flag in named if flag[2:].replace("-", "_") not in known}
    assert named
    assert not unknown


def test_files_that_the_readme_names_are_there():
    named = set(re.findall(r"`((?:recipes|tests|evaluation|dptrain)/[\w/]+\.(?:py|toml))`", README))
    assert named
    assert all((Path(__file__).parents[1] / name).is_file() for name in named)
