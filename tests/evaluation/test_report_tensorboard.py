"""TensorBoard's view where a result is odd; `test_report.py` holds what every result promises."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from evaluation.report import tensorboard, wording
from evaluation.report.board import curves, trials, words
from evaluation.report.board.events import SUFFIX, Events
from evaluation.report.board.pictures import CELL, GAP, grid, roc
from evaluation.result import ComparisonResult
from tests.evaluation.report_fixture import STEP, THRESHOLD, synthetic


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four budgets, three seeds and three baselines, as this view writes them."""
    root = tmp_path_factory.mktemp("written")
    tensorboard.write(synthetic(root), root)
    return root


def small(root: Path, seeds: tuple[int, ...] = (0,)) -> ComparisonResult:
    """One budget and no baseline, which is quickly drawn."""
    return synthetic(root, budgets=(1.0,), seeds=seeds, variants=("non_private",), attacks=(THRESHOLD,), broken=False)


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def pictures(found: EventAccumulator) -> list[str]:
    """The tags of the Images tab."""
    return [tag for tag in found.Tags()["tensors"] if found.SummaryMetadata(tag).plugin_data.plugin_name == "images"]


def layout(folder: Path) -> list[tuple[str, list[str]]]:
    """Title and tags of every chart."""
    (event,) = events(folder).Tensors("custom_scalars__config__")
    made = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])  # pyright: ignore[reportAttributeAccessIssue]  made at run time
    return [
        (chart.title, [tag for series in chart.margin.series for tag in (series.value, series.lower, series.upper)])
        for category in made.category
        for chart in category.chart
    ]


def test_every_chart_is_one_band_whose_three_tags_exist_at_the_same_steps(written: Path):
    """With a second series TensorBoard says "Missing Tags" where none is missing, and at other steps it draws nothing."""
    found = events(written / "tradeoff")
    charts = layout(written / "tradeoff")
    assert all(" over ε (1k is ε = 1)" in title for title, _ in charts)
    for _, tags in charts:
        assert len(tags) == 3
        assert len({tuple(event.step for event in found.Scalars(tag)) for tag in tags}) == 1


def test_what_the_plan_permits_is_a_band_around_what_was_measured(written: Path):
    charts = [(title, tags) for title, tags in layout(written / "tradeoff") if "permits" in title]
    assert sum("LiRA" in title for title, _ in charts) == 2
    assert not any("accuracy" in title for title, _ in charts)
    found = events(written / "tradeoff")
    for _, (measured, chance, permitted) in charts:
        for low, value, high in zip(*(found.Scalars(tag) for tag in (chance, measured, permitted)), strict=True):
            assert low.value <= value.value <= high.value


def test_no_point_stands_for_training_without_privacy(written: Path):
    """A line on to a made-up ε would be read as measured: its figure is in the title, and the pictures show it by itself."""
    found = events(written / "tradeoff")
    steps = {event.step for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}
    assert steps == {1000, 2000, 4000, 8000}
    without = [title for title, _ in layout(written / "tradeoff") if title.startswith("test accuracy")]
    assert without == ["test accuracy over ε (1k is ε = 1); without privacy 0.936 [0.916, 0.951]"]


def test_the_interval_of_a_single_budget_which_has_no_band_stands_in_the_title(tmp_path: Path):
    result = small(tmp_path)
    made = Events(0.0)
    curves.draw(made, result)
    made.save(tmp_path / "alone")
    (title,) = [title for title, _ in layout(tmp_path / "alone") if title.startswith("test accuracy")]
    private = next(item for item in result.summary if item.variant == "dp")
    assert f"; at ε = 1 {wording.interval(private.utility)}; without privacy" in title


def test_a_comparison_without_budgets_has_pictures_and_trials_but_no_chart(tmp_path: Path):
    tensorboard.write(synthetic(tmp_path, budgets=()), tmp_path)
    found = events(tmp_path / "tradeoff")
    assert found.Tags()["scalars"] == []
    assert "1 over ε/1 test accuracy" in pictures(found)


