"""The page as a reader has it: by its structure, sorted by mouse and by keyboard, on a phone, on paper, with enough contrast.

One page of many attacks is made for all of these, and one browser reads it.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.answered import with_answer
from evaluation.plan import ATTACKS
from evaluation.report import html, wording
from evaluation.result import AttackResult, ComparisonResult, LedgerShown, SelectedShown, SpentShown
from evaluation.summary import summarize
from tests.evaluation.report_fixture import INVERSION, LIRA, synthetic
from tests.evaluation.test_report import CHROMIUM, FLAGS

MANY = tuple(name for name in ATTACKS.names() if name.startswith("membership."))
SPENT = SpentShown(unit="example", relation="add_or_remove_one", delta=1e-4, runs=7, steps=900, epsilon=11.25, largest=4.5)
ACCOUNT = LedgerShown(
    data="5f" * 32,
    name="synthetic",
    entries=42,
    runs=9,
    without_guarantee=2,
    failed=1,
    unfinished=1,
    spent=(SPENT,),
    limit_epsilon=20.0,
    limit_delta=1e-4,
)


def many(root: Path) -> ComparisonResult:
    """Over thirty attacks under two budgets, an account, and pictures."""
    result = synthetic(
        root, budgets=(8.0, 1.0), seeds=(0, 1), variants=("non_private", "regularized"), attacks=(LIRA, INVERSION)
    )
    runs = []
    for run in result.runs:
        lira = next(attack for attack in run.attacks if attack.name == LIRA)
        others: list[AttackResult] = []
        for place, name in enumerate(MANY, 1):
            if lira.status == "ok" and name != LIRA:
                others.append(dataclasses.replace(lira, name=name, value=(lira.value or 0.0) - 0.001 * place))
        runs.append(dataclasses.replace(run, attacks=(*run.attacks, *others)))
    return with_answer(dataclasses.replace(result, runs=tuple(runs), summary=summarize(tuple(runs)), ledger=(ACCOUNT,)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    html.write(many(root), root, root / "report.html")
    return root


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "report.html").read_text()


class Outline(HTMLParser):
    """Landmarks, headings in order, drawings and tables of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_landmarks_headings_and_contents(text: str):
    page = Outline(text)
    assert len(page.of("main")) == len(page.of("h1")) == len(page.of("nav")) == 1
    places = [attrs["id"] for attrs in page.of("h2")]
    links = [attrs["href"] for attrs in page.of("a")]
    assert [f"#{place}" for place in places] == [link for link in links if link in {f"#{place}" for place in places}]
    assert links[0] == "#answer"  # the way past the contents
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {link.removeprefix("#") for link in links if link} <= ids
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_drawing_picture_and_table_says_what_it_is(text: str):
    page = Outline(text)
    assert all(attrs.get("aria-label") for attrs in page.of("figure") if attrs.get("role") == "img")
    assert all(attrs.get("alt") for attrs in page.of("img"))
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("class") == "table")
    assert all(attrs.get("scope") for attrs in page.of("th"))


def test_one_attacks_charts_are_open_and_the_page_is_small_with_thirty(text: str):
    assert len(MANY) > 25
    assert len(text.encode()) < 2_000_000
    before, _, _ = text.partition("<summary>Charts of the other figures")
    assert before.count("<svg") == 3
    assert "further charts are left out" in text  # and none is lost: figures stand in the tables
    for name in MANY:
        assert f">{wording.attack_name(name)}<small>" in text


def test_verdicts_are_defined_where_they_stand(text: str):
    used = set(re.findall(r'<a class="verdict[^"]*" href="#([^"]+)" title="[^"]+">', text))
    assert used
    for place in used:
        assert f'<dt id="{place}"><dfn' in text


def test_the_ledger_says_what_all_runs_have_spent(text: str):
    for words in (
        "9 runs on these data (synthetic) stand in the ledger, with 42 entries.",
        "ε = 11.250 at δ = 0.0001 for one example (add or remove one), over 7 runs and 900 updates, composed; the largest",
        "2 runs of them without a guarantee",
        "1 run failed",
        "1 run did not end",
        "The stated total is ε = 20 at δ = 0.0001",
    ):
        assert words in text
    assert "not in a ledger" not in text


def test_of_a_selection_it_is_not_told_how_many_trainings_there_were(tmp_path: Path):
    chosen = SelectedShown(name="chosen", distribution="poisson", mean=4.0, epsilon=3.5, delta=1e-4, chosen="eps=01.00/seed=0")
    account = dataclasses.replace(
        ACCOUNT, spent=(), selected=(chosen,), only_selected=(dataclasses.replace(SPENT, runs=1, epsilon=3.5),)
    )
    said = " ".join(wording.spending(dataclasses.replace(synthetic(tmp_path), ledger=(account,))))
    assert "the choice costs ε = 3.500" in said
    assert "does not know how many there were" in said
    assert not re.search(rf"\b({ACCOUNT.runs} runs|{ACCOUNT.entries} entries|{SPENT.steps} updates)", said)


