"""What a selection is asked for, and what was drawn for it: as flags, and as ``private/selection.json``.

    asked = Asked.of(["digits", "--epsilon", "4", "--candidates", "optimizer.learning_rate=1,2", "--output", "runs/chosen"])
    write(drawn); read(asked.root)

The file holds how many trainings there are and which candidate each takes. Nobody but who holds the data may see it.
"""

import dataclasses
import functools
import itertools
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from dptrain.checkpoint import unpack_json
from dptrain.errors import CheckpointError, ConfigError, nearest, unknown_name
from dptrain.files import write_file
from dptrain.plain import as_plain, from_plain
from dptrain.recipe import Recipe
from dptrain.selected import Selection
from dptrain.selection import Runs
from recipes import comparison as comparisons
from recipes.comparison import Comparison

SCHEMA = "dptrain.selection/1"
SCORERS = {"held-out": "held_out", "public": "public"}
OWN = ("--epsilon", "--each-epsilon", "--runs", "--mean", "--shape", "--score", "--score-noise")
MAY_DIFFER = ("optimizer", "model", "training", "regularization", "pretraining", "privacy")
FIXED = ("privacy.delta", "privacy.epsilon", "privacy.unit", "privacy.relation", "privacy.mechanism")
"""All candidates promise the same thing to the same unit."""


@dataclass(frozen=True)
class Asked:
    """What is to be selected from, and by how much."""

    comparison: Comparison
    """The recipe without its candidates' options."""
    name: str
    options: tuple[tuple[str, tuple[str, ...]], ...]
    """Keys and the values that each may take, as texts."""
    runs: Runs
    scorer: str = "held_out"
    score_noise: float | None = None
    epsilon: float | None = None
    """Of the choice."""
    each_epsilon: float | None = None
    """Of one training, in its place."""

    @classmethod
    def of(cls, arguments: list[str]) -> "Asked":
        """From flags.

        Raises:
            ConfigError: a flag that is not known, a value that does not fit, no candidates or no budget.
            PlanError: a distribution that is not proved.
        """
        if not arguments or arguments[0].startswith("-"):
            raise ConfigError("`dptrain select` needs a recipe, such as digits, as its first word")
        name, rest = arguments[0], arguments[1:]
        own, options, rest = _own_flags(rest)
        comparison = _loaded(name, rest)
        law = Runs(
            distribution=own.get("--runs", "geometric"),  # pyright: ignore[reportArgumentType]  checked there
            mean=_number("--mean", own.get("--mean", "6")),
            shape=None if "--shape" not in own else _number("--shape", own["--shape"]),
        )
        scorer = own.get("--score", "held-out").replace("_", "-")
        if scorer not in SCORERS:
            raise unknown_name("value of --score", scorer, SCORERS)
        noise = None if "--score-noise" not in own else _number("--score-noise", own["--score-noise"])
        if noise is not None and (scorer == "public" or not (math.isfinite(noise) and noise > 0)):
            raise ConfigError(
                f"--score-noise is {noise:g} with --score {scorer}; give a number above 0, such as 6, with held-out alone"
            )
        given = [flag for flag in ("--epsilon", "--each-epsilon") if flag in own]
        if len(given) != 1:
            raise ConfigError("give one budget: --epsilon 4 of the chosen model, or --each-epsilon 2 of each training")
        budget = _number(given[0], own[given[0]])
        if not (math.isfinite(budget) and budget > 0):
            raise ConfigError(f"{given[0]} is {budget:g}; give a finite budget above 0, such as 4")
        key = given[0].removeprefix("--").replace("-", "_")
        asked = cls(comparison, Path(name).stem, options, law, SCORERS[scorer], noise, **{key: budget})
        candidates_of(asked)  # every value fits its key
        return asked

    @property
    def root(self) -> Path:
        return Path(self.comparison.output).resolve()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the candidates: what each sets."""
        return tuple(" ".join(f"{key}={value}" for key, value in one) for one in self._combinations())

    def _combinations(self) -> list[tuple[tuple[str, str], ...]]:
        keys = [key for key, _ in self.options]
        return [tuple(zip(keys, values, strict=True)) for values in itertools.product(*(value for _, value in self.options))]

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it; where it is written and how fast it runs are no part of it."""
        rest = {item.name: as_plain(getattr(self, item.name)) for item in dataclasses.fields(self) if item.name != "comparison"}
        kept = dataclasses.replace(self.comparison, output="", performance=Comparison().performance)
        return json.loads(json.dumps({**rest, "comparison": comparisons.to_toml(kept)}))


def candidates_of(asked: Asked, each: tuple[float, ...] | None = None) -> list[Recipe]:
    """The recipe of each candidate, checked by the parser of all recipes.

    Args:
        each: ε of one training, by candidate.
    """
    found = _parsed(asked)
    if each is None:
        return list(found)
    given = zip(found, each, strict=True)
    return [dataclasses.replace(one, privacy=dataclasses.replace(one.privacy, epsilon=epsilon)) for one, epsilon in given]


@functools.lru_cache(maxsize=8)
def _parsed(asked: Asked) -> tuple[Recipe, ...]:
    base = comparisons.as_flags(tomllib.loads(comparisons.to_toml(asked.comparison)), Path("--candidates"))
    found = []
    for one in asked._combinations():
        flags = [part for key, value in one for part in (f"--{key}", value)]
        found.append(comparisons.parse([*base, *flags]).recipe)
    return tuple(found)


# -- what was drawn -------------------------------------------------------------------------------------------------


