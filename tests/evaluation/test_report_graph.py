"""What a graph is worth and what of its edges is told stands in the answer, and no picture is spoken of where there is none."""

import dataclasses
import math
from pathlib import Path

from evaluation.answered import with_answer
from evaluation.report import html, terminal, wording
from evaluation.result import AttackResult, ComparisonResult, Measure
from evaluation.summary import summarize
from tests.evaluation.report_fixture import synthetic


def measure(name: str, value: float) -> Measure:
    return Measure(name=name, value=value, low=value - 0.02, high=value + 0.02)


def with_links(root: Path) -> ComparisonResult:
    result = synthetic(root, budgets=(8.0, 2.0), variants=("non_private",), seeds=(0, 1), broken=False)
    area, gained = {math.inf: 0.95, 8.0: 0.85, 2.0: 0.5}, {math.inf: 0.06, 8.0: 0.03, 2.0: 0.01}

    def attack(epsilon: float) -> AttackResult:
        return AttackResult(
            name="link.influence",
            status="ok",
            metric="auc",
            value=area[epsilon],
            low=area[epsilon] - 0.02,
            high=area[epsilon] + 0.02,
            chance=0.5,
            access="scores",
            paper="Synthetic et al. 2003",
            verdict="leak",
            metrics=(
                measure("auc_above_features", area[epsilon] - 0.8),
                measure("auc_in_graph", 0.5),
                measure("auc_cosine", 0.7),
            ),
            baselines=(measure("features", 0.8),),
        )

    def worth(epsilon: float) -> dict[str, float]:
        name = "accuracy_by_the_graph"
        ends = {f"{name}_low": gained[epsilon] - 0.02, f"{name}_high": gained[epsilon] + 0.02}
        return {"accuracy_without_the_graph": 0.7, name: gained[epsilon], **ends}

    runs = tuple(
        dataclasses.replace(run, attacks=(*run.attacks, attack(run.epsilon)), utility={**run.utility, **worth(run.epsilon)})
        for run in result.runs
    )
    return with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs)))


def test_the_answer_says_what_the_graph_is_worth_and_where_that_is_not_shown(tmp_path: Path):
    said = " ".join(wording.findings(with_links(tmp_path)))
    assert "more accurate by +6.0 points (non-private), +3.0 points (DP, ε = 8), +1.0 points (DP, ε = 2)." in said
    assert "It is not shown to be worth anything at DP, ε = 2." in said


def test_the_answer_says_how_well_edges_are_told_beside_features_alone(tmp_path: Path):
    said = " ".join(wording.findings(with_links(tmp_path)))
    assert "AUC of 0.950 (non-private; leak), 0.850 (DP, ε = 8; leak), 0.500 (DP, ε = 2; found nothing)" in said
    assert "features alone, without a model, have 0.800" in said


def test_an_attack_on_links_is_no_membership_attack(tmp_path: Path):
    result = with_links(tmp_path)
    for sentence in [*wording.answer(result), *wording.findings(result)]:
        assert not ("membership" in sentence and "Links" in sentence)


def test_figures_without_a_chart_are_called_pictures_only_where_they_are_of_pictures(tmp_path: Path):
    result = with_links(tmp_path)
    html.write(result, tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Links, from influence (LinkTeller): further figures" in page
    assert "Links, from influence (LinkTeller): how near the pictures come" not in page
    assert "AUC by cosine distance" in page
    assert "AUC by cosine distance" not in terminal.render(result)
