"""TensorBoard's view where a result is odd; `test_report.py` holds what every result promises."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from evaluation.report import tensorboard
from tests.evaluation.report_fixture import STEP, synthetic


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def layout(folder: Path) -> list[tuple[str, list[str]]]:
    """Title and tags of every chart."""
    (event,) = events(folder).Tensors("custom_scalars__config__")
    made = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])  # pyright: ignore[reportAttributeAccessIssue]  made at run time
    return [
        (chart.title, [tag for series in chart.margin.series for tag in (series.value, series.lower, series.upper)])
        for category in made.category
        for chart in category.chart
    ]


def test_every_chart_is_one_band_whose_three_tags_exist(tmp_path: Path):
    """With a second series in a chart TensorBoard says "Missing Tags" where none is missing."""
    tensorboard.write(synthetic(tmp_path), tmp_path)
    scalars = set(events(tmp_path / "tradeoff").Tags()["scalars"])
    charts = layout(tmp_path / "tradeoff")
    assert {title.split(" over ")[1] for title, _ in charts} == {"epsilon (64 = no DP)"}
    for _, tags in charts:
        assert len(tags) == 3
        assert set(tags) <= scalars


def test_what_the_plan_permits_is_a_chart_of_its_own(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    titles = [title for title, _ in layout(tmp_path / "tradeoff")]
    assert sum("LiRA" in title and "permitted" in title for title in titles) == 2
    assert not any("accuracy" in title and "permitted" in title for title in titles)


def test_baselines_are_series_of_their_own(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    found = events(tmp_path / "tradeoff")
    for variant in ("clip_only", "regularized"):
        assert [event.step for event in found.Scalars(f"tradeoff/membership.lira_auc {variant}")] == [64000]


def test_a_figure_that_was_not_measured_is_not_drawn(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    scalars = events(tmp_path / "tradeoff").Tags()["scalars"]
    assert "tradeoff/membership.threshold_tpr_at_fpr_0.01" not in scalars


def test_a_metric_that_one_model_lacks_is_no_axis_of_the_trials(tmp_path: Path):
    """The parallel-coordinates view drops a trial that lacks one: here one model's LiRA failed."""
    tensorboard.write(synthetic(tmp_path), tmp_path)
    content = events(tmp_path / "tradeoff").SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment  # pyright: ignore[reportAttributeAccessIssue]  made at run time
    metrics = {info.name.tag for info in experiment.metric_infos}
    assert metrics == {
        "test_accuracy",
        "membership.threshold/auc",
        "inversion.class/identified_top1",
        "inversion.class/identified_top5",
    }
    assert {info.name for info in experiment.hparam_infos} == {"epsilon (64 = no DP)", "variant", "seed"}


def test_earlier_checkpoints_stand_at_their_own_step(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    found = events(tmp_path / "eps=04.00" / "seed=1").Scalars("test_accuracy")
    assert [event.step for event in found] == [100, 200, STEP]


def test_every_budget_has_its_pictures_and_a_missing_one_is_said(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    found = events(tmp_path / "tradeoff")
    pictured = {tag.removeprefix("inversion.class/") for tag in found.Tags()["images"]}
    assert pictured == {"eps=08.00", "eps=04.00", "eps=02.00", "non_private", "clip_only", "regularized"}
    (missing,) = found.Tensors("inversion.class/eps=01.00/text_summary")
    assert b"missing" in missing.tensor_proto.string_val[0]


def test_the_text_page_says_that_pr_curves_are_roc_curves(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    (page,) = events(tmp_path / "tradeoff").Tensors("How to read this/text_summary")
    assert b"these are ROC curves" in page.tensor_proto.string_val[0]


def test_the_permitted_roc_is_a_chart_of_its_own(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path), tmp_path)
    private = events(tmp_path / "eps=04.00" / "seed=0").Tags()["tensors"]
    assert "membership.lira, permitted (read as ROC)" in private
    assert "membership.lira, permitted (read as ROC)" not in events(tmp_path / "non_private" / "seed=0").Tags()["tensors"]