@dataclass
class Drawn:
    """A selection under way."""

    asked: Asked
    command: str
    data: str
    """Fingerprint."""
    selection: Selection
    each: tuple[float, ...]
    """ε of one training, by candidate."""
    candidates: tuple[int, ...]
    """Which candidate each training takes; there are K of them."""
    identity: str
    """By which the data set's account knows it, and no other in the same folder."""
    scores: list[float | None] = field(default_factory=list)
    chosen: int | None = None
    """Which training; −1 for none."""

    def __post_init__(self) -> None:
        self.scores = self.scores or [None] * len(self.candidates)

    def folder(self, number: int) -> Path:
        """Where a training is, while it is one of several."""
        return self.asked.root / "private" / "trainings" / f"{number:04d}"


def write(drawn: Drawn) -> None:
    """Puts it on the disk, whole, for its owner alone."""
    content = {
        "schema": SCHEMA,
        "asked": drawn.asked.as_plain(),
        "command": drawn.command,
        "data": drawn.data,
        "selection": as_plain(drawn.selection),
        "each": drawn.each,
        "candidates": drawn.candidates,
        "id": drawn.identity,
        "scores": as_plain(drawn.scores),
        "chosen": drawn.chosen,
    }
    path = drawn.asked.root / "private" / "selection.json"
    write_file(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(), mode=0o600)


def read(root: Path) -> Drawn:
    """What was drawn for the selection in ``root``.

    Raises:
        CheckpointError: it is missing, damaged, or of another version.
    """
    path = root / "private" / "selection.json"
    if not path.is_file():
        raise CheckpointError(f"{root} holds no selection; name the folder that `dptrain select` made")
    stored = unpack_json(path.read_bytes(), path)
    if stored.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} has the schema {stored.get('schema')!r}, and this version reads {SCHEMA!r}")
    try:
        said = stored["asked"]
        comparison = dataclasses.replace(comparisons.from_toml(said["comparison"], path), output=str(root.resolve()))
        asked = Asked(
            comparison=comparison,
            name=said["name"],
            options=tuple((key, tuple(values)) for key, values in said["options"]),
            runs=from_plain(Runs, said["runs"], str(path)),
            **{key: said[key] for key in ("scorer", "score_noise", "epsilon", "each_epsilon")},
        )
        return Drawn(
            asked=asked,
            command=stored["command"],
            data=stored["data"],
            selection=from_plain(Selection, stored["selection"], str(path)),
            each=tuple(stored["each"]),
            candidates=tuple(stored["candidates"]),
            identity=stored["id"],
            scores=[None if value is None else float(value) for value in stored["scores"]],
            chosen=stored["chosen"],
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not complete: {error}; restore it from a copy") from None


# -- flags ----------------------------------------------------------------------------------------------------------


def _own_flags(arguments: list[str]) -> tuple[dict[str, str], tuple[tuple[str, tuple[str, ...]], ...], list[str]]:
    """The flags of the command itself, the candidates, and what is left for the recipe."""
    own: dict[str, str] = {}
    rest: list[str] = []
    candidates: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        head, equals, value = word.partition("=")
        if head == "--candidates":
            candidates += [value] if equals else []
            while words and not words[0].startswith("--"):
                candidates.append(words.pop(0))
        elif head in OWN:
            if not equals and not words:
                raise ConfigError(f"{head} needs a value behind it")
            own[head] = value if equals else words.pop(0)
        else:
            rest.append(word)
    if not candidates:
        raise ConfigError("--candidates is not given; say what may differ, such as --candidates optimizer.learning_rate=1,2,4")
    return own, _options(candidates), rest


def _options(candidates: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    known, found = comparisons.options(), {}
    allowed = [
        key for key in known if key.split(".")[0] in MAY_DIFFER and "." in key and key not in FIXED and not _is_list(known[key])
    ]
    for text in candidates:
        key, equals, values = text.partition("=")
        key = key.removeprefix("--").replace("-", "_")
        each = tuple(value.strip() for value in values.split(","))
        if not equals or not all(each):
            raise ConfigError(f"the candidate {text!r} is not KEY=VALUE,VALUE; write such as optimizer.learning_rate=1,2,4")
        if key not in allowed:
            if key in known:
                raise ConfigError(
                    f"{key} cannot differ between candidates, which must have the same data and promise the same; give one of "
                    "the optimizer's, model's, training's or regularization's options, or privacy.clipping_norm"
                )
            guess = nearest(key, allowed)
            raise ConfigError(
                f"there is no option {key!r}; " + (f"did you mean {guess!r}?" if guess else "see `dptrain run --help`")
            )
        if key in found or len(set(each)) != len(each):
            raise ConfigError(f"the candidates name {key} or one of its values twice: {text!r}; give each once")
        found[key] = each
    return tuple(found.items())


def _is_list(kind: Any) -> bool:
    return any(get_origin(one) is tuple for one in (kind, *get_args(kind)))


def _loaded(name: str, rest: list[str]) -> Comparison:
    given = comparisons.check_flags(rest) if rest else set()
    if given & {"epsilons", "privacy.epsilon", "baselines", "regularizers"}:
        raise ConfigError("a selection has one budget and no baselines; give --epsilon, and leave the flags of comparisons out")
    comparison = comparisons.load(name, rest)
    if "seeds" in given and len(comparison.seeds) > 1:
        raise ConfigError(f"--seeds gives {len(comparison.seeds)} seeds; a selection has one split, so give one")
    output = comparison.output if "output" in given else f"{comparison.output}-selected"
    epsilons = comparison.epsilons or (8.0,)
    return dataclasses.replace(comparison, output=output, seeds=comparison.seeds[:1], epsilons=epsilons, baselines=())


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; give a number") from None
