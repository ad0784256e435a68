"""TOML and flags are the same thing twice, checked by one parser; a mistake is one sentence with the nearest name."""

import dataclasses
import math
from pathlib import Path

import pytest

import dptrain.data
from dptrain.data.split import draw
from dptrain.errors import ConfigError
from dptrain.recipe import RegularizationConfig
from recipes import comparison, runs
from recipes.comparison import Comparison, load


@pytest.mark.parametrize("name", comparison.names())
def test_every_recipe_loads_and_opens_with_the_command_that_launches_it(name: str):
    made = load(name)
    lines = comparison.find(name).read_text().splitlines()
    comment = "\n".join(line for line in lines[: lines.index("")] if line.startswith("#")) if "" in lines else ""
    assert any(f"dptrain {command} {name}" in "\n".join(lines[:12]) for command in ("run", "audit"))
    assert comment
    assert comparison.about(name)
    assert made.output == f"runs/{name}"


def test_flags_stand_above_the_file():
    made = load("digits", ["--privacy.delta", "1e-5", "--training.steps", "200", "--output", "runs/mine", "--seeds", "4", "5"])
    assert made.recipe.privacy.delta == 1e-5
    assert made.recipe.training.steps == 200
    assert made.output == "runs/mine"
    assert made.seeds == (4, 5)
    assert made.recipe.privacy.clipping_norm == 0.1


def test_every_field_is_a_flag():
    help_text = comparison.help_text()
    for key in comparison.options():
        assert f"--{key.replace('_', '-')}" in help_text, key


