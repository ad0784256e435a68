"""Three views of one result: complete, true to it, safe to open, and readable in a real browser."""

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf

from evaluation.answered import with_answer
from evaluation.exchange import exchanged
from evaluation.report import html, tensorboard, terminal
from evaluation.result import AttackResult, ComparisonResult, Curve, Guarantee, Measure, RunResult
from evaluation.summary import summarize, with_twins

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


# -- a synthetic result: plausible numbers, of no model -------------------------------------------------------------


def synthetic(
    root: Path, budgets: tuple[float, ...] = (8.0, 4.0, 2.0, 1.0), seeds: int = 3, **changes: Any
) -> ComparisonResult:
    kinds = [("non_private", math.inf), ("clip_only", math.inf), ("regularized", math.inf)]
    kinds += [("dp", epsilon) for epsilon in budgets]
    runs = tuple(_run(root, variant, epsilon, seed) for variant, epsilon in kinds for seed in range(seeds))
    runs = with_twins(runs)
    made = ComparisonResult(
        name="synthetic", title="A <synthetic> comparison & more", runs=runs, summary=summarize(runs),
        exchanges=exchanged(runs), command="dptrain run synthetic",
        data={"name": "synthetic", "kind": "image", "classes": ["<script>", "b", "c"],
              "source": "drawn at random", "fingerprint": "f" * 64},
        recipe={}, versions={"dptrain": "0"}, not_covered=("The figures of this report.",),
        baselines=(Measure(name="majority_class", value=0.1, low=0.08, high=0.12),),
    )  # fmt: skip
    return with_answer(dataclasses.replace(made, **changes))


def _run(root: Path, variant: Any, epsilon: float, seed: int) -> RunResult:
    label = (f"eps={epsilon:05.2f}" if variant == "dp" else variant) + f"/seed={seed}"
    leak = 0.5 + 0.1 * (1 - math.exp(-epsilon / 4)) + 0.005 * seed
    permitted = min(1.0, 0.5 + 0.08 * epsilon) if variant == "dp" else None
    rates = np.linspace(0, 1, 40)
    folder = root / label / "evaluation" / "step=000060"
    folder.mkdir(parents=True)
    pictures = np.random.default_rng(seed).random((3, 8, 8))
    rows = np.array(["members", "found", "public"])
    np.savez(folder / "inversion.class.npz", labels=rows, row0=pictures, row1=pictures, row2=pictures)
    lira = AttackResult(
        name="membership.lira", status="ok", metric="auc", value=leak, low=leak - 0.03, high=leak + 0.03, chance=0.5,
        permitted=permitted, access="scores", paper="Carlini et al. 2022", verdict="within the plan" if permitted else "leak",
        metrics=(Measure(name="tpr_at_fpr_0.01", value=0.04, low=0.02, high=0.06),),
        permitted_metrics={"tpr_at_fpr_0.01": 0.1} if permitted else {},
        baselines=(Measure(name="blind", value=0.5, low=0.47, high=0.53),),
        controls=(Measure(name="untrained", value=0.5, low=0.47, high=0.53),),
        curve=Curve(false_positive_rate=tuple(rates), true_positive_rate=tuple(rates ** (1 - (leak - 0.5)))),
    )  # fmt: skip
    inversion = AttackResult(
        name="inversion.class", status="ok", metric="identified_top1", value=2 / 3, low=0.1, high=0.99, chance=1 / 3,
        access="gradients", paper="Fredrikson et al. 2015", verdict="found nothing", figures=("inversion.class.npz",),
        metrics=(Measure(name="distance_to_private_mean", value=0.3),),
    )  # fmt: skip
    return RunResult(
        label=label, variant=variant, epsilon=epsilon, delta=1e-4 if variant == "dp" else None, seed=seed, step=60, steps=60,
        utility={"test_accuracy": 0.9, "test_accuracy_low": 0.88, "test_accuracy_high": 0.92}, attacks=(lira, inversion),
        guarantee=Guarantee(epsilon=epsilon, cross_check=epsilon * 0.99, delta=1e-4, accountant="PRV",
                            cross_check_accountant="PLD", unit="example",
                            relation="add_or_remove_one", statement=f"A statement of ε = {epsilon:g}."),
    )  # fmt: skip


