"""What ``dptrain run`` runs: a recipe, its evaluation plan, budgets and seeds; as TOML and as flags.

A TOML file and the command line are the same thing twice: the file is turned into flags, the user's flags are put behind
them, and one parser checks both. Every field is a flag (``--privacy.delta 1e-5``); a key or flag that does not exist is
refused with the nearest name. Imports no torch.
"""

import contextlib
import dataclasses
import io
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from dptrain.errors import ConfigError, nearest, unknown_name
from dptrain.plain import as_plain
from dptrain.recipe import OptimizerConfig, Performance, Recipe, RegularizationConfig
from evaluation.plan import EvaluationPlan
from evaluation.result import Variant

if TYPE_CHECKING:
    from dptrain.ledger import Total

HERE = Path(__file__).parent
Regularizers = Literal["together", "alone"]
MOST_SEEDS = 1000
"""Of one range."""
Unprotected = Literal["refused", "allowed"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A recipe under several budgets and beside its baselines."""

    title: str = ""
    """What the comparison shows, in a line."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    epsilons: tuple[float, ...] = (math.inf, 8.0, 4.0, 2.0, 1.0)
    """Budgets; inf is training without differential privacy."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each draws its own split and initial weights; a headline wants at least three. `0..4` is 0 1 2 3 4."""
    baselines: tuple[Variant, ...] = ("non_private", "clip_only", "regularized")
    """Runs without a guarantee, with as many updates: what is lost to clipping, and what regularization does alone."""
    non_private_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Of `non_private` and `regularized`, whose gradients are not clipped. Left out it is the default one, not `optimizer`: a
    step that suits clipped gradients suits no others."""
    regularized: RegularizationConfig = field(default_factory=RegularizationConfig)
    """Of the `regularized` baseline."""
    regularizers: Regularizers = "together"
    """All options of `regularized` in one model, or each `alone` in a model of its own, so that one sees which did what."""
    performance: Performance = field(default_factory=Performance)
    output: str = ""
    """Folder of the comparison; left out, runs/NAME."""
    total_epsilon: float | None = None
    """How much may be spent on these data in all, at privacy.delta, with what was spent before: what would pass it is not
    begun. `dptrain ledger limit` states one for good."""
    unprotected: Unprotected = "refused"
    """Of runs without a guarantee, under total_epsilon: their ε is infinite, so that they are `refused`, or `allowed` where
    nothing of them ever leaves this machine."""
    insecure_seed: int | None = None
    """Repeatable batches and noise, for debugging alone: whoever knows it can remove the noise. Recorded with each run."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds is {self.seeds}; give different whole numbers from 0 up, such as 0 1 2")
        for epsilon in self.epsilons:
            if not epsilon > 0:
                raise ConfigError(f"epsilons holds {epsilon:g}; give budgets above 0, such as 8 4 2 1, or inf for no privacy")
        if len(set(self.epsilons)) != len(self.epsilons):
            raise ConfigError(f"epsilons is {self.epsilons}; give each budget once")
        if self.recipe.privacy.mechanism != "gaussian":
            raise ConfigError("privacy.mechanism is decided by epsilons and baselines; leave it out of a comparison")
        if self.recipe.privacy.sampling == "fixed_size":
            raise ConfigError(
                "privacy.sampling is 'fixed_size', whose number of examples must be public, and a comparison draws its members "
                "by coins; give 'poisson', or train in a script with make_private()"
            )
        if self.insecure_seed is not None and self.insecure_seed < 0:
            raise ConfigError(f"insecure_seed is {self.insecure_seed}; give a whole number from 0 up, or leave it out")
        if self.unprotected not in get_args(Unprotected):
            raise unknown_name("value of unprotected", self.unprotected, get_args(Unprotected))
        if self.total_epsilon is not None and not self.total_epsilon > 0:
            raise ConfigError(f"total_epsilon is {self.total_epsilon:g}; give a number above 0, such as 10, or leave it out")
        if not self.epsilons and not self.baselines:
            raise ConfigError("there is nothing to run: give epsilons, such as --epsilons 8 4, or baselines")
        if "regularized" in self.baselines:
            self._check_regularizers()

    def _check_regularizers(self) -> None:
        if self.regularizers not in get_args(Regularizers):
            raise unknown_name("value of regularizers", self.regularizers, get_args(Regularizers))
        if self.regularizers == "alone" and not self.regularized.each_alone():
            raise ConfigError(
                "regularizers is 'alone', and regularized sets no option that could be; set some, such as "
                "--regularized.label-smoothing 0.1, or leave regularized out of baselines"
            )
        if self.regularizers == "together":
            try:
                self.regularized.check_together()
            except ConfigError as error:
                raise ConfigError(f"of the baseline regularized: {error}, or each to its own by --regularizers alone") from None

    def total(self) -> "Total | None":
        """What may be spent on its data in all, where it says so."""
        if self.total_epsilon is None:
            return None
        from dptrain.ledger import Total

        delta, unprotected = self.recipe.privacy.delta, self.unprotected
        return Total(epsilon=self.total_epsilon, delta=delta, unprotected=unprotected, how="--total-epsilon")

    def jobs(self) -> list["Job"]:
        """Every model to train: non-private first, since it is the positive control of all others."""
        budgets = self.epsilons if self.recipe.privacy.epsilon is None else (self.recipe.privacy.epsilon,)
        without: list[Variant] = [name for name in ("clip_only", "regularized") if name in self.baselines]
        if math.inf in budgets or "non_private" in self.baselines:
            without.insert(0, "non_private")
        kinds: list[tuple[Variant, float]] = [(variant, math.inf) for variant in without]
        kinds.extend(("dp", epsilon) for epsilon in sorted(budgets, reverse=True) if math.isfinite(epsilon))
        return [
            Job(variant, epsilon, seed, recipe, regularizer)
            for variant, epsilon in kinds
            for regularizer, recipe in self._recipes(variant, epsilon).items()
            for seed in self.seeds
        ]

    def _recipes(self, variant: Variant, epsilon: float) -> dict[str, Recipe]:
        """The recipe of one budget or baseline; where regularizers are alone, those of each. All have the same data, model,
        batches and number of updates."""
        recipe = self.recipe
        mechanism = {"dp": "gaussian", "clip_only": "clip_only"}.get(variant, "none")
        budget = epsilon if variant == "dp" else None
        recipe = dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, mechanism=mechanism, epsilon=budget))
        if variant in ("non_private", "regularized"):
            recipe = dataclasses.replace(recipe, optimizer=self.non_private_optimizer)
        if variant != "regularized":
            return {"": recipe}
        each = {"": self.regularized} if self.regularizers == "together" else self.regularized.each_alone()
        return {name: dataclasses.replace(recipe, regularization=options) for name, options in each.items()}