def test_the_resolved_comparison_comes_back_from_its_toml(tmp_path: Path):
    flags = ["--epsilons", "3", "inf", "--title", 'a "quoted" \\ title', "--regularized.label-smoothing", "-0.05"]
    made = load("digits", flags)
    assert made.regularized.label_smoothing == -0.05
    path = tmp_path / "resolved.toml"
    path.write_text(comparison.to_toml(made))
    assert load(str(path)) == made


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--privacy.epsilom", "4"], r"did you mean --privacy\.epsilon\?"),
        (["--steps", "4"], r"did you mean --training\.steps\?"),
        (["--optimizer.lr", "4"], "no flag"),
        (["--privacy.epsilon", "four"], r"--privacy\.epsilon is 'four'; give a number"),
        (["--training.steps", "1.5"], r"--training\.steps is '1\.5'; give a whole number"),
        (["--privacy.epsilon", "0"], "above 0"),
        (["--epsilons", "8", "0"], "above 0"),
        (["--epsilons", "8", "8"], "each budget once"),
        (["--epsilons", "nan"], "above 0"),
        (["--privacy.epsilon", "4", "--epsilons", "8"], "not both"),
        (["--privacy.delta", "2"], r"privacy\.delta"),
        (["--privacy.sampling", "shuffle"], "poisson"),
        (["--privacy.mechanism", "none"], "mechanism"),
        (["--privacy.sampling", "fixed_size"], r"privacy\.sampling is 'fixed_size'.*coins.*make_private\(\)"),
        (["--model.name", "mpl"], "did you mean 'mlp'"),
        (["--data.name", "digit"], "did you mean 'digits'"),
        (["--evaluation.attacks", "membership.lyra"], r"did you mean 'membership\.lira'"),
        (["--seeds", "1", "1"], "different"),
        (["--seeds", "-1"], "from 0 up"),
        (["--seeds"], "seeds"),
        (["stray"], "before any flag"),
        (["--data.split.members", "0.9"], r"data\.split"),
        (["--performance.max-physical-batch", "0"], "max_physical_batch"),
        (["--regularization.mix-up", "0.2"], r"did you mean --regularization\.mixup\?"),
        (["--regularization.relax-by", "exampel"], r"relax-by is 'exampel'; accepted: example, batch"),
        (["--regularized.mixup", "0.2"], "label_smoothing and mixup"),
        (["--regularization.early-stopping", "1.5"], r"early-stopping is '1\.5'; give a whole number"),
        (["--regularizers", "alnoe"], r"--regularizers is 'alnoe'; accepted: together, alone"),
        (["--regularizer", "alone"], r"did you mean --regularizers\?"),
        (
            [
                "--regularizers",
                "alone",
                *(f"--regularized.{name}=0" for name in ("dropout", "weight-decay", "label-smoothing")),
            ],
            r"'alone', and regularized sets no option.*--regularized\.label-smoothing 0\.1",
        ),
    ],
)
def test_a_mistyped_flag_is_one_clear_sentence(flags: list[str], message: str):
    """Sharp edge 21."""
    with pytest.raises(ConfigError, match=message) as caught:
        load("digits", flags)
    assert "\n" not in str(caught.value)
    assert "─" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[privacy]\nepsilom = 4", r"privacy\.epsilom.*did you mean 'privacy\.epsilon'"),
        ("[privcy]\nepsilon = 4", r"did you mean 'privacy\.epsilon'"),
        ("epsilons = 8", "a list"),
        ("[training]\nsteps = [8]", "one value"),
        ("[training]\nsteps = true", "no key takes"),
        ("[training]\nsteps = 'many'", r"--training\.steps is 'many'; give a whole number"),
        ("[model\nname = 1", "not TOML"),
        ("[privacy]\nsampling = 'fixed_size'\nrelation = 'replace_one'\nmax_examples = 898", r"give 'poisson'.*make_private"),
        ("import = 'os'", "unknown key 'import'"),
        ("[model]\nname = 'os.system'", "no model 'os.system'"),
    ],
)
def test_a_mistyped_key_is_one_clear_sentence_with_the_file(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("digit", "did you mean 'digits'"), ("gone/my.toml", "no file"), ("x", "accepted")]
)
def test_a_missing_recipe_is_one_clear_sentence(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(name)


def test_all_variants_have_equal_updates_batches_and_data():
    """Baselines with equal update counts; only what makes them the variant differs."""
    jobs = load("digits").jobs()
    assert len({job.label for job in jobs}) == len(jobs) == 7 * 3
    for job in jobs:
        assert job.recipe.training == jobs[0].recipe.training
        assert job.recipe.data == jobs[0].recipe.data
        assert job.recipe.model == jobs[0].recipe.model
        assert job.recipe.privacy.sampling_rate == jobs[0].recipe.privacy.sampling_rate
    of = {job.variant: job.recipe for job in jobs}
    assert of["clip_only"].optimizer == of["dp"].optimizer
    assert of["non_private"].optimizer == of["regularized"].optimizer != of["dp"].optimizer
    assert of["regularized"].regularization.dropout > 0
    assert [job.variant for job in jobs][:3] == ["non_private"] * 3


def test_every_option_of_regularization_is_shown_and_read_back(tmp_path: Path):
    flags = ["--regularized.label-smoothing", "0", "--regularized.mixup", "0.2", "--regularization.relax", "0.3"]
    text = comparison.to_toml(load("digits", [*flags, "--regularization.early-stopping", "10"]))
    for line in ("mixup = 0.2", "relax = 0.3", 'relax_by = "example"', "early_stopping = 10", "distillation = 0"):
        assert f"\n{line}\n" in text, line
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert load(str(path)).recipe.regularization.relax == 0.3


def test_mixup_is_for_baselines_without_clipping_and_refused_before_anything_is_trained():
    """Of the `regularized` baseline it is fine; of the recipe itself it would reach the private models."""
    data = dptrain.data.load(load("digits").recipe.data)
    plain = ["--seeds", "0", "--epsilons", "8", "--regularized.label-smoothing", "0"]
    for flag, refused in (("--regularized.mixup", False), ("--regularization.mixup", True)):
        made = load("digits", [*plain, flag, "0.2"])
        splits = {0: draw(len(data), made.recipe.data.split, 0)}
        if refused:
            with pytest.raises(ConfigError, match=r"mixup is 0\.2.*no ε would hold"):
                runs.check(made.jobs(), data, splits)
        else:
            runs.check(made.jobs(), data, splits)


def test_labels_are_padded_so_that_they_sort():
    made = dataclasses.replace(load("digits"), epsilons=(10.0, 8.0, 0.5), baselines=())
    assert [job.label for job in made.jobs()][::3] == ["eps=10.00/seed=0", "eps=08.00/seed=0", "eps=00.50/seed=0"]


def test_budgets_that_differ_have_labels_that_differ():
    made = Comparison(epsilons=(1.001, 1.002, 1.0), baselines=())
    labels = [job.label for job in made.jobs()]
    assert len(set(labels)) == len(labels)


def test_one_budget_by_privacy_epsilon_takes_the_place_of_the_list():
    made = load("digits", ["--privacy.epsilon", "4"])
    assert {job.epsilon for job in made.jobs()} == {4.0, math.inf}


def test_a_budget_by_flag_takes_the_place_of_the_files(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("[privacy]\nepsilon = 4.0\n")
    assert {job.epsilon for job in load(str(path)).jobs()} == {4.0, math.inf}
    assert load(str(path), ["--epsilons", "8", "2"]).epsilons == (8.0, 2.0)
    path.write_text("epsilons = [8.0, 2.0]\n")
    assert load(str(path), ["--privacy.epsilon", "4"]).epsilons == (4.0,)
    path.write_text("epsilons = [8.0, 2.0]\n[privacy]\nepsilon = 4.0\n")
    with pytest.raises(ConfigError, match="both privacy"):
        load(str(path))


@pytest.mark.parametrize(
    "flags",
    [
        ["--data.image-size", "8", "12"],
        ["--data.classes", "ja", "nein"],
        ["--data.columns", "age:number[0,120]", "sex:category[F,M]?"],
        ["--model.hidden", "64", "32"],
        ["--title", "a\nb\r\u0007\x7f\x00\tc é ∞ # [x]"],
        ["--title", "x\nepsilons=[1.0]"],
        ["--data.path", "some where/ü.csv", "--data.target", 'a"b\\c'],
        ["--privacy.epsilon", "3"],
        ["--insecure-seed", "7"],
        ["--performance.threads", "2"],
        ["--training.checkpoint-every", "5"],
    ],
)
def test_whatever_was_typed_is_read_back(flags: list[str], tmp_path: Path):
    """A run writes down its comparison; one that cannot be read again would be lost with its models."""
    made = load("digits", flags)
    assert made != load("digits")
    assert comparison.from_toml(comparison.to_toml(made), tmp_path / "comparison.toml") == made


def test_a_title_is_of_its_own_data_and_model():
    assert load("digits").title
    assert load("digits", ["--model.name", "mlp"]).title == ""
    assert load("digits", ["--model.name", "mlp", "--title", "Mine"]).title == "Mine"


@pytest.mark.parametrize(
    ("recipe", "data", "title"),
    [
        ("digits", "patients.csv", "patients.csv, by the recipe digits"),
        ("digits", "digits", "digits"),
        ("mnist_small", "mnist", "mnist_small"),
    ],
)
def test_a_comparison_of_other_data_is_not_called_after_its_recipe_alone(recipe: str, data: str, title: str):
    from recipes.runs import titled

    assert titled(recipe, data) == title


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(ConfigError, match="UTF-8"):
        load("digits", ["--title", "\udcff"])


ALONE = ["--regularizers", "alone"]


def alone_of(*flags: str) -> list[comparison.Job]:
    return [job for job in load("digits", [*ALONE, "--seeds", "0", *flags]).jobs() if job.variant == "regularized"]


def test_regularizers_alone_are_a_model_for_each_option_with_that_option_only():
    each = {job.regularizer: job.recipe.regularization for job in alone_of()}
    assert each == {
        "dropout=0.2": RegularizationConfig(dropout=0.2),
        "weight_decay=0.001": RegularizationConfig(weight_decay=0.001),
        "label_smoothing=0.1": RegularizationConfig(label_smoothing=0.1),
    }


def test_regularizers_together_are_what_they_were():
    """A comparison from before there was a choice goes on in the folder that it has."""
    made = load("digits")
    (job,) = [job for job in made.jobs() if job.variant == "regularized" and job.seed == 0]
    assert (job.label, job.regularizer) == ("regularized/seed=0", "")
    assert job.recipe.regularization == made.regularized
    older = comparison.to_toml(made).replace('regularizers = "together"\n', "")
    assert comparison.from_toml(older, Path("comparison.toml")) == made


def test_what_says_how_an_option_is_meant_goes_with_it():
    flags = (
        "--regularized.relax 0.3 --regularized.relax-by batch --regularized.label-entropy 0.8 --regularized.output-entropy 0.1"
    )
    each = {job.regularizer: job.recipe.regularization for job in alone_of(*flags.split())}
    assert each["relax=0.3,relax_by=batch"] == RegularizationConfig(relax=0.3, relax_by="batch")
    assert each["label_entropy=0.8,output_entropy=0.1"] == RegularizationConfig(label_entropy=0.8, output_entropy=0.1)
    assert len(each) == 5
    (without,) = [job for job in alone_of("--regularized.output-entropy", "0.1") if "entropy" in job.regularizer]
    assert without.recipe.regularization == RegularizationConfig(output_entropy=0.1)
    assert not any("relax" in job.regularizer for job in alone_of("--regularized.relax-by", "batch"))


def test_options_that_one_model_cannot_have_together_can_each_be_alone():
    """Label smoothing and mixup both decide what an output should be."""
    with pytest.raises(ConfigError, match=r"label_smoothing and mixup.*--regularizers alone"):
        load("digits", ["--regularized.mixup", "0.2"])
    assert "mixup=0.2" in {job.regularizer for job in alone_of("--regularized.mixup", "0.2")}
    with pytest.raises(ConfigError, match="label_smoothing and mixup"):
        load("digits", [*ALONE, "--regularization.mixup", "0.2", "--regularization.label-smoothing", "0.1"])


def test_labels_of_regularizers_alone_are_folders_that_differ():
    jobs = load("mnist_regularizers").jobs()
    labels = [job.label for job in jobs]
    assert len(set(labels)) == len(labels) == 3 * (1 + 8 + 2)
    assert "regularized-label_smoothing=0.1/seed=0" in labels
    assert all(label.count("/") == 1 and not set(label) & set(' \\:*?"<>|') for label in labels)
    assert [job.label for job in alone_of("--regularized.label-smoothing", "-0.05")][-1].endswith("=-0.05/seed=0")


def test_clipping_alone_and_the_other_rows_are_no_part_of_the_choice():
    kinds = {job.label for job in load("digits", [*ALONE, "--seeds", "0"]).jobs() if job.variant != "regularized"}
    assert kinds == {job.label for job in load("digits", ["--seeds", "0"]).jobs() if job.variant != "regularized"}
    nothing = ["--baselines", "clip_only", "--regularized.dropout", "0", "--regularized.weight-decay", "0"]
    load("digits", [*ALONE, *nothing, "--regularized.label-smoothing", "0"])


def test_the_choice_is_shown_and_read_back(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(comparison.to_toml(load("digits", ALONE)))
    assert load(str(path)).regularizers == "alone"


def test_what_is_not_covered_is_said_of_the_unit_that_is_promised_to():
    """A report of users said that the guarantee hides one example; and no guarantee hides who is a class."""
    of_examples, of_users = (" ".join(runs.not_covered(unit, "users")) for unit in ("example", "user"))
    assert "hides one example" in of_examples
    assert "hides one user" in of_users
    assert "hides one example" not in of_users
    assert "the list of classes is public" in of_users
    assert "the list of classes is public" not in " ".join(runs.not_covered("user", "kinds"))


@pytest.mark.parametrize(
    ("written", "guard"),
    [
        ("distortion = 0.5\n", None),
        ('guard = "memguard"\ndistortion = 0.25\n', "memguard0.25"),
        ('guard = "label_only"\ndistortion = 0.5\n', "label_only"),
    ],
)
def test_a_run_that_was_kept_before_guards_had_numbers_is_still_read(tmp_path: Path, written: str, guard: str | None):
    text = comparison.to_toml(comparison.load("digits"))
    assert "[release]" not in text
    path = tmp_path / "comparison.toml"
    path.write_text(f"{text}\n[release]\n{written}")
    assert comparison.from_toml(path.read_text(), path).recipe.release.guard == guard
    assert comparison.load(str(path)).recipe.release.guard == guard
