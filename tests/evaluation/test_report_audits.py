"""Audits in the three views: the bound stands beside its ceiling, an estimate is no bound, a refuted claim is said first."""

import dataclasses
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation.report import html, tensorboard, terminal, wording
from evaluation.result import ComparisonResult, read_comparison, write
from tests.evaluation.report_fixture import THRESHOLD, audited, synthetic


def small(root: Path) -> ComparisonResult:
    """The budgets that were audited, one seed and one attack: audits stand apart from what attacks find."""
    return synthetic(root, budgets=(4.0, 1.0), seeds=(0,), variants=("non_private",), attacks=(THRESHOLD,), broken=False)


def test_the_page_shows_bounds_beside_their_ceilings_and_no_estimate(tmp_path: Path):
    page = html.render(audited(small(tmp_path)), tmp_path)
    assert "What audits could show of it" in page
    assert "ε ≥ 1.234" in page
    assert "5.678" in page
    assert "9.876" not in page
    assert page.index("What is promised") < page.index("What audits could show of it") < page.index("What is not covered")
    assert "What audits could show of it" not in html.render(small(tmp_path), tmp_path)


def test_a_refuted_claim_is_named_in_every_view_that_has_text(tmp_path: Path):
    result = audited(small(tmp_path))
    sentence = "ε = 1: a white-box audit refutes the claim: the noise is not what the plan states"
    assert wording.contradicted(result) == [sentence]
    assert sentence in html.render(result, tmp_path)
    text = terminal.render(result, 120)
    assert f"CONTRADICTED: {sentence}" in text
    assert text.count("not contradicted") == 1


def test_the_terminal_says_what_was_seen_of_the_mechanism(tmp_path: Path):
    _, broken = audited(small(tmp_path)).audits
    assert "stated 1, seen 0.5 [0.49, 0.51]: BROKEN" in terminal.audit(broken)


def test_tensorboard_draws_claim_bound_and_ceiling_over_the_budgets(tmp_path: Path):
    tensorboard.write(audited(small(tmp_path)), tmp_path)
    events = EventAccumulator(str(tmp_path / "tradeoff"))
    events.Reload()
    drawn = {
        part: [(item.step, round(item.value, 3)) for item in events.Scalars(f"audit/white-box, any mechanism {part}")]
        for part in ("claimed", "shown", "ceiling")
    }
    assert drawn["claimed"] == [(1000, 0.999), (4000, 3.999)]
    assert drawn["shown"] == [(1000, 1.234), (4000, 1.234)]
    assert drawn["ceiling"] == [(1000, 5.678), (4000, 5.678)]


def test_a_ceiling_that_is_not_there_is_a_dash_in_text_and_no_point_in_a_chart(tmp_path: Path):
    result = audited(small(tmp_path))
    fine, broken = result.audits
    endless = dataclasses.replace(fine, bounds=(dataclasses.replace(fine.bounds[0], ceiling=None),))
    result = dataclasses.replace(result, audits=(endless, broken))
    assert "<td>–</td>" in html.render(result, tmp_path)
    assert "–" in next(line for line in terminal.render(result, 120).splitlines() if "not contradicted" in line)
    tensorboard.write(result, tmp_path)
    events = EventAccumulator(str(tmp_path / "tradeoff"))
    events.Reload()
    assert [item.step for item in events.Scalars("audit/white-box, any mechanism ceiling")] == [1000]
    write(result, tmp_path / "results.json")
    assert read_comparison(tmp_path / "results.json").audits[0].bounds[0].ceiling is None


def test_audits_are_read_back_as_they_were_written(tmp_path: Path):
    result = audited(small(tmp_path))
    write(result, tmp_path / "results.json")
    assert read_comparison(tmp_path / "results.json").audits == result.audits
