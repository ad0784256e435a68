"""The page where a result is odd; `test_report.py` holds what every result promises."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from evaluation.answered import with_answer
from evaluation.report import figures, html, wording
from evaluation.summary import summarize
from tests.evaluation.report_fixture import INVERSION, LIRA, STEP, THRESHOLD, synthetic


class Words(HTMLParser):
    """What a reader sees, headings apart."""

    def __init__(self, text: str):
        super().__init__()
        self.headings: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the usual result, drawn once for all tests that only read it."""
    root = tmp_path_factory.mktemp("usual")
    return html.render(synthetic(root), root)


def test_the_parts_stand_in_the_order_in_which_they_are_needed(usual: str):
    headings = Words(usual).headings
    assert headings[1:] == [
        "The trade-off",
        "Worth more and gives away less",
        "What attacks get",
        "Each attack by itself",
        "What each regularizer and each budget buys",
        "Baselines and controls",
        "ROC of the membership attacks",
        "Reconstructions",
        "What is promised",
        "What these data have spent",
        "What was not tested",
        "What is not covered",
        "How to get this again",
    ]


def test_every_verdict_that_is_shown_is_defined(usual: str):
    defined = set(re.findall(r">([^<]+)</dfn></dt>", usual))
    assert {"leak", "within the plan", "found nothing", "nothing beyond public", "failed", "not applicable"} <= defined


def test_every_budget_stands_beside_its_unit_its_relation_and_both_accountants(usual: str):
    for budget in ("8", "4", "2", "1"):
        assert f"ε = {budget}, δ = 0.0001, for one example (add or remove one)" in usual
    assert usual.count("(reported)") == usual.count("(cross-check)") == 4


def test_every_drawing_is_well_formed_and_described(usual: str):
    drawings = re.findall(r"<svg.*?</svg>", usual, flags=re.DOTALL)
    # accuracy, two AUC, one rate (the other was refused), two of an inversion; two ROC; membership and inversion against worth
    assert len(drawings) == 10
    for drawing in drawings:
        ET.fromstring(drawing)
    assert usual.count('<figure role="img" aria-label="') == len(drawings)


def test_an_attack_that_applies_to_no_model_is_one_sentence_and_no_table(usual: str):
    assert usual.count("extraction.secrets") == 1
    assert "FAILED: membership.lira on eps=08.00/seed=0" in usual


def test_a_curve_of_another_seed_says_so(tmp_path: Path):
    """The first seed's LiRA failed at ε = 8, so that budget shows the next seed's curve."""
    figure = figures.roc(synthetic(tmp_path), LIRA)
    assert figure is not None
    (axes,) = figure.axes
    labels = [str(line.get_label()) for line in axes.lines]
    assert [label for label in labels if "seed" in label] == ["DP, ε = 8, seed 1"]
    assert axes.get_title(loc="left").endswith("seed 0")


def test_what_each_plan_permits_is_drawn_in_its_models_colour(tmp_path: Path):
    """Rule 15: an ROC is read beside the curve of its plan; a model without a guarantee has none."""
    figure = figures.roc(synthetic(tmp_path, budgets=(4.0, 1.0), variants=("non_private",)), THRESHOLD)
    assert figure is not None
    (axes,) = figure.axes
    found = {str(line.get_label()): line for line in axes.lines}
    permitted = [line for line in axes.lines if "permitted" in str(line.get_label()) or str(line.get_label()).startswith("_")]
    assert len(permitted) == 2
    assert [line.get_color() for line in permitted] == [found[f"DP, ε = {budget}"].get_color() for budget in (4, 1)]
    for line, shift in zip(permitted, (2.0, 0.5), strict=True):
        false, true = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert np.interp(0.1, false, true) == pytest.approx(norm.cdf(shift + norm.ppf(0.1)), abs=0.01)


def test_names_that_look_like_mathematics_or_markup_are_plain_text(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(2.0,), seeds=(0,), classes=("$x^{2", "<script>", "\\frac$", "$$"))
    result = dataclasses.replace(result, title="$\\alpha & <script>", versions={"<b>": "</code><script>"})
    text = html.render(result, tmp_path)
    assert text.count("<script>") == 1  # the page's own
    assert "$\\alpha &amp; &lt;script&gt;" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not an archive"])
