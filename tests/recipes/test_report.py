"""``dptrain report``: one run as ever, several as one page, and no folder that cannot be read loses the others."""

import json
from pathlib import Path

import pytest

from evaluation.result import ComparisonResult
from recipes import runs
from recipes.cli import main
from tests.evaluation.report_fixture import LIRA, synthetic


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs whose results are made up: ``a`` and ``b``, and a folder that is none."""
    made: dict[str, ComparisonResult] = {}
    for name in ("a", "b"):
        (tmp_path / name / "eps=08.00").mkdir(parents=True)
        (tmp_path / name / "comparison.toml").write_text("")
        made[name] = synthetic(tmp_path / name, budgets=(8.0,), seeds=(0,), attacks=(LIRA,), broken=False)
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(runs, "gather", lambda root: made[root.name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_are_a_table_and_a_page(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "a", "b", "--output", "out/both.html"]) == 0
    shown = capsys.readouterr()
    assert shown.out.rstrip().endswith("out/both.html")
    assert "(a)" in shown.out
    assert "2 comparisons" in (folder / "out/both.html").read_text()


def test_a_folder_that_is_no_run_is_named_and_the_others_are_joined(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "a", "notes", "b", "bb"]) == 1
    shown = capsys.readouterr()
    assert "notes holds no comparison.toml" in shown.err
    assert "there is no bb, so it is not a run; did you mean b?" in shown.err
    page = (folder / "runs/joined.html").read_text()
    assert "2 comparisons" in page
    assert "notes holds no comparison.toml" in page


def test_as_json_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "a", "notes", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [entry["folder"] for entry in found["comparisons"]] == ["a"]
    assert len(found["not_read"]) == 1
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["report"], "needs a run"),
        (["report", "notes", "gone"], "not a run"),
        (["report", "."], "there are some in it: type a b"),
        (["report", "a/eps=08.00"], "it is a part of one: type"),
        (["report", "a", "--with-leaks"], "--with-leaks goes with --shared"),
        (["report", "a", "b", "--shared"], "--shared is of one run"),
        (["report", "a", "--output", "x.html"], "--output is of several"),
        (["report", "a", "b", "--output", "both"], "'both'; give a name that ends in .html, such as runs/joined.html"),
        (["report", "a", "b", "--format", "json", "--output", "both.json"], "type > both.json behind it"),
        (["report", "a", "--share"], "did you mean --shared?"),
        (["report", "a", "--format"], "needs a value"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(folder: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_copy_for_others_stands_beside_the_report(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "a", "--format", "html", "--shared"]) == 0
    assert capsys.readouterr().out.strip() == "a/shared.html"
    assert "This copy is for others" in (folder / "a/shared.html").read_text()
