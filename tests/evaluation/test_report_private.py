"""The page of members that leak holds them, and the report that is handed on does not."""

import base64
import dataclasses
import io
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dptrain.data.dataset import DataSet
from evaluation.membership import gallery
from evaluation.membership.vulnerability import by_chance, exposure, vulnerability
from evaluation.report import html, private, tensorboard, terminal
from evaluation.result import ComparisonResult, read_comparison, write
from evaluation.summary import summarize
from tests.evaluation.report_fixture import synthetic
from tests.evaluation.test_report import Page, browser_page

FIRST = 7_654_000
"""Index of the first audited example: a number that nothing else on a page is."""
SECRET = "Zebedee"


def pictures(channels: int = 1, side: int = 8) -> DataSet:
    pixels = torch.rand((60, channels, side, side), generator=torch.Generator().manual_seed(0)) - 0.5
    return DataSet("drawn", pixels, torch.arange(60) % 3, ("zero", "<one>", "two"), (-0.5, 0.5))


def rows() -> DataSet:
    inputs = torch.rand((60, 2), generator=torch.Generator().manual_seed(0)).round()
    inputs[:, 1] = 1 - inputs[:, 0]
    columns = (f"name:category[{SECRET},<b>Ann]",)
    return DataSet("people", inputs, torch.arange(60) % 2, ("no", "yes"), (0.0, 1.0), kind="table", columns=columns)


def compared(root: Path, data: DataSet, **wanted: object) -> ComparisonResult:
    """A comparison whose runs kept their examples; under DP nothing leaks."""
    result = synthetic(root, broken=False, **wanted)  # pyright: ignore[reportArgumentType]  passed on
    runs = []
    for run in result.runs:
        generator = np.random.default_rng(run.seed)
        inside = generator.random((64, 60)) < 0.5
        signals = generator.normal(size=inside.shape) + 4.0 * inside * (np.arange(60) < 12) * (run.variant != "dp")
        found = vulnerability(signals, inside, np.arange(60), np.arange(60) % 2 == 0)
        digest = f"weights of {run.label}"
        kept = gallery.choose(found, data, release_digest=digest)
        kept = dataclasses.replace(kept, index=kept.index + FIRST)
        gallery.save(kept, root / run.label / "private" / gallery.name_of(run.step))
        spread = exposure(found, by_chance(signals, inside, draws=20), 0.05 if run.variant == "dp" else None)
        runs.append(dataclasses.replace(run, release_digest=digest, exposure=spread))
    return dataclasses.replace(result, runs=tuple(runs), summary=summarize(tuple(runs)))


def images_of(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in found]


