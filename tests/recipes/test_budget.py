"""``dptrain budget``: any sufficient subset, what it refuses, and that what it prints can be typed in."""

import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dptrain import accounting
from dptrain.plan import PrivacyPlan
from recipes import budget, comparison
from recipes.cli import main

FULL = "--delta 1e-5 --examples 500 --batch 500"
"""Full batches are quickly counted."""
EDGE = "--unit edge --relation zero_out_one --edge-release laplace --noise-multiplier 0.5 --steps 4"


def planned(arguments: str) -> PrivacyPlan:
    return budget.planned(budget.read(arguments.split()))


def refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["budget", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What is printed, and the page."""
    path = tmp_path_factory.mktemp("budget") / "budget.html"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *said, **_: printed.extend(map(str, said)))
        arguments = f"{FULL} --epsilon 2 --steps 16 --clipping-norm 0.5 --household 2 --output {path}"
        assert main(["budget", *arguments.split()]) == 0
    return "\n".join(printed), path


def test_epsilon_and_steps_give_noise_and_noise_and_steps_give_that_epsilon():
    noise = planned(f"{FULL} --epsilon 2 --steps 16").noise_multiplier
    assert accounting.gdp_mu_to_epsilon(math.sqrt(16) / noise, 1e-5) == pytest.approx(2.0, abs=0.02)
    found = planned(f"{FULL} --noise-multiplier {noise} --epochs 16")
    assert found.steps == 16
    assert found.guarantee().epsilon == pytest.approx(2.0, abs=1e-3)


def test_epsilon_and_noise_give_the_most_steps():
    found = planned(f"{FULL} --epsilon 2 --noise-multiplier 8")
    assert found.guarantee().epsilon <= 2
    assert accounting.gdp_mu_to_epsilon(math.sqrt(found.steps + 1) / 8, 1e-5) > 2 - 0.012
    assert accounting.gdp_mu_to_epsilon(math.sqrt(found.steps) / 8, 1e-5) <= 2


def test_a_published_figure_from_the_command_line():
    """σ = 1.5, q = 0.04, 90 epochs: 2,250 steps, and not the 2,249 of ``int(90 // 0.04)``."""
    found = planned("--noise-multiplier 1.5 --sampling-rate 0.04 --batch 400 --epochs 90 --delta 1e-5")
    assert found.steps == 2250
    assert found.public_examples == pytest.approx(10_000)
    assert accounting.epsilon(found.event(), 1e-5) == pytest.approx(6.77913, abs=1e-4)


def test_sampling_unit_and_relation_are_those_of_a_plan():
    fixed = "--sampling fixed_size --relation replace_one --noise-multiplier 4 --steps 3"
    found = planned(f"--delta 1e-5 --examples 1000 --batch 100 {fixed}")
    assert (found.max_examples, found.sampling, found.relation) == (1000, "fixed_size", "replace_one")
    found = planned(f"{FULL} --unit user --max-examples-per-unit 4 --noise-multiplier 8 --steps 4")
    assert (found.unit, found.max_examples_per_unit) == ("user", 4)
    assert planned(f"--delta 1e-5 --examples 1000 --batch 1000 {EDGE}").guarantee().epsilon == 2.0


def test_a_plan_for_an_edge_is_looked_at_whole(capsys: pytest.CaptureFixture[str]):
    assert main(["budget", *f"--delta 1e-5 --examples 1000 --batch 1000 {EDGE}".split()]) == 0
    said = capsys.readouterr().out
    assert "(counted by pure ε)" in said
    assert "Batch sizes" not in said
    assert "--privacy.clipping-norm" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (f"{FULL} --epsilon 2", "give two, and the third is found"),
        (f"{FULL} --epsilon 2 --steps 4 --noise-multiplier 1", "give two"),
        (f"{FULL} --epsilon 2 --steps 4 --epochs 4", "leave one out"),
        ("--epsilon 2 --steps 4 --delta 1e-5 --examples 500", "--examples 60000 --batch 1024"),
        ("--epsilon 2 --steps 4 --delta 1e-5 --examples 500 --batch 501", "at most all"),
        ("--epsilon 2 --steps 4 --delta 1e-5 --examples 500 --batch 50 --sampling-rate 0.2", "leave one of the three out"),
        ("--epsilon 2 --steps 4 --examples 500 --batch 50", "at most 1/(10 N) = 2.0e-04, such as 0.0001"),
        ("--epsilon 2 --steps 4 --examples 500 --batch 50 --delta 0.002", "not below 1/N"),
        ("--noise-multiplier 2 --steps 4 --examples 500 --batch 50 --delta 0.1", "not below 1/N"),
        (f"{FULL} --epsilon inf --steps 4", "epsilon is inf"),
        (f"{FULL} --epsilon -1 --steps 4", "above 0"),
        (f"{FULL} --epsilon 2 --steps 0", "steps is 0"),
        (f"{FULL} --epsilon 2 --epochs nan", "--epochs is nan"),
        (f"{FULL} --epsilon two --steps 4", "--epsilon is 'two'; give a number"),
        (f"{FULL} --epsilon 2 --steps 4.5", "--steps is '4.5'; give a whole number"),
        (f"{FULL} --noise 1.1 --steps 4", "--noise is '1.1'; accepted: independent, banded, and --noise-multiplier takes"),
        ("--epsilon 2 --steps 4 --delta 1e-5 --examples 500.5 --batch 50", "500.5; give a whole number, such as 500"),
        (f"{FULL} --epsilom 2 --steps 4", "did you mean --epsilon?"),
        (f"{FULL} --epsilon 2 --steps 4 --sampling poison", "poisson"),
        (f"{FULL} --epsilon 2 --steps 4 --output budget.pdf", ".html, .svg, .json"),
        (f"{FULL} --epsilon 2 --steps 4 --household 0", "whole numbers from 1 up"),
    ],
)
def test_what_does_not_determine_a_plan_is_refused_in_a_sentence(arguments: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert said in refused(arguments, capsys)


def test_a_delta_that_is_larger_than_customary_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evaluation.budget.table", lambda plan, epsilon: ())
    large = FULL.replace("1e-5", "1e-3")
    assert main(["budget", *f"{large} --epsilon 2 --steps 4".split()]) == 0
    assert capsys.readouterr().err.count("above 1/(10 N)") == 1


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_counting_that_lasts_is_said(patience: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("recipes.budget.PATIENCE", patience)
    plan = ["--noise-multiplier", "3", "--delta", "1e-6", "--examples", "10000", "--batch", "500", "--steps", "20"]
    assert main(["budget", *plan]) == 0
    assert capsys.readouterr().err.count("still counting") == (patience == 0)


def test_it_says_what_guessing_gets_that_n_is_public_and_where_this_plan_stands(page: tuple[str, Path]):
    printed, path = page
    assert "N = 500 was taken as public" in printed
    assert "by guessing  at most" in printed
    assert printed.count("← this plan") == 2
    assert "2 people together" in printed
    assert str(path) in printed


def test_the_recipe_and_the_flags_that_it_prints_are_accepted_and_spend_the_same(page: tuple[str, Path], tmp_path: Path):
    printed, _ = page
    toml = printed.split("Into a recipe")[1].split("Or as flags")[0]
    flags = printed.split("Or as flags")[1].split("Or in a script")[0].replace("\\\n", " ").split()
    assert flags[:3] == ["dptrain", "run", "RECIPE"]
    assert tomllib.loads(toml)["epsilons"] == [2.0]
    (tmp_path / "mine.toml").write_text(toml)
    ways = (comparison.load(str(tmp_path / "mine.toml"), []), comparison.load("digits", flags[3:]))
    for wanted in ways:
        (recipe,) = {job.recipe.privacy: job.recipe for job in wanted.jobs() if job.variant == "dp"}.values()
        plan = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)
        assert plan.guarantee().epsilon == pytest.approx(2.0, abs=2e-3)
        assert (plan.clipping_norm, plan.steps, plan.sampling_rate) == (0.5, 16, 1.0)


def test_the_lines_for_a_script_make_this_plan(page: tuple[str, Path]):
    place: dict[str, Any] = {}
    exec(page[0].split("Or in a script")[1].split("\n\n/")[0], place)  # what a user would paste
    assert place["plan"].guarantee().epsilon == pytest.approx(2.0, abs=1e-3)


def test_the_page_stands_alone_and_a_drawing_and_a_document_can_be_had(page: tuple[str, Path], tmp_path: Path):
    text = page[1].read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "What an attacker gains at most" in text
    arguments = f"budget {FULL} --epsilon 2 --steps 16 --clipping-norm 0.5 --output"
    assert main([*arguments.split(), str(tmp_path / "budget.svg")]) == 0
    assert main([*arguments.split(), str(tmp_path / "budget.json"), "--format", "json"]) == 0
    assert (tmp_path / "budget.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert json.loads((tmp_path / "budget.json").read_text(encoding="utf-8"))["plan"]["steps"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_a_screen_and_a_phone(page: tuple[str, Path], width: int):
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.path.exists("/usr/bin/chromium"):
        pytest.skip("needs /usr/bin/chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": width, "height": 900})
        opened.goto(page[1].as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert opened.get_by_text("What an attacker gains at most").first.is_visible()
        browser.close()
