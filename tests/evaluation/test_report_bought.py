"""What regularizers and budgets buy, in all three views: every row, every figure as it was computed, and no claim beyond it."""

import dataclasses
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf

from evaluation.report import bought, figures, html, tensorboard, terminal, wording
from evaluation.result import ComparisonResult, Measure
from tests.evaluation.report_fixture import LIRA, THRESHOLD, synthetic

ALONE = ("label_smoothing=0.1", "relax=0.3,relax_by=batch", "early_stopping=20")
NAMES = ("label smoothing 0.1", "RelaxLoss 0.3 by batch", "early stopping 20")


def small(root: Path, **fields) -> ComparisonResult:
    fields = {"budgets": (8.0,), "attacks": (THRESHOLD, LIRA), "broken": False, "regularizers": ALONE, **fields}
    return synthetic(root, **fields)


def test_every_row_is_named_by_its_option_in_every_view(tmp_path: Path):
    result = small(tmp_path)
    page, text, table = html.render(result, tmp_path), terminal.render(result, 120), bought.markdown(result.exchanges[0])
    for name in (*NAMES, "clip only", "DP, ε = 8"):
        assert f'<th scope="row" class="name">{name}</th>' in page
        assert f"\n{name} " in text
        assert f"| {name} |" in table
    assert "regularized" not in {wording.row_name(item) for item in result.summary}


def test_figures_are_the_results_own_in_every_view(tmp_path: Path):
    result = small(tmp_path)
    first = result.exchanges[0]
    page, text, table = html.render(result, tmp_path), terminal.render(result, 120), bought.markdown(first)
    assert first.attack == LIRA
    for row in first.rows:
        for shown in (bought.signed(row.accuracy_given_up, 1), bought.signed(row.auc_taken), bought.signed(row.auc_per_point)):
            assert shown in page
            assert shown in text
            assert shown in table
    assert "no budget of this comparison is as accurate" in page


def test_the_page_has_every_attacks_table_and_the_terminal_the_first(tmp_path: Path):
    result = small(tmp_path)
    page = html.render(result, tmp_path)
    assert page.count(f'aria-label="{bought.TITLE}') == 2
    assert "Under the other attacks (1)" in page
    assert terminal.render(result, 120).count(bought.TITLE) == 1


def test_a_raised_leak_is_in_the_answer_and_one_that_is_not_shown_is_not(tmp_path: Path):
    result = small(tmp_path)
    (sentence,) = bought.raised(result)
    assert "label smoothing 0.1" in sentence
    assert "RelaxLoss" not in sentence
    assert "early stopping" not in sentence
    assert sentence in html.render(result, tmp_path).replace("&#39;", "'")
    assert bought.raised(small(tmp_path / "mild", regularizers=(), variants=("non_private", "clip_only"))) == []


@pytest.mark.parametrize("variants", [("non_private",), ("clip_only",), ()])
def test_nothing_is_shown_where_nothing_stands_beside_the_non_private_row(tmp_path: Path, variants: tuple):
    result = small(tmp_path, budgets=(), variants=variants, regularizers=())
    assert bought.TITLE not in html.render(result, tmp_path)
    assert bought.TITLE not in terminal.render(result, 120)


def test_a_table_fits_a_narrow_terminal(tmp_path: Path):
    text = terminal.render(small(tmp_path), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "DP's AUC at equal accuracy" in text


@pytest.mark.parametrize(
    ("measure", "shown"),
    [
        (Measure(name="", value=-0.0389, low=-0.0561, high=-0.0218), "−0.039 [−0.056, −0.022]"),
        (Measure(name="", value=-0.0001, low=-0.0011, high=0.0004), "0.000 [−0.001, 0.000]"),
        (Measure(name="", value=0.0389), "0.039"),
        (Measure(name="", value=None, note="raises the leak"), "–"),
    ],
)
def test_a_difference_has_its_sign_and_zero_has_none(measure: Measure, shown: str):
    assert bought.signed(measure) == shown


def test_an_attack_that_gets_more_from_the_row_is_named(tmp_path: Path):
    first = small(tmp_path).exchanges[0]
    row = dataclasses.replace(first.rows[0], stronger=THRESHOLD)
    assert bought.cells(first, row)[0].text.endswith("; Membership, loss threshold gets more")


def test_tensorboard_keeps_regularizers_apart(tmp_path: Path):
    """Trials by their option, the table on the Text tab."""
    result = small(tmp_path)
    tensorboard.write(result, tmp_path)
    found = EventAccumulator(str(tmp_path / "tradeoff"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    for name in ALONE:
        trial = EventAccumulator(str(tmp_path / f"regularized-{name}" / "seed=0")).Reload()
        plugin = trial.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert HParamsPluginData.FromString(plugin).session_start_info.hparams["variant"].string_value == f"regularized-{name}"
    (table,) = found.Tensors(f"{bought.TITLE}/{LIRA}/text_summary")
    assert "RelaxLoss 0.3 by batch" in table.tensor_proto.string_val[0].decode()


def test_drawings_tell_regularizers_apart(tmp_path: Path):
    result = small(tmp_path)
    figure = figures.tradeoff(result, f"{LIRA}/auc")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert set(NAMES) <= set(labels)
    curves = figures.roc(result, LIRA)
    assert curves is not None
    assert set(NAMES) <= {str(line.get_label()) for line in curves.axes[0].lines}
