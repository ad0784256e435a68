"""Equal texts, equal code: what a text covers, and that whatever cannot be read is never taken for the same."""

import dataclasses
import functools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dptrain.sources import source_of

SCRIPT = """
import functools, sys
from dptrain.registry import MODELS

class MyModel:
    gain = 1

    def forward(self, inputs):
        return self.gain * inputs

@MODELS.register("mine")
def build(*_):
    return MyModel()

print(MODELS.source("mine"))
"""


def said_by(folder: Path, script: str, *arguments: str) -> str:
    """What another process prints that runs this script from a file."""
    path = folder / "train.py"
    path.write_text(script)
    before = time.time() - 60
    os.utime(path, (before, before))
    done = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("change", [("self.gain *", "2 * self.gain *"), ("gain = 1", "gain = 2"), ("MyModel()", "MyModel( )")])
def test_the_whole_file_of_a_factory_counts_also_of_a_script(tmp_path: Path, change: tuple[str, str]):
    before = said_by(tmp_path, SCRIPT)
    assert said_by(tmp_path, SCRIPT) == before
    assert said_by(tmp_path, SCRIPT.replace(*change)) != before


def test_numbers_that_one_script_takes_from_its_command_line_count(tmp_path: Path):
    script = SCRIPT.replace("class MyModel", "WIDTH = int(sys.argv[1])\nclass MyModel").replace("MyModel()", "MyModel(WIDTH)")
    assert said_by(tmp_path, script, "8") == said_by(tmp_path, script, "8")
    assert said_by(tmp_path, script, "8") != said_by(tmp_path, script, "9")


def test_a_class_that_holds_what_a_function_was_given_is_told_apart(tmp_path: Path):
    script = SCRIPT.replace("@MODELS", "def scaled(by):\n    class Scaled(MyModel):\n        def forward(self, x):\n"
        "            return by * super().forward(x)\n    return Scaled\n\nMyModel = scaled(float(sys.argv[1]))\n\n@MODELS"
    ).replace("def build(*_)", "def build(*_, kind=MyModel)")  # fmt: skip
    assert said_by(tmp_path, script, "1") == said_by(tmp_path, script, "1")
    assert said_by(tmp_path, script, "1") != said_by(tmp_path, script, "2")


def test_what_is_typed_at_a_prompt_is_never_taken_for_the_same():
    said = [subprocess.run([sys.executable], input=SCRIPT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0]
    assert said[0] != said[1]


def test_a_file_that_was_changed_after_the_process_began_need_not_be_what_runs(tmp_path: Path):
    script = SCRIPT + "import os\nos.utime(__file__)\nprint(MODELS.source('mine') == MODELS.source('mine'))\n"
    assert said_by(tmp_path, script).splitlines()[-1] == "False"
    assert said_by(tmp_path, script.replace("os.utime(__file__)", "")).splitlines()[-1] == "True"


def closure(value: Any) -> Callable[[], Any]:
    return lambda: value


@dataclasses.dataclass(frozen=True)
class Settings:
    width: int
    names: tuple[str, ...] = ("a",)


def doubled(function: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(function)
    def double() -> Any:
        return 2 * function()

    return double


DIFFERENT: list[Any] = [
    None, 1, 2, 1.0, True, "1", b"1", (1, 2), (1, (2,)), [1, 2], {"a": 1}, {"a": 2}, Settings(1), Settings(2),
    Settings(1, ("b",)), closure, said_by, Settings, math.tanh, math.sin, math, closure(3), closure(4), doubled(closure(3)),
    doubled(closure(4)), functools.partial(closure, 1), functools.partial(closure, 2), functools.partial(closure, value=1),
    "made anew",
]  # fmt: skip


def test_closures_over_different_values_are_told_apart_and_over_equal_ones_are_not():
    texts = [source_of(closure(value)) for value in DIFFERENT]
    assert len(set(texts)) == len(DIFFERENT)
    assert texts == [source_of(closure(value)) for value in DIFFERENT]
    assert source_of(closure(Settings(1))) == source_of(closure(Settings(1)))
    assert source_of(doubled(closure(3))) == source_of(doubled(closure(3)))


UNREADABLE = {
    "object": object(),
    "set": {1, 2},
    "path": Path(),
    "typed": eval("lambda: 1"),
    "inside": [object()],
    "bound": [].append,
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_never_the_same(value: Any):
    held = closure(value)
    assert source_of(held) != source_of(held)


def test_which_of_two_things_comes_again_counts():
    one, two = closure(1), closure(2)
    assert source_of((one, two, one)) != source_of((one, two, two))


def test_a_function_that_refers_to_itself_has_an_end():
    def again(count: int) -> int:
        return count and again(count - 1)

    assert source_of(again) == source_of(again)


def test_a_decorator_of_pythons_own_is_seen_through():
    def managed(value: int) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def manager() -> Any:
            yield value

        return manager

    assert source_of(managed(1)) == source_of(managed(1))
    assert source_of(managed(1)) != source_of(managed(2))
