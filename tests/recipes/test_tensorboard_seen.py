"""TensorBoard itself, in a real browser, on a real small comparison: what is on the screen of each tab.

A second writer's broken file lies in the folder, one model was cut and resumed, and everything was written twice.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.report import wording
from evaluation.report.board.events import SUFFIX
from recipes import audits, runs
from recipes.cli import main
from tests.evaluation.report_fixture import audited, synthetic

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MODELS = [f"{kind}/seed={seed}" for seed in (0, 1) for kind in ("non_private", "eps=08.00", "eps=02.00")]
SMALL = "--epsilons 8 2 --seeds 0 1 --baselines non_private --training.steps 4 --training.checkpoint-every 2"
SMALL += " --evaluation.shadow-models 4 --evaluation.attacks membership.lira inversion.class"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two budgets and no privacy, two seeds, with an audit whose figures are made up. The pages beside it are not drawn."""
    root = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        for page in ("html", "private"):
            patch.setattr(f"evaluation.report.{page}.write", lambda *given: None)
        assert main(["run", "digits", *SMALL.split(), "--output", str(root)]) == 0
        (broken := root / "tradeoff" / "events.out.tfevents.1.other").write_bytes(b"\xff" * 999)
        audits.save(audited(synthetic(tmp_path_factory.mktemp("audited"), budgets=(8.0,), seeds=(0,))).audits[0], root)
        shutil.rmtree(root / "eps=02.00" / "seed=1" / "evaluation")
        assert main(["resume", str(root)]) == 0
    assert broken.exists()
    return root


@pytest.fixture(scope="module")
def tensorboard(compared: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(compared), "--port", str(port), "--host", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(480):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(scope="module")
def browser(tensorboard: str) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = opened.new_page(viewport={"width": 1400, "height": 2600})
        page.set_default_timeout(90_000)
        yield page
        opened.close()


@pytest.fixture
def show(browser: Any, tensorboard: str) -> Any:
    """Opens a tab and waits until a text stands on it."""

    def opened(tab: str, text: str | re.Pattern[str]) -> Any:
        browser.goto("about:blank")
        browser.goto(f"{tensorboard}/#{tab}")
        browser.get_by_text(text).first.wait_for()
        return browser

    return opened


def test_there_is_a_run_for_the_trade_off_and_one_for_each_model_and_no_other(show: Any, compared: Path):
    page = show("timeseries", "tradeoff")
    page.locator("runs-data-table tb-data-table-content-row").nth(len(MODELS)).wait_for()
    listed = [row.inner_text().strip() for row in page.locator("runs-data-table tb-data-table-content-row").all()]
    assert sorted(listed) == sorted([*MODELS, "tradeoff"])
    assert len(list(compared.rglob(f"*{SUFFIX}"))) == len(listed)


def test_time_series_begins_with_a_picture_of_what_the_model_is_worth_over_epsilon(show: Any):
    page = show("timeseries", "1 over ε")
    card = page.locator("card-view").first
    assert "test accuracy" in card.inner_text()
    assert card.locator("img").evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 400


def test_custom_scalars_have_charts_with_bands_whose_titles_say_the_axis(show: Any):
    page = show("custom_scalars", re.compile("test accuracy over ε .1k is ε = 1.; without privacy"))
    page.get_by_text("Membership, LiRA: AUC over ε (1k is ε = 1); band: from 0.5 (chance) up to").first.wait_for()
    page.get_by_text("Claimed ε (white-box, any mechanism) over ε").first.wait_for()
    page.locator("path.area").nth(3).wait_for(state="attached")
    bands = [band.bounding_box() for band in page.locator("path.area").all()]
    assert all(band["width"] > 100 and band["height"] > 20 for band in bands[:4])
    assert page.get_by_text("Missing Tags").count() == 0
    assert page.get_by_text("Matches (1)").count() > 3
    ticks = {tick.text_content() for tick in page.locator("tf-custom-scalar-margin-chart-card text.tick-label").all()}
    assert {"2k", "8k"} <= ticks
    assert "60k" not in ticks


def test_hparams_have_a_row_a_model_with_every_cell_filled(show: Any):
    page = show("hparams", "epsilon (64 = no DP)")
    page.get_by_text("64.000").first.wait_for()
    page.get_by_text("lira AUC").first.wait_for()
    cells = [cell.inner_text().strip() for cell in page.locator("vaadin-grid-cell-content").all()]
    starts = [index for index, cell in enumerate(cells) if cell in MODELS]
    assert len(starts) == len(MODELS)
    for start in starts:
        row = cells[start : start + 9]  # the second cell is the box to tick
        assert [cell for cell in (row[0], *row[2:8]) if not cell] == []
        assert row[2] == {"n": "64.000", "8": "8.0000", "2": "2.0000"}[row[0][0] if row[0][0] == "n" else row[0][5]]
    assert page.get_by_text("ε spent (64 = no DP)").count() > 0
    page.get_by_text("Scatter Plot Matrix View").first.click()
    page.locator("tf-hparams-scatter-plot-matrix-plot circle, tf-hparams-scatter-plot-matrix-plot canvas").first.wait_for(
        state="attached"
    )


def test_images_show_roc_on_logarithmic_axes_and_each_class_under_every_budget(show: Any):
    page = show("images", "2 closer/2 by ε: Class inversion")
    for title in ("1 over ε/1 test accuracy", "1 over ε/2 Membership, LiRA: AUC", "2 closer/1 ROC: Membership, LiRA"):
        page.get_by_text(title).first.wait_for()
    page.locator("tf-image-loader img").nth(3).wait_for(state="attached")
    widths = [
        picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)")
        for picture in page.locator("tf-image-loader img").all()
    ]
    assert len(widths) >= 5
    assert min(widths) > 300


def test_the_pr_tab_lays_the_roc_of_all_budgets_over_each_other(show: Any):
    page = show("pr_curves", "membership.lira (read as ROC)")
    page.get_by_text("membership.lira, permitted (read as ROC)").first.wait_for()
    for model in ("non_private", "eps=08.00", "eps=02.00"):
        page.get_by_text(f"{model}/seed=0 is at step 4").first.wait_for()
    assert page.get_by_text("seed=1 is at step").count() == 0


def test_the_text_tab_says_what_was_found_and_how_to_read_it(show: Any, compared: Path):
    page = show("text", "is no proof of safety")
    meanings = wording.verdict_words(runs.gather(compared)).values()
    said = (
        "without privacy",
        "these are ROC curves",
        "1k is ε = 1",
        "computed from members without noise",
    )
    for text in (*said, *meanings):
        assert page.get_by_text(text).count() > 0, text
