"""``dptrain run lora`` as a user types it, with a tiny published model in a folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from recipes.comparison import load
from tests.dptrain.published import LINES, publish
from tests.recipes.test_cli import here

SMALL = ["--data.sequence-length", "40", "--training.steps", "6", "--epsilons", "8", "--data.secrets.each", "2"]


def test_the_recipe_names_a_hub_model_and_reads_its_tokens():
    recipe = load("lora").recipe
    assert recipe.model.pretrained == recipe.data.tokenizer == "HuggingFaceTB/SmolLM2-135M"
    assert recipe.regularization.dropout == 0


def test_a_folder_becomes_absolute_and_is_the_tokenizers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = load("lora", ["--model.pretrained", "mine"]).recipe
    assert recipe.model.pretrained == recipe.data.tokenizer == str(tmp_path / "mine")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_lora_runs_from_a_folder_to_a_report(tmp_path: Path):
    """Training, every attack of the recipe, the report; and a second look at the same run, whose page is not drawn again."""
    publish(tmp_path / "model")
    (tmp_path / "mine.txt").write_text("\n".join(LINES * 300))
    command = [sys.executable, "-m", "recipes.cli"]
    data = ["--model.pretrained", "model", "--data.name", "text", "--data.path", "mine.txt"]
    done = subprocess.run(
        [*command, "run", "lora", *data, *SMALL, "--output", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "next token right" in done.stdout
    assert "bits a character" in done.stdout
    for path in ("eps=08.00/seed=0", "non_private/seed=0"):
        found = json.loads((tmp_path / "run" / path / "evaluation" / "step=000006" / "result.json").read_text())
        assert {attack["status"] for attack in found["attacks"]} == {"ok"}, [attack["reason"] for attack in found["attacks"]]
        weights = load_file(tmp_path / "run" / path / "release" / "model.safetensors")
        assert all("lora_" in name or name == "base" for name in weights)
    again = here("evaluate", "run", "--attacks", "membership.min_k", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
