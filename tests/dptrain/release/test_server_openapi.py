"""The server and its description agree: requests made from it, good and bad ones, are answered as it says."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.dptrain.release import served

pytest.importorskip("schemathesis")

KINDS: dict[str, Callable[[Path], Path]] = {
    "digits": lambda folder: served.digits(folder, input_shape=[3]),
    "dose": served.dose,
    "text": served.text,
    "words": served.words,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_from_the_description_is_answered_as_it_says(tmp_path: Path, kind: str):
    """Every check of schemathesis: no 5xx, known statuses and content types, answers of the stated form, bad data refused, good
    data accepted, no way round the key, no method that is not stated."""
    changes, _, owner = served.keyed(tmp_path, max_batch=3)
    app = served.app_of(KINDS[kind](tmp_path / "release"), guard_text=None if kind == "dose" else "top3-rounded", **changes)
    with served.serving(app) as address:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", "all"]
        command += [
            "-H",
            f"Authorization: Bearer {owner}",
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "60",
            "--seed",
            "1",
        ]
        done = subprocess.run([*command, "--no-color"], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        counted = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {owner}"}).text
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Operations:       6 selected / 6 total" in done.stdout
    assert 'page="/v1/predict",status="200"' in counted
    assert 'page="/v1/predict",status="422"' in counted
    assert 'status="5' not in counted


def test_the_description_states_the_bounds_and_the_shape_by_which_requests_are_refused(tmp_path: Path):
    app = served.app_of(served.digits(tmp_path / "release"))
    document = app.openapi()
    request = document["components"]["schemas"]["Request"]
    rows = request["properties"]["inputs"]
    assert rows["maxItems"] == 256
    assert (rows["items"]["minItems"], rows["items"]["items"]["maxItems"]) == (8, 8)
    assert rows["items"]["items"]["items"]["maximum"] == pytest.approx(1.0, abs=1e-5)
    assert "security" not in document["paths"]["/v1/predict"]["post"]
    assert document["paths"]["/v1/statistics"]["get"]["security"] == [{"key": []}]