def test_a_figure_that_was_not_measured_is_not_drawn(written: Path):
    scalars = events(written / "tradeoff").Tags()["scalars"]
    assert "tradeoff/membership.threshold_tpr_at_fpr_0.01" not in scalars


def test_a_metric_that_one_model_lacks_is_no_axis_of_the_trials(written: Path):
    """The parallel-coordinates view drops a trial that lacks one: here one model's LiRA failed."""
    content = events(written / "tradeoff").SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment  # pyright: ignore[reportAttributeAccessIssue]  made at run time
    metrics = {info.name.tag for info in experiment.metric_infos}
    assert metrics == {
        "test_accuracy",
        "membership.threshold/auc",
        "inversion.class/identified_top1",
        "inversion.class/identified_top5",
        "epsilon_spent",
    }
    assert {info.name for info in experiment.hparam_infos} == {"epsilon (64 = no DP)", "variant", "seed"}


def test_earlier_checkpoints_stand_at_their_own_step(written: Path):
    found = events(written / "eps=04.00" / "seed=1").Scalars("test_accuracy")
    assert [event.step for event in found] == [100, 200, STEP]


def test_one_picture_holds_the_reconstructions_of_all_budgets_and_a_missing_one_is_said(written: Path):
    found = events(written / "tradeoff")
    assert [name for name in pictures(found) if "inversion" in name and "2 closer" in name] == [
        "2 closer/2 by ε: Class inversion"
    ]
    (missing,) = found.Tensors("Reconstructions/inversion.class, DP, ε = 1/text_summary")
    assert b"missing" in missing.tensor_proto.string_val[0]


