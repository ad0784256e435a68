"""Several comparisons on one page: the same data share a chart and an account, others stand side by side."""

import dataclasses

import pytest

from evaluation.joined import document, joined
from evaluation.report import joined as view
from evaluation.result import ComparisonResult, to_json
from tests.evaluation.report_fixture import LIRA, synthetic
from tests.evaluation.test_report_page import ACCOUNT


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, ComparisonResult]]:
    root = tmp_path_factory.mktemp("joined")
    given = {"budgets": (8.0, 1.0), "seeds": (0,), "attacks": (LIRA,), "broken": False, "variants": ("non_private",)}
    first = dataclasses.replace(synthetic(root, **given), title="plain", ledger=(ACCOUNT,))
    second = dataclasses.replace(synthetic(root, **{**given, "budgets": (4.0,)}), title="regularized")
    other = dataclasses.replace(
        first, title="elsewhere", data={**first.data, "name": "others", "fingerprint": "77" * 32}, ledger=()
    )
    return [("runs/a", first), ("runs/b", second), ("runs/c", other)]


def test_data_are_told_by_their_content(three: list[tuple[str, ComparisonResult]]):
    found = joined(three)
    assert [(group.data, [member.name for member in group.members]) for group in found.groups] == [
        ("synthetic", ["plain", "regularized"]), ("others", ["elsewhere"]),
    ]  # fmt: skip
    assert found.groups[0].ledger == (ACCOUNT,)


def test_comparisons_of_one_title_are_told_by_their_folder(three: list[tuple[str, ComparisonResult]]):
    same = [(folder, dataclasses.replace(result, title="same")) for folder, result in three[:2]]
    assert [member.name for member in joined(same).groups[0].members] == ["runs/a", "runs/b"]


def test_splits_that_differ_are_warned_of(three: list[tuple[str, ComparisonResult]]):
    (folder, first), second, _ = three
    assert joined(three).groups[0].splits == "the same"
    other = tuple(dataclasses.replace(run, split_digest="cc" * 32) for run in first.runs)
    apart = joined([(folder, dataclasses.replace(first, runs=other)), second])
    assert apart.groups[0].splits == "not the same"
    assert "do not have the same members" in " ".join(view.table(apart, 120).split())
    later = tuple(dataclasses.replace(run, seed=run.seed + 5) for run in first.runs)
    assert joined([(folder, dataclasses.replace(first, runs=later)), second]).groups[0].splits == "no seed in common"


def test_the_page_has_every_answer_one_account_a_data_set_and_what_is_missing(three: list[tuple[str, ComparisonResult]]):
    page = view.render(joined(three), ["runs/d holds no <comparison>"])
    assert page == view.render(joined(three), ["runs/d holds no <comparison>"])
    assert page.count("At ε = ") >= 3
    assert page.count("stand in the ledger, with 42 entries") == 1
    assert page.count("These data are not in a ledger") == 1
    assert "runs/d holds no &lt;comparison&gt;" in page
    assert page.count("<svg") == 4
    assert page.count("<figure") == page.count('<figure role="img" aria-label="')
    assert len(page.encode()) < 2_000_000
    for words in ("plain", "regularized", "elsewhere", "DP, ε = 8", "DP, ε = 4"):
        assert words in page


def test_the_table_names_all_and_fits(three: list[tuple[str, ComparisonResult]]):
    text = view.table(joined(three), 100)
    assert max(map(len, text.splitlines())) <= 100
    for words in ("plain", "regularized", "elsewhere", "runs/b", "DP, ε = 4"):
        assert words in text


def test_as_json_it_has_answers_rows_and_what_was_not_read(three: list[tuple[str, ComparisonResult]]):
    made = document(joined(three), ["runs/d: gone"])
    assert [entry.folder for entry in made.comparisons] == ["runs/a", "runs/b", "runs/c"]
    assert made.comparisons[0].headline == three[0][1].headline
    assert made.ledger == (ACCOUNT,)
    assert '"not_read": [\n  "runs/d: gone"\n ]' in to_json(made)