@dataclass(frozen=True)
class Job:
    """One model to train and attack."""

    variant: Variant
    epsilon: float
    seed: int
    recipe: Recipe
    regularizer: str = ""
    """Where it is alone, its name and value, such as ``label_smoothing=0.1``."""

    @property
    def label(self) -> str:
        """Its folder below the comparison's, such as ``eps=08.00/seed=0`` or ``regularized-label_smoothing=0.1/seed=0``."""
        whole, _, part = format(Decimal(repr(float(self.epsilon))), "f").partition(".")
        kind = f"eps={whole:0>2}.{part:0<2}" if self.variant == "dp" else self.variant
        kind += f"-{self.regularizer}" if self.regularizer else ""
        return f"{kind}/seed={self.seed}"


# -- TOML and flags -------------------------------------------------------------------------------------------------


def load(name: str, flags: Sequence[str] = ()) -> Comparison:
    """The comparison of a recipe's TOML file with the user's flags on top.

    One budget by ``privacy.epsilon`` takes the place of ``epsilons``, and the other way round where it is a flag. The paths
    of data and of a published model become absolute, so that a run can be looked at from anywhere. A title is of the file's own
    data and model.

    Args:
        name: a recipe of this package, such as ``digits``, or the path of a TOML file.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key or flag, or a value that does not fit.
    """
    path = find(name)
    table = _as_now(read_toml(path))
    given = check_flags(flags)
    if "epsilon" in table.get("privacy", {}) and "epsilons" in table:
        raise ConfigError(f"{path} gives both privacy.epsilon and epsilons; give one budget, or several, not both")
    if "epsilons" in given:
        table.get("privacy", {}).pop("epsilon", None)
    comparison = parse([*as_flags(table, path), *flags], default_output=f"runs/{path.stem}")
    recipe, title = comparison.recipe, comparison.title
    if "title" not in given and given & {"data.name", "data.path", "model.name"}:
        title = ""
    epsilons = comparison.epsilons if recipe.privacy.epsilon is None else (recipe.privacy.epsilon,)
    recipe = dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, epsilon=None))
    if recipe.data.path is not None:
        located = str(Path(recipe.data.path).expanduser().resolve())
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=located))
    model = dataclasses.replace(recipe.model, pretrained=_located(recipe.model.pretrained))
    data = dataclasses.replace(recipe.data, tokenizer=_located(recipe.data.tokenizer))
    recipe = dataclasses.replace(recipe, model=model, data=data)
    return dataclasses.replace(comparison, recipe=recipe, title=title, epsilons=epsilons)


