"""The terminal's view where a result is odd; `test_report.py` holds what every result promises."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.report import terminal
from tests.evaluation.report_fixture import INVERSION, synthetic


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_asked(tmp_path: Path, width: int):
    result = synthetic(tmp_path)
    long = dataclasses.replace(result, title="A title of many words " * 12, failures=("why " * 60,))
    assert max(len(line) for line in terminal.render(long, width).splitlines()) <= width


def test_a_table_that_does_not_fit_is_broken_and_keeps_every_column(tmp_path: Path):
    result = synthetic(tmp_path)
    narrow, wide = (set(terminal.render(result, width).split()) for width in (80, 100))
    assert {word for word in wide if not set(word) <= set("─")} <= narrow


def test_budgets_stand_from_large_to_small_behind_training_without_privacy(tmp_path: Path):
    text = terminal.render(synthetic(tmp_path), 100)
    places = [
        text.index(name)
        for name in ("non-private  0.7", "clip only    0.6", "DP, ε = 8 ", "DP, ε = 4 ", "DP, ε = 2 ", "DP, ε = 1 ")
    ]
    assert places[0] < places[1]
    assert places[2:] == sorted(places[2:])


def test_a_dash_says_why(tmp_path: Path):
    assert "refused: 300 non-members cannot resolve" in " ".join(terminal.render(synthetic(tmp_path), 100).split())


def test_one_reason_on_many_models_is_one_line(tmp_path: Path):
    text = terminal.render(synthetic(tmp_path), 100)
    assert text.count("extraction.secrets") == 1
    assert "extraction.secrets on all 21 models: the data are not text" in text
    assert "FAILED: membership.lira on eps=08.00/seed=0: ScoreError" in text


def test_every_verdict_in_a_table_is_explained(tmp_path: Path):
    text = terminal.render(synthetic(tmp_path), 100)
    for word in ("leak", "within the plan", "nothing beyond public", "failed"):
        assert f"\n{word}: " in text


def test_no_text_of_a_result_can_command_the_terminal(tmp_path: Path):
    result = dataclasses.replace(synthetic(tmp_path), failures=("eps=1: \x1b[2J\x07 gone",))
    text = terminal.render(result, 100)
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_no_interval_no_attack_and_no_model_are_drawn_all_the_same(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(0.05, 1000.0), seeds=(0,), variants=(), attacks=(INVERSION,), broken=False)
    bare = [dataclasses.replace(item, utility=dataclasses.replace(item.utility, low=None)) for item in result.summary]
    assert "1000" in terminal.render(dataclasses.replace(result, summary=tuple(bare)), 100)
    assert "0.05" in terminal.render(synthetic(tmp_path, budgets=(0.05,), attacks=()), 100)
    assert "without noise" in terminal.render(dataclasses.replace(result, runs=(), summary=()), 100)


def test_the_table_of_contents_imports_neither_torch_nor_matplotlib():
    code = "import sys, evaluation.report; print({'torch', 'matplotlib', 'tensorboard'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_a_unit_of_privacy_is_named_where_there_is_some_and_seeds_where_there_are_several(tmp_path: Path):
    without = terminal.render(synthetic(tmp_path, budgets=(), seeds=(0,)), 100)
    assert "unit of privacy" not in without
    assert "Intervals are 95%, of one model each." in without
    assert "The unit of privacy is one example. Intervals" in " ".join(terminal.render(synthetic(tmp_path), 100).split())


def test_top_five_has_a_chance_of_its_own(tmp_path: Path):
    text = terminal.render(synthetic(tmp_path, attacks=(INVERSION,), classes=tuple("abcdefghijklmnopqrst")), 120)
    assert "identified, top 5 (chance 0.25)" in text
    assert "Class inversion (chance 0.05)" in text
    assert "judges (lowest–highest run): evaluator accuracy 0.96–0.96" in text