def test_a_damaged_picture_breaks_nothing(tmp_path: Path, content: bytes):
    result = synthetic(tmp_path, budgets=(2.0,), seeds=(0,), variants=())
    (tmp_path / "eps=02.00/seed=0/evaluation" / f"step={STEP:06d}" / f"{INVERSION}.npz").write_bytes(content)
    assert "The picture file is missing." in html.render(result, tmp_path)


def test_more_classes_than_fit_are_counted(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(2.0,), seeds=(0,), variants=(), classes=tuple(f"c{index}" for index in range(30)))
    assert "the first 12 of 30 classes" in html.render(result, tmp_path)


def test_more_pictures_than_names_are_numbered(tmp_path: Path):
    rows = {label: np.zeros((4, 8, 8, 3)) for label in ("members", "found", "public")}
    figure = figures.pictures(rows, ["cat"])
    assert [axes.get_title() for axes in figure.axes[:4]] == ["cat", "1", "2", "3"]


def test_the_page_stays_small_with_a_dozen_budgets_and_three_seeds(tmp_path: Path):
    budgets = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 100.0, 1000.0)
    text = html.render(synthetic(tmp_path, budgets=budgets), tmp_path)
    assert len(text.encode()) < 2_000_000
    for budget in budgets:
        assert f"DP, ε = {budget:g}</th>" in text


def test_a_result_without_facts_of_its_data_is_shown(tmp_path: Path):
    result = dataclasses.replace(synthetic(tmp_path, attacks=()), data={})
    assert "not stated" in html.render(result, tmp_path)
    nothing = with_answer(dataclasses.replace(result, runs=(), summary=(), checkpoints=()))
    assert "No model was trained" in html.render(nothing, tmp_path)


def test_the_verdict_stands_before_the_figures_and_distances_are_folded_beside_those_without_a_model(tmp_path: Path):
    result = synthetic(tmp_path, attacks=(INVERSION,), seeds=(0,), classes=tuple("abcdefghijklmnopqrst"))
    page = html.render(result, tmp_path)
    table = page[page.index("<summary>Class inversion") :]
    assert re.findall(r'<th scope="col">([^<]*)</th>', table)[:5] == [
        "Model", "Verdict", "Test accuracy", "identified", "identified, top 5",
    ]  # fmt: skip
    assert "Chance: 0.05, of identified, top 5 0.25. Evaluator accuracy 0.96 to 0.96." in table
    folded = table[table.index("<details>") : table.index("</details>")]
    assert "public mean, without a model</th><td>0.277</td>" in folded
    assert "distance to private mean" in folded
    assert "distance to private mean" not in table[: table.index("<details>")]


def test_attacks_whose_settings_saw_some_of_the_people_say_so(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(8.0,), attacks=(INVERSION,), seeds=(0,), variants=("non_private",))
    prior = tuple(
        dataclasses.replace(run, attacks=(*run.attacks, dataclasses.replace(run.attacks[0], name="inversion.prior")))
        for run in result.runs
    )
    faces = dataclasses.replace(result, runs=prior, summary=summarize(prior), data={**result.data, "name": "faces"})
    assert html.render(faces, tmp_path).count("were chosen on models of other halves of the same forty people") == 1
    assert "same forty people" not in html.render(dataclasses.replace(faces, data=result.data), tmp_path)


def test_one_of_a_thousand_is_no_chance_of_nothing(tmp_path: Path):
    result = synthetic(
        tmp_path, budgets=(8.0,), seeds=(0,), variants=(), attacks=(INVERSION,), classes=tuple(map(str, range(1000)))
    )
    page = html.render(result, tmp_path)
    assert "Chance: 0.001, of identified, top 5 0.005." in page


def test_what_one_budget_permits_is_drawn_too(tmp_path: Path):
    figure = figures.tradeoff(synthetic(tmp_path, budgets=(8.0,)), f"{LIRA}/auc")
    (line,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "permitted by the plan"]
    assert np.asarray(line.get_xdata()).shape == (1,)
    assert line.get_marker() not in ("", "None", None)


def test_the_answer_says_out_of_how_many_inversions_it_took_the_best(tmp_path: Path):
    result = synthetic(tmp_path, attacks=(INVERSION,), broken=False)
    assert not any("inversions" in sentence for sentence in wording.findings(result))
    several = tuple(
        dataclasses.replace(run, attacks=(*run.attacks, dataclasses.replace(run.attacks[0], name="inversion.prior")))
        for run in result.runs
    )
    said = wording.findings(dataclasses.replace(result, runs=several, summary=summarize(several)))
    assert ", the best of 2 inversions, draws them" in said[0]