def _located(published: str | None) -> str | None:
    """A folder's absolute path; a name on the hub as it is."""
    path = None if published is None else Path(published).expanduser()
    return str(path.resolve()) if path is not None and path.is_dir() else published


def from_toml(text: str, path: Path) -> Comparison:
    """What :func:`to_toml` wrote; errors as in :func:`load`, naming ``path``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return parse(as_flags(_as_now(table), path))


def _as_now(table: dict[str, Any]) -> dict[str, Any]:
    """A file of an earlier version: MemGuard's distortion had a key of its own, and is now glued to the guard's name."""
    release = dict(table.get("release", {}))
    distortion = release.pop("distortion", None)
    if distortion is None:
        return table
    if release.get("guard") == "memguard":
        release["guard"] = f"memguard{distortion:g}"
    return {**table, "release": release}


def find(name: str) -> Path:
    """Where a recipe's file lies."""
    named = HERE / f"{name}.toml"
    if "/" not in name and named.exists():
        return named
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise ConfigError(f"there is no file {name}; type `dptrain list` for the recipes that come along")
    raise unknown_name("recipe", name, names())


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def about(name: str) -> str:
    """The first comment line of a recipe: what it shows."""
    first = find(name).read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").strip()


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def options() -> dict[str, Any]:
    """Every key of a comparison, dotted, with its type; what both TOML and flags are checked against."""
    return dict(_options(Comparison, ""))


def _options(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _options(hint, prefix if item.name == "recipe" else f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", hint


def as_flags(table: Mapping[str, Any], path: Path) -> list[str]:
    """A TOML table as flags.

    Raises:
        ConfigError: a key that does not exist, with the nearest one; or a value of a kind that no flag has.
    """
    known = options()
    flags: list[str] = []
    for key, value in _flatten(table, ""):
        if key not in known:
            raise ConfigError(f"{path} has the unknown key {key!r}; {_hint(key, known)}")
        if key == "seeds" and isinstance(value, str):  # "0..4"
            value = value.split()
        is_list = any(get_origin(kind) is tuple for kind in (known[key], *get_args(known[key])))
        if isinstance(value, list) != is_list:
            accepted = "a list, such as [8.0, 4.0]" if is_list else "one value, not a list"
            raise ConfigError(f"{path} gives {key} = {value!r}; give {accepted}")
        if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value)):
            raise ConfigError(f"{path} gives {key} = {value!r}; no key takes a value of that kind")
        flags.append(f"--{key}")
        flags += [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return flags


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_flags(flags: Sequence[str]) -> set[str]:
    """The keys that the flags give.

    Raises:
        ConfigError: a flag that does not exist, with the nearest one; budgets given twice; or text that is not UTF-8.
    """
    known = options()
    given: list[str] = []
    if flags and not flags[0].startswith("--"):
        raise ConfigError(f"{flags[0]!r} stands before any flag; write it behind the flag it belongs to")
    for flag in flags:
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in flag):
            raise ConfigError(f"{flag!r} is not UTF-8 text; type it in UTF-8")
        if not flag.startswith("--"):
            continue
        key = flag[2:].split("=", 1)[0].replace("-", "_")
        if key not in known:
            raise ConfigError(f"there is no flag {flag.split('=', 1)[0]}; {_hint(key, known, is_flag=True)}")
        given.append(key)
    if "privacy.epsilon" in given and "epsilons" in given:
        raise ConfigError("both --privacy.epsilon and --epsilons are given; give one budget, or several, not both")
    return set(given)


def _hint(key: str, known: Mapping[str, Any], is_flag: bool = False) -> str:
    last = key.split(".")[-1]
    by_last = {name.split(".")[-1]: name for name in known}
    guess = by_last.get(last) or nearest(key, known)
    if guess is None:
        close = nearest(last, by_last)
        guess = by_last[close] if close else None
    if guess is None:
        return "type `dptrain run --help` for all of them"
    return f"did you mean --{guess.replace('_', '-')}?" if is_flag else f"did you mean {guess!r}?"


