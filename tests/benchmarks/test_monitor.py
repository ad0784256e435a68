"""The monitor against the project's own attacks, and the wolf that it does not cry."""

from pathlib import Path

import pytest

from tests.benchmarks.monitor import Row, of_digits, of_text

UNSEEN = {"membership.threshold"}
"""One query an example, and all of them benign: there is nothing to see."""
EARLY = 0.05


def judged(rows: list[Row], alarms: dict) -> None:
    assert alarms["alarms"] <= 0.01 * alarms["sessions"]
    for row in rows:
        if row.attack in UNSEEN:
            assert row.flagged is None
        else:
            assert row.flagged is not None, row
            assert row.flagged <= EARLY * row.queries, row


@pytest.mark.slow
def test_attacks_on_digits_are_flagged_early_and_benign_sessions_are_not():
    judged(*of_digits(10))


@pytest.mark.slow
def test_attacks_on_a_language_model_are_flagged_early_and_benign_sessions_are_not(shared_data: Path):
    judged(*of_text(10, shared_data))
