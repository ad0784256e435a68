"""The pages in a real browser: the card, the statistics, alerts; on a screen and on a phone, by day and by night."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dptrain.release import page as pages
from tests.dptrain.release import served
from tests.dptrain.release.test_server import Watcher

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


DETECTORS = {"near_duplicates": {"value": 3.0, "threshold": 4.0}, "entropy": {"value": 1.0, "threshold": 2.0}}


class Alarmed(Watcher):
    """A monitor with one alert, about whoever was last."""

    def statistics(self) -> dict[str, Any]:
        client = self.seen[-1][0] if self.seen else "nobody"
        alert = {"time": 1.9e9, "client": client, "detector": "near_duplicates", "value": 12.5, "threshold": 4.0, "queries": 40}
        text = "many queries are alike <script>window.hurt = 1</script>"
        return {
            "clients": {client: {"alerts": 1, "action": "degrade", "detectors": DETECTORS}},
            "alerts": [alert | {"text": text}],
        }


@contextmanager
def browser(address: str, width: int, scheme: Any = "light") -> Iterator[tuple[Any, list[str]]]:
    """A page, and what went wrong in it or was fetched from elsewhere."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        opened.on("request", lambda request: errors.append(request.url) if not request.url.startswith(address) else None)
        yield opened, errors
        chromium.close()


@contextmanager
def watched_server(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Its address, a client's key and the administrator's."""
    changes, client, owner = served.keyed(folder)
    app = served.app_of(served.digits(folder / "release"), guard_text="top5-rounded", monitor=Alarmed(), **changes)
    with served.serving(app) as address:
        rows = {"inputs": np.zeros((7, 8, 8)).tolist()}
        httpx.post(f"{address}/v1/predict", json=rows, headers={"authorization": f"Bearer {client}"})
        yield address, client, owner


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
def test_the_page_shows_card_clients_and_alerts(tmp_path: Path, width: int, scheme: str):
    with watched_server(tmp_path) as (address, client, owner), browser(address, width, scheme) as (page, errors):
        page.goto(address)
        page.get_by_text(served.STATEMENT).first.wait_for()
        assert page.get_by_text("top5-rounded").first.is_visible()
        page.get_by_label("Administrator's key").fill(owner)
        page.keyboard.press("Enter")
        page.get_by_text(client.split("_")[1]).first.wait_for()
        row = page.locator("#clients tr").first
        assert re.search(r"a client\s*7", row.inner_text())
        assert "degrade" in row.inner_text()
        assert ("near_duplicates 75%" in row.inner_text()) == (width == 1400)
        assert page.get_by_text("many queries are alike <script>").is_visible()
        assert page.evaluate("window.hurt") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("#key").input_value() == ""
        assert owner not in page.content()
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        httpx.post(
            f"{address}/v1/predict",
            json={"inputs": np.zeros((5, 8, 8)).tolist()},
            headers={"authorization": f"Bearer {client}"},
        )
        page.get_by_role("cell", name="12", exact=True).wait_for(timeout=8000)
        assert width == 400 or re.search(r"12\s+\d+\s", row.inner_text())
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    assert errors == []


@pytest.mark.slow
def test_a_wrong_key_is_told_and_asked_no_more(tmp_path: Path):
    with watched_server(tmp_path) as (address, client, _), browser(address, 1400) as (page, errors):
        page.goto(address)
        page.get_by_label("Administrator's key").fill(client)
        page.get_by_role("button", name="Show").click()
        page.get_by_text("Accepted: an administrator's key").wait_for()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(2500)
        assert asked == []
        assert not page.locator("#statistics").is_visible()
    assert all("403" in error for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_documentation_lists_every_page_and_what_it_accepts(tmp_path: Path, width: int):
    with watched_server(tmp_path) as (address, _, _), browser(address, width) as (page, errors):
        page.goto(f"{address}/docs")
        page.get_by_text("POST /v1/predict").wait_for()
        for path in ("GET /v1/card", "GET /v1/statistics", "POST /v1/reload", "GET /healthz", "GET /metrics"):
            assert page.get_by_text(path).is_visible()
        assert page.get_by_text("1 to 256 examples of 8 × 8 finite numbers").is_visible()
        page.get_by_text("Predictions", exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert errors == []


@pytest.mark.parametrize("name", [pages.START, pages.DOCS])
def test_a_page_holds_all_that_it_needs_and_every_field_has_a_label(name: str):
    text, policy = pages.read(name)
    assert not re.search(r"""(src|href)=["'](?!/)""", text)
    assert "://" not in text
    assert " style=" not in text
    assert not re.search(r"\son\w+=", text)
    assert "innerHTML" not in text
    assert '<html lang="en">' in text
    for field in re.findall(r'<input id="(\w+)"', text):
        assert f'<label for="{field}"' in text
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