def parse(flags: Sequence[str], default_output: str = "") -> Comparison:
    """A comparison from flags alone.

    Raises:
        ConfigError: a value that does not fit its field.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            comparison = tyro.cli(Comparison, args=_last_wins(flags), prog="dptrain run", config=(tyro.conf.FlagConversionOff,))
    except SystemExit:
        raise ConfigError(_one_sentence(printed.getvalue())) from None
    if not comparison.output:
        comparison = dataclasses.replace(comparison, output=default_output)
    return comparison


def help_text() -> str:
    """Every flag with its type, default and meaning."""
    printed = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        tyro.cli(Comparison, args=["--help"], prog="dptrain run RECIPE", description="Train, attack, report.")
    return printed.getvalue().rstrip()


def _last_wins(flags: Sequence[str]) -> list[str]:
    """Each flag once, with the values that were given last."""
    groups: dict[str, list[str]] = {}
    current: list[str] | None = None
    for flag in flags:
        if flag.startswith("--"):
            name, _, value = flag.partition("=")
            name = name.replace("-", "_").replace("__", "--", 1)
            current = [value] if value else []
            groups[name] = current
        elif current is not None:
            current.append(flag)
    if "--seeds" in groups:
        groups["--seeds"] = [seed for text in groups["--seeds"] for seed in seeds_of(text)]
    return [part for name, values in groups.items() for part in (name, *values)]


def seeds_of(text: str) -> list[str]:
    """``0..4`` as 0 1 2 3 4, both ends among them; anything else as it is, for the parser to judge."""
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if found is None:
        if ".." in text:
            raise ConfigError(f"seeds holds {text!r}; give the first and the last of them, such as 0..4")
        return [text]
    first, last = map(int, found.groups())
    if last < first:
        raise ConfigError(f"seeds holds {text!r}; give the smaller one first, such as {last}..{first}")
    if last - first >= MOST_SEEDS:
        raise ConfigError(f"seeds holds {text!r}, which are {last - first + 1}; give {MOST_SEEDS} at most")
    return [str(seed) for seed in range(first, last + 1)]


READ = (
    (r"invalid literal for int\(\) with base 10: (.*)", "a whole number, such as 5"),
    (r"could not convert string to float: (.*)", "a number, such as 0.5 or 1e-5"),
    (r"Could not find valid parse for arguments: \[(.*)\]", "numbers with spaces between them, such as 8 4 2"),
)
"""What the parser says of a value that it could not read, and what is to be given."""


def _one_sentence(printed: str) -> str:
    """The parser's message without its frame, its help text and its list of every type that it tried."""
    lines = [line.strip("│╭╮╰╯─- ") for line in printed.splitlines()]
    text = " ".join(line for line in lines if line).split("Argument helptext:")[0].split("For full helptext")[0].strip()
    found = re.search(r"Error parsing ([\w.-]+): (.*)", text)
    if found is None and (missing := re.search(r"Missing value for argument '([^']+)'", text)):
        return f"{missing[1]} is the last word, or another flag comes after it; give a value behind it"
    if found is None and (other := re.search(r"nvalid choice '(.*)' for argument '([^']+)'. Expected one of \((.*)\)", text)):
        return f"{other[2]} is {other[1]!r}; accepted: {other[3].replace(chr(39), '')}"
    if found is None:
        return re.sub(r"^(Parsing error|Invalid choice|Missing value|Value error)\s+", "", text) or "a flag could not be read"
    where, message = found.groups()
    if not where.startswith("--"):
        return message
    for pattern, accepted in READ:
        if value := re.search(pattern, message):
            return f"{where} is {value[1]}; give {accepted}"
    tried = re.search(r"no type matching (.+?) could be instantiated from (\[.*?\])", message)
    message = f"{tried[2]} is none of {tried[1]}" if tried else message
    return f"{where} could not be read: {message}"


def to_toml(comparison: Comparison) -> str:
    """The resolved comparison as TOML that :func:`load` reads back."""
    tables: dict[str, list[str]] = {"": []}
    for key in options():
        value: Any = comparison if key.split(".")[0] in _own() else comparison.recipe
        for part in key.split("."):
            value = getattr(value, part)
        if value is None:
            continue
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {_toml_value(value)}")
    parts = ["\n".join(tables.pop(""))]
    parts += [f"[{table}]\n" + "\n".join(lines) for table, lines in tables.items()]
    return "\n\n".join(parts) + "\n"


def _own() -> set[str]:
    return {item.name for item in dataclasses.fields(Comparison) if item.name != "recipe"}


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's as well
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "inf"
    return str(value)


def plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison for a result or a hash; where it is written and how fast it runs are left out."""
    return {key: value for key, value in as_plain(comparison).items() if key not in ("output", "performance")}