def test_the_page_holds_the_members_own_pictures_and_says_that_it_is_private(tmp_path: Path):
    data = pictures()
    result = compared(tmp_path, data, budgets=(1.0,), variants=("non_private", "regularized"))
    path = tmp_path / "private" / "vulnerable.html"
    assert private.write(result, tmp_path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text(encoding="utf-8")
    assert "PRIVATE. Do not publish." in text
    shown = images_of(text)
    assert len(shown) == 3 * 3 * gallery.SHOWN
    own = (np.rint((data.inputs[:, 0].numpy() + 0.5) * 255)).astype(np.uint8)
    assert all(any(np.array_equal(picture, one) for one in own) for picture in shown)
    first = int(re.findall(r"example (\d+)", text)[0]) - FIRST
    assert np.array_equal(shown[0], own[first])
    assert "<strong>6</strong> of 30 members are flagged" in text
    assert "None of 30 members is flagged: the order below is one that chance gives." in text
    assert text.count('class="flagged"') >= 2 * 6


def test_a_tables_members_are_rows(tmp_path: Path):
    text = private.render(compared(tmp_path, rows(), budgets=(1.0,), variants=("non_private",)), tmp_path)
    assert text is not None
    assert '<th scope="col">name</th>' in text
    assert f"<td>{SECRET}</td>" in text
    assert "<td>&lt;b&gt;Ann</td>" in text
    assert images_of(text) == []


@pytest.mark.parametrize("data", [pictures(), rows()], ids=["pictures", "rows"])
def test_what_is_handed_on_holds_no_example_and_no_index(tmp_path: Path, data: DataSet):
    result = compared(tmp_path, data, budgets=(1.0,), variants=("non_private",), seeds=(0,))
    private.write(result, tmp_path)
    page = private.render(result, tmp_path)
    html.write(result, tmp_path, tmp_path / "report.html")
    write(result, tmp_path / "results.json")
    tensorboard.write(result, tmp_path)
    kept = gallery.load(tmp_path / result.runs[0].label / "private" / gallery.name_of(result.runs[0].step))
    secrets = [str(index) for index in kept.index] + ["765400", SECRET]
    secrets += re.findall(r'src="data:image/png;base64,([^"]+)"', page or "")
    assert any(secret in (page or "") for secret in secrets)
    shared = [path for path in tmp_path.rglob("*") if path.is_file() and "private" not in path.relative_to(tmp_path).parts]
    assert {"report.html", "results.json"} <= {path.name for path in shared}
    for path in shared:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    assert SECRET not in terminal.render(result, 100)
    assert read_comparison(tmp_path / "results.json") == result


def test_the_report_shows_how_the_leak_is_spread_and_where_the_examples_are(tmp_path: Path):
    result = compared(tmp_path, pictures(), budgets=(1.0,), variants=("non_private",))
    text = html.render(result, tmp_path)
    assert "once `dptrain evaluate RUN`" in text
    private.write(result, tmp_path)
    text = html.render(result, tmp_path)
    assert "Which examples these are is shown on another page, private/vulnerable.html" in text
    non_private = next(item.exposure for item in result.summary if item.variant == "non_private")
    assert non_private is not None
    assert non_private.examples == 180
    assert non_private.flagged.value == pytest.approx(0.2, abs=0.03)
    assert f"<td>{non_private.flagged.value:.3f} [" in text
    assert "permitted own TPR: 0.050" in text
    assert text.count('<h2 id="leaks">Which examples leak</h2>') == 1


def test_runs_of_before_have_no_page_and_report_as_they_did(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(1.0,), variants=("non_private",), seeds=(0,))
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "vulnerable.html").write_text("of an earlier evaluation")
    assert private.write(result, tmp_path) is None
    assert not (tmp_path / "private" / "vulnerable.html").exists()
    assert "Which examples leak" not in html.render(result, tmp_path)


def test_a_missing_damaged_or_foreign_file_is_a_sentence_and_breaks_nothing(tmp_path: Path):
    result = compared(tmp_path, pictures(), budgets=(4.0, 2.0, 1.0), variants=("non_private",), seeds=(0,))

    def path(label: str) -> Path:
        run = next(run for run in result.runs if run.label == label)
        return tmp_path / label / "private" / gallery.name_of(run.step)

    path("eps=04.00/seed=0").unlink()
    path("eps=02.00/seed=0").write_bytes(b"PK\x03\x04 cut short")
    path("eps=01.00/seed=0").write_bytes(path("non_private/seed=0").read_bytes())
    text = private.render(result, tmp_path)
    assert text is not None
    for word in ("is missing; type", "is not whole", "is of other weights than the result"):
        assert text.count(word) == 1
    assert len(images_of(text)) == 3 * gallery.SHOWN


def test_the_first_seed_that_kept_its_examples_stands_for_its_budget(tmp_path: Path):
    result = compared(tmp_path, pictures(), budgets=(), variants=("non_private",))
    (tmp_path / "non_private/seed=0/private" / gallery.name_of(result.runs[0].step)).unlink()
    text = private.render(result, tmp_path)
    assert text is not None
    assert "non-private, seed 1</h2>" in text
    assert "is missing" not in text


@pytest.mark.parametrize("data", [pictures(), pictures(3, 96), rows()], ids=["grey", "colour", "rows"])
def test_the_page_stands_alone_is_well_formed_and_small(tmp_path: Path, data: DataSet):
    budgets = tuple(float(2**power) for power in range(-3, 9))
    text = private.render(compared(tmp_path, data, budgets=budgets, seeds=(0,)), tmp_path)
    assert text is not None
    page = Page(text)
    assert (page.open, page.scripts) == ([], 0)
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "<b>Ann" not in text
    assert "<one>" not in text
    assert len(text.encode()) < 2_000_000


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("data", [pictures(), rows()], ids=["pictures", "rows"])
def test_the_page_fits_a_screen_and_a_phone(tmp_path: Path, width: int, data: DataSet):
    private.write(compared(tmp_path, data, seeds=(0,)), tmp_path)
    with browser_page(width) as (page, errors):
        page.goto((tmp_path / "private" / "vulnerable.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.get_by_text("PRIVATE. Do not publish.").is_visible()
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        page.get_by_role("link", name="DP, ε = 1").click()
        assert page.get_by_role("heading", name="DP, ε = 1, seed 0").is_visible()
    assert errors == []