def test_what_is_alike_under_all_budgets_stands_once_at_the_left_of_the_grid():
    random = np.random.default_rng(0)
    members, small, large = (random.random((3, 8, 8)) for _ in range(3))
    figure = grid([("ε = 1", {"members": members, "found": small}), ("ε = 8", {"members": members, "found": large})], ["a"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["members", "ε = 1", "ε = 8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "1", "2"]
    drawn = np.asarray(axes.images[0].get_array())
    columns = [int(tick) for tick in axes.get_xticks()]
    for column, array in zip(columns, (members, small, large), strict=True):
        first = drawn[GAP : GAP + CELL, column - CELL // 2 : column + CELL // 2]
        assert np.allclose(first[3, 3], array[0, 0, 0])
        assert np.allclose(first[-3, -3], array[0, -1, -1])


def test_oblong_and_coloured_pictures_keep_their_shape_and_colour():
    picture = np.zeros((2, 4, 8, 3))
    picture[..., 0] = 1.0
    drawn = np.asarray(grid([("ε = 1", {"found": picture})], []).axes[0].images[0].get_array())
    red = (drawn == np.array([1.0, 0.0, 0.0])).all(axis=2)
    assert red.sum() == 2 * CELL * CELL // 2


def test_each_attack_has_its_roc_on_logarithmic_axes_with_an_interval_for_each_model(tmp_path: Path):
    result = synthetic(tmp_path)
    overlay = roc(result, "membership.lira")
    assert overlay is not None
    axes = overlay.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    bars = [line for line in axes.get_lines() if np.size(line.get_xdata()) == 2 and line.get_linewidth() == 2.5]
    assert len(bars) == 6  # of the seventh model the attack failed
    assert {tuple(np.asarray(line.get_ydata()).round(3)) for line in bars} == {(0.004, 0.09)}
    assert len({line.get_color() for line in bars}) == 6
    assert roc(result, "inversion.class") is None


def test_the_text_page_says_how_to_read_what_is_shown_and_what_not_to_conclude(written: Path):
    found = events(written / "tradeoff")
    cards = [tag for tag in found.Tags()["tensors"] if tag.startswith("2 How to read this/")]
    assert len(cards) == 4
    text = "\n".join(found.Tensors(card)[0].tensor_proto.string_val[0].decode() for card in cards)
    for said in ("these are ROC curves", "1k is ε = 1", "ε is shown as 64", "*within the plan*", "is no proof of safety"):
        assert said in text
    assert "Colours" not in text
    assert "switches all off" not in text


def test_many_runs_and_many_budgets_are_said(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(16.0, 8.0, 4.0, 2.0, 1.0), seeds=(3, 4, 5, 6, 7), attacks=(THRESHOLD,))
    text = words.how_to_read(result)["1 the tabs"]
    assert "**41 runs**" in text
    assert "`tradeoff|seed=3$`" in text
    assert "**Colours** repeat after 7 runs, and 8 budgets" in text


def test_what_stands_for_no_privacy_is_larger_than_every_budget(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(100.0, 1.0), seeds=(0,), attacks=())
    tensorboard.write(result, tmp_path)
    assert trials.axis(result) == "epsilon (128 = no DP)"
    assert events(tmp_path / "non_private" / "seed=0").Scalars("epsilon_spent")[0].value == 128
    assert "ε is shown as 128" in words.how_to_read(result)["1 the tabs"]


def test_first_seeds_are_listed_first_so_that_they_have_colours_of_their_own(written: Path):
    folders = {path.parent for path in written.rglob(f"*{SUFFIX}")}
    assert len(folders) == 22
    begun = {folder.relative_to(written).as_posix(): events(folder).FirstEventTimestamp() or 0.0 for folder in folders}
    listed = sorted(begun, key=lambda label: begun[label])
    assert listed[0] == "tradeoff"
    assert {label.split("/")[1] for label in listed[1:8]} == {"seed=0"}


def test_a_model_that_left_the_comparison_leaves_no_run_behind(tmp_path: Path):
    tensorboard.write(small(tmp_path, seeds=(0, 1)), tmp_path)
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 5
    tensorboard.write(small(tmp_path), tmp_path)
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events.out.tfevents.*")}
    assert folders == {"tradeoff", "eps=01.00/seed=0", "non_private/seed=0"}


def test_broken_files_of_others_and_of_an_earlier_crash_stop_nothing(tmp_path: Path):
    """Another writer's file is left as it is; what a crash left of this view's own is removed."""
    folder = tmp_path / "tradeoff"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1.other").write_bytes(b"\xff" * 1000)
    (folder / f"events.out.tfevents.1.killed{SUFFIX}").write_bytes(b"\x18\x00")
    tensorboard.write(small(tmp_path), tmp_path)
    assert (folder / "events.out.tfevents.1.other").read_bytes() == b"\xff" * 1000
    (mine,) = folder.glob(f"*{SUFFIX}")
    assert not list(tmp_path.rglob(".being_written*"))
    shutil.copy(mine, tmp_path / mine.name)
    assert events(tmp_path / mine.name).Scalars("tradeoff/test_accuracy")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The old file goes only when the new one is whole."""
    result = small(tmp_path)
    tensorboard.write(result, tmp_path)
    before = sorted(tmp_path.rglob(f"*{SUFFIX}"))

    def full(path: Path, content: bytes, meanwhile: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evaluation.report.board.events.write_file", full)
    with pytest.raises(OSError, match="No space"):
        tensorboard.write(result, tmp_path)
    assert sorted(tmp_path.rglob(f"*{SUFFIX}")) == before


def test_what_a_killed_writer_left_is_gone_after_the_next_one(tmp_path: Path):
    """Its name was of a process, or is a number now; TensorBoard reads neither, as no name of a run's own file is in it."""
    result = small(tmp_path)
    tensorboard.write(result, tmp_path)
    for name in (".being_written.4711", ".being_written.000000000000000001"):
        (tmp_path / "tradeoff" / name).write_bytes(b"half")
    tensorboard.write(result, tmp_path)
    assert not list(tmp_path.rglob(".being_written*"))


def test_the_permitted_roc_is_a_chart_of_its_own(written: Path):
    private = events(written / "eps=04.00" / "seed=0").Tags()["tensors"]
    assert "membership.lira, permitted (read as ROC)" in private
    assert "membership.lira, permitted (read as ROC)" not in events(written / "non_private" / "seed=0").Tags()["tensors"]
