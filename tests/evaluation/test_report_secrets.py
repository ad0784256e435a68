"""What a language model says stands beside the secret in all three views, whatever characters it says."""

import dataclasses
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation.answered import with_answer
from evaluation.report import figures, html, tensorboard, terminal, wording
from evaluation.result import AttackResult, ComparisonResult, Measure, TextSample, read_run, write
from evaluation.summary import summarize
from tests.evaluation.report_fixture import synthetic

NASTY = "<b>&|`\n□"


def texts(bits: float) -> tuple[TextSample, ...]:
    known = TextSample(before="The PIN of Ada is ", secret="123456", said="123456", inserted=True, insertions=16, exposure=bits)
    other = TextSample(before="The PIN of Odo is ", secret="999999", said=NASTY, inserted=False, insertions=16, exposure=0.4)
    return known, other


def attacked(bits: float, private: bool) -> tuple[AttackResult, AttackResult]:
    exposure = AttackResult(
        name="extraction.exposure",
        status="ok",
        metric="exposure",
        value=bits,
        low=bits - 1,
        high=bits + 0.5,
        chance=1.4427,
        permitted=12.5 if private else None,
        access="scores",
        paper="Synthetic et al. 2003",
        verdict="within the plan" if private else "leak",
        metrics=(
            Measure(name="median_exposure_inserted_16", value=bits),
            Measure(name="exposure_never_inserted", value=1.5, low=0.8, high=3.5),
        ),
        texts=texts(bits),
    )
    found = dataclasses.replace(
        exposure,
        name="extraction.generation",
        metric="recovered",
        value=0.5,
        low=0.1,
        high=0.9,
        chance=1e-6,
        permitted=None,
        metrics=(Measure(name="recovered_inserted_1", value=0.0), Measure(name="count_email", value=3.0)),
        texts=tuple(dataclasses.replace(text, exposure=None, guess="654321") for text in texts(bits)),
    )
    return exposure, found


def with_secrets(root: Path) -> ComparisonResult:
    result = synthetic(root, budgets=(8.0, 2.0), variants=("non_private",), seeds=(0, 1), broken=False)
    bits = {float("inf"): 19.0, 8.0: 6.0, 2.0: 2.5}
    runs = tuple(
        dataclasses.replace(run, attacks=(*run.attacks, *attacked(bits[run.epsilon] + 0.1 * run.seed, run.variant == "dp")))
        for run in result.runs
    )
    return with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs)))


def test_bits_above_one_are_neither_cut_in_means_nor_in_charts(tmp_path: Path):
    result = with_secrets(tmp_path)
    found = wording.find(result.summary[0], "extraction.exposure/exposure")
    assert found is not None
    assert found.value is not None
    assert found.high is not None
    assert round(found.value, 6) == 19.05
    assert found.high > 19.05
    drawn = figures.tradeoff(result, "extraction.exposure/exposure")
    assert drawn.axes[0].get_ylim()[1] > 19.05
    assert "extraction.exposure/median_exposure_inserted_16" not in wording.measured_names(result)
    assert "extraction.generation/count_email" not in wording.measured_names(result)


def test_the_page_shows_what_is_said_as_text_and_never_as_markup(tmp_path: Path):
    page = html.render(with_secrets(tmp_path), tmp_path)
    assert page.count('aria-label="What the model says') == 3
    assert "&lt;b&gt;&amp;|`⏎□" in page
    assert "<b>" not in page
    assert page.count("<td>The PIN of Ada is </td>") == 3  # one row each: the first seed, both attacks together
    assert page.count("<code>654321</code>") == 6
    assert "exposure, most insertions, bits" in page.lower()
    assert "Of a made-up secret that stands in 16 examples the model gives away 19.1 bits (non-private; leak)" in page


def test_a_comparison_without_secrets_has_no_such_section(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(8.0,), seeds=(0,))
    assert "What the models say" not in html.render(result, tmp_path)
    assert "made-up secrets" not in terminal.render(result)


def test_the_terminal_has_a_line_for_a_secret_and_one_for_a_control(tmp_path: Path):
    lines = [line for line in terminal.render(with_secrets(tmp_path), 120).splitlines() if "The PIN of" in line]
    assert len(lines) == 6
    assert "19.0" in lines[0]
    assert "16×" in lines[0]
    assert "never" in lines[1]


def test_tensorboard_has_a_text_for_each_row(tmp_path: Path):
    tensorboard.write(with_secrets(tmp_path), tmp_path)
    events = EventAccumulator(str(tmp_path / "tradeoff")).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("What the models say")]
    assert len(tags) == 3
    content = events.Tensors(tags[0])[0].tensor_proto.string_val[0].decode()
    assert "| The PIN of Ada is  | `123456` | `123456` | 16× | 19.0 |" in content
    assert "`<b>&¦'⏎□`" in content
    bits = events.Scalars("tradeoff/extraction.exposure_exposure")
    assert [round(event.value, 2) for event in bits] == [2.55, 6.05]
    permitted = events.Scalars("tradeoff/extraction.exposure_exposure permitted")
    assert {event.value for event in permitted} == {12.5}


def test_texts_survive_the_file(tmp_path: Path):
    run = with_secrets(tmp_path).runs[0]
    write(run, tmp_path / "result.json")
    assert read_run(tmp_path / "result.json") == run