def test_without_a_ledger_that_is_said(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(), seeds=(0,), attacks=())
    assert wording.spending(result)[0].startswith("These data are not in a ledger")


def test_a_page_to_share_shows_no_members(tmp_path: Path, text: str):
    result = synthetic(tmp_path, budgets=(8.0,), seeds=(0,), variants=("non_private",), attacks=(INVERSION,), broken=False)
    shared = html.render(result, tmp_path, shared="without per-example leaks")
    for words in ('id="reconstructions"', "<img", "Which examples leak", "5f" * 32, "a1a1a1", "b2b2b2"):
        assert words not in shared
    for words in ('id="reconstructions"', "<img", "5f" * 32, "a1a1a1"):
        assert words in text
    assert "This copy is for others" in shared
    assert "At ε =" in shared


def test_no_single_member_is_on_the_page(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(), seeds=(0,), variants=("non_private",), attacks=(INVERSION,), broken=False)
    (path,) = tmp_path.rglob("*.npz")
    labels = np.array(
        ["a member's\nface", "secret\nexample", "nearest\nknown", "class mean\nof members", "recon-\nstruction", "mine"]
    )
    rows: dict[str, Any] = {f"row{at}": np.full((10, 8, 8), at / 10) for at in range(len(labels))}
    np.savez(path, labels=labels, **rows)
    page = html.render(result, tmp_path)
    assert re.findall(r'<div class="strip"><span>([^<]+)</span>', page) == ["class mean of members", "reconstruction"]
    np.savez(path, labels=labels[:2], row0=np.zeros((10, 8, 8)), row1=np.zeros((10, 8, 8)))
    assert "Its pictures show single members, and are not on this page." in html.render(result, tmp_path)


# -- a real browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(root: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, root: Path, width: int, scripts: bool = True) -> tuple[Any, list[str]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    page.goto((root / "report.html").as_uri())
    return page, wrong


FIRST = "[...document.querySelectorAll('table.cells tbody tr')].map(row => row.cells[1].dataset.sort)"


@pytest.mark.slow
def test_columns_sort_by_click_and_by_keyboard(browser: Any, root: Path):
    page, wrong = opened(browser, root, 1400)
    as_made = page.evaluate(FIRST)
    head = page.locator("table.cells thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    numbers = [float(value) for value in page.evaluate(FIRST) if value]
    assert numbers == sorted(numbers, reverse=True)
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    shown = page.evaluate(FIRST)
    numbers = [float(value) for value in shown if value]
    assert numbers == sorted(numbers)
    assert all(not value for value in shown[len(numbers) :])  # what has no figure is last either way
    assert page.get_by_role("status").text_content() == "Sorted by non-private, ascending."
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None
    assert page.evaluate(FIRST) == as_made
    assert wrong == []


@pytest.mark.slow
def test_without_script_it_is_a_plain_table(browser: Any, root: Path):
    page, _ = opened(browser, root, 1400, scripts=False)
    assert page.get_by_role("button").count() == 0
    assert page.locator("table.cells").first.is_visible()


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, root: Path):
    page, wrong = opened(browser, root, 400)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("table.cells tbody td").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('table.cells td'), '::before').content") == '"non-private"'
    assert wrong == []


CONTRAST = """() => {
  const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = item => { for (; item; item = item.parentElement) {
    const found = parse(getComputedStyle(item).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  } return [255, 255, 255]; };
  const low = [];
  document.querySelectorAll('details').forEach(item => item.open = true);
  for (const item of document.querySelectorAll('body *:not(script):not(svg):not(svg *)')) {
    if (![...item.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
    const [one, two] = [light(parse(getComputedStyle(item).color)), light(behind(item))].sort((a, b) => b - a);
    const ratio = (one + .05) / (two + .05);
    if (ratio < 4.5) low.push(`${item.tagName}.${item.className}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(low)];
}"""


@pytest.mark.slow
def test_all_text_has_enough_contrast(browser: Any, root: Path):
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    page, _ = opened(browser, root, 1400)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_the_keyboard_reaches_the_answer_first_and_its_focus_is_seen(browser: Any, root: Path):
    page, _ = opened(browser, root, 1400)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#answer"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.slow
def test_paper_has_everything_unfolded_and_no_contents(browser: Any, root: Path):
    page, _ = opened(browser, root, 1400)
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) > 2
    page.emulate_media(media="print")
    assert not page.locator("nav.contents").is_visible()
    assert page.locator("details:not([open]) table").first.evaluate("item => item.getBoundingClientRect().height") > 0
    widths = (
        "[...document.querySelectorAll('main table')].every(item => item.scrollWidth <= item.parentElement.clientWidth + 1)"
    )
    page.set_viewport_size({"width": 703, "height": 900})  # A4 within its margins
    assert page.evaluate(widths)