def failed(result: ComparisonResult) -> ComparisonResult:
    broken = AttackResult(name="membership.lira", status="failed", reason="RuntimeError: <b>it broke</b>")
    runs = tuple(dataclasses.replace(run, attacks=(broken, *run.attacks[1:])) for run in result.runs)
    failures = ("eps=03.00/seed=0: out of luck",)
    return with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs), failures=failures))


CASES = {
    "one seed, one budget": lambda root: synthetic(root, (0.05,), 1),
    "a dozen budgets": lambda root: synthetic(root, tuple(float(2**power) for power in range(-2, 10)), 1),
    "no budget": lambda root: synthetic(root, (), 1),
    "failed attacks": lambda root: failed(synthetic(root)),
    "nothing at all": lambda root: synthetic(root, (), 1, runs=(), summary=(), failures=("non_private/seed=0: broken",)),
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[ComparisonResult, Path]:
    """The usual result, and a folder with its page and TensorBoard's files: drawn once for all tests that only read them."""
    root = tmp_path_factory.mktemp("usual")
    result = synthetic(root)
    html.write(result, root, root / "report.html")
    tensorboard.write(result, root)
    return result, root


@pytest.fixture(params=["usual", *CASES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ComparisonResult, Path]:
    """A result and its folder, which is empty but for pictures; the usual one's holds its page and TensorBoard's files too."""
    if request.param == "usual":
        return "usual", *request.getfixturevalue("usual")
    return request.param, CASES[request.param](tmp_path), tmp_path


# -- terminal -------------------------------------------------------------------------------------------------------


def test_the_table_fits_and_names_everything(case: tuple[str, ComparisonResult, Path]):
    name, result, _ = case
    text = terminal.render(result, 100)
    assert max(len(line) for line in text.splitlines()) <= 100
    for summary in result.summary:
        assert ("∞" if math.isinf(summary.epsilon) else f"{summary.epsilon:g}") in text
    for failure in result.failures:
        assert failure in text
    assert ("FAILED" in text) == (name in ("failed attacks", "nothing at all"))
    assert "without noise" in text


def test_a_failed_attack_is_never_shown_as_a_figure(tmp_path: Path):
    """Rule 12."""
    text = terminal.render(failed(synthetic(tmp_path)), 100)
    assert "3 of 3 failed" in text
    assert "it broke" in " ".join(text.split())


# -- HTML -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would load from elsewhere, and whether tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use", "rect", "stop", "hr", "image"})

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loaded += [named[key] or "" for key in ("src", "href", "xlink:href") if key in named]
        self.ids += [named["id"] or ""] if "id" in named else []
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_is_well_formed_and_escapes(case: tuple[str, ComparisonResult, Path]):
    _, result, root = case
    written = root / "report.html"
    text = written.read_text() if written.exists() else html.render(result, root)
    page = Page(text)
    assert page.open == []
    assert page.scripts == 1  # the one that sorts
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert "url(http" not in text
    assert len(set(page.ids)) == len(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert text.count("<script>") == 1
    assert "<b>it broke" not in text
    assert "&lt;synthetic&gt; comparison &amp; more" in text
    assert len(text.encode()) < 2_000_000


def test_the_page_says_everything(usual: tuple[ComparisonResult, Path]):
    result, text = usual[0], (usual[1] / "report.html").read_text()
    for run in result.runs:
        if run.variant == "dp":
            assert run.guarantee is not None
            assert run.guarantee.statement in text
    for words in ("dptrain run synthetic", "The figures of this report.", "PRV", "PLD", "ε = ∞", "Not private.", "permitted"):
        assert words in text
    used = {attack.verdict for run in result.runs for attack in run.attacks}
    for word in used:
        assert f">{word}</dfn></dt>" in text


def test_the_same_result_gives_the_same_page(usual: tuple[ComparisonResult, Path], tmp_path: Path):
    html.write(synthetic(tmp_path), tmp_path, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (usual[1] / "report.html").read_bytes()


def test_a_missing_picture_is_said_and_breaks_nothing(tmp_path: Path):
    result = synthetic(tmp_path, (8.0,), 1)
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(b"broken")
    assert "The picture file is missing." in html.render(result, tmp_path)
    tensorboard.write(result, tmp_path)


# -- TensorBoard ----------------------------------------------------------------------------------------------------


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def test_every_case_is_written(case: tuple[str, ComparisonResult, Path]):
    _, result, root = case
    if not (root / "tradeoff").exists():
        tensorboard.write(result, root)
    assert events(root / "tradeoff").Tags()["tensors"]


def test_curves_run_over_epsilon_with_bands_and_no_privacy_in_the_title(usual: tuple[ComparisonResult, Path]):
    found = events(usual[1] / "tradeoff")
    for tag in ("tradeoff/test_accuracy", "tradeoff/membership.lira_auc"):
        for suffix in ("", "_lo", "_hi"):
            assert [event.step for event in found.Scalars(tag + suffix)] == [1000, 2000, 4000, 8000]
    assert [event.step for event in found.Scalars("tradeoff/membership.lira_auc permitted")] == [1000, 2000, 4000, 8000]
    layout = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"tradeoff/test_accuracy_lo" in layout
    assert "test accuracy over ε (1k is ε = 1); without privacy 0.".encode() in layout


def test_each_model_is_one_trial_with_the_metrics_that_all_share(usual: tuple[ComparisonResult, Path]):
    result, root = usual
    for run in result.runs:
        found = events(root / run.label)
        plugin = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        data = HParamsPluginData.FromString(plugin).session_start_info.hparams
        assert data["variant"].string_value == run.variant
        assert data["epsilon (64 = no DP)"].number_value == (64.0 if math.isinf(run.epsilon) else run.epsilon)
        scalars = set(found.Tags()["scalars"])
        assert scalars == {
            "test_accuracy",
            "membership.lira/auc",
            "membership.lira/tpr_at_fpr_0.01",
            "inversion.class/identified_top1",
            "epsilon_spent",
        }


def test_writing_twice_leaves_one_set_and_other_peoples_files(tmp_path: Path):
    result = synthetic(tmp_path, (8.0,), 1)
    tensorboard.write(result, tmp_path)
    mine = tmp_path / "tradeoff" / "events.out.tfevents.1.mine"
    mine.write_bytes(b"")
    first = sorted(path.parent for path in tmp_path.rglob("events.out.tfevents.*"))
    tensorboard.write(result, tmp_path)
    assert sorted(path.parent for path in tmp_path.rglob("events.out.tfevents.*")) == first
    assert mine.exists()
    folders = {path.relative_to(tmp_path).as_posix() for path in first}
    assert folders == {"tradeoff", *(run.label for run in result.runs)}


def test_roc_curves_run_from_corner_to_corner_and_have_points(usual: tuple[ComparisonResult, Path]):
    from tensorboard.util.tensor_util import make_ndarray

    (event,) = events(usual[1] / "eps=08.00" / "seed=0").Tensors("membership.lira (read as ROC)")
    counts, true, false = make_ndarray(event.tensor_proto)[:4], *make_ndarray(event.tensor_proto)[4:]
    assert (counts > 0).all()
    assert (true[0], false[0], true[-1], false[-1]) == (1.0, 1.0, 0.0, 0.0)


# -- a real browser -------------------------------------------------------------------------------------------------


@contextmanager
def browser_page(width: int) -> Iterator[tuple[Any, list[str]]]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        yield page, errors
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_a_screen_and_a_phone(usual: tuple[ComparisonResult, Path], width: int):
    with browser_page(width) as (page, errors):
        page.goto((usual[1] / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_text("baselines and controls").first.click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.locator("details", has_text="A statement of ε = 8.").last.evaluate("folded => { folded.open = true; }")
        assert page.get_by_text("A statement of ε = 8.").is_visible()
    assert errors == []
