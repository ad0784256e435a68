"""``dptrain budget``: what a privacy budget means before anything is trained.

    dptrain budget --epsilon 3 --delta 1e-5 --examples 60000 --batch 1024 --epochs 20      # which noise?
    dptrain budget --noise-multiplier 1.1 --delta 1e-5 --examples 60000 --batch 256 --epochs 60        # which ε?
    dptrain budget --epsilon 3 --noise-multiplier 1.1 --delta 1e-5 --examples 60000 --batch 256        # how many steps?

Two of ε, noise and steps are given, and the third is found. Any two of --examples, --batch and --sampling-rate give the other.
Every other field of a privacy plan is a flag as well. No data are read, and nothing is trained: N is what you state.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from dptrain.errors import ConfigError, PlanError, nearest
from dptrain.files import write_file
from dptrain.recipe import Clipping, EdgeRelease, Noise, Relation, Sampling, Unit

SUFFIXES = (".html", ".svg", ".json")
PLAIN = {"unit": Unit, "relation": Relation, "sampling": Sampling, "clipping": Clipping, "noise": Noise,
         "edge_release": EdgeRelease}  # fmt: skip
WHOLE = ("max_examples_per_unit", "max_batch_size", "max_examples", "bands", "max_degree", "aggregations", "occurrences")
FLOATS = ("aggregation_noise", "automatic_stability")
PATIENCE = 8.0
"""Seconds after which it is said that counting goes on."""
UNREAD = r"argument (\S+): invalid (?:(float|int) value|choice): ('[^']*')(?: \(choose from (.*)\))?"
"""How argparse says that it could not read a value."""


class Parser(argparse.ArgumentParser):
    """One that says what is wrong as every command does, with the nearest flag."""

    def error(self, message: str) -> NoReturn:
        told = re.fullmatch(UNREAD, message)
        if told is not None:
            flag, kind, value, choices = told.groups()
            accepted = f"accepted: {choices.replace(chr(39), '')}" if choices else f"give a {'whole ' * (kind == 'int')}number"
            sigma = ", and --noise-multiplier takes the noise over the sensitivity" if flag == "--noise" else ""
            raise ConfigError(f"{flag} is {value}; {accepted}{sigma}")
        raise ConfigError(f"{message}; `{self.prog} --help` lists every flag")


def main(arguments: Sequence[str]) -> int:
    """Plans, and prints or writes what was planned.

    Raises:
        UserError: what was given does not determine a plan, or one that promises nothing.
    """
    given = read(arguments)
    from evaluation import budget
    from evaluation.report import outlook as views

    with _told_that_it_lasts(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan = planned(given)
        found = budget.look_ahead(plan, tuple(given.household))
    for line in dict.fromkeys(str(warning.message) for warning in said if "delta is" in str(warning.message)):
        print(f"dptrain: {line}", file=sys.stderr)
    if given.output is not None:
        if given.output.suffix == ".json":
            write_file(given.output, _json(found).encode())
        else:
            views.page(found, given.output)
    print(_json(found) if given.format == "json" else views.text(found), end="\n")
    if given.output is not None and given.format == "text":
        print(f"\n{given.output}")
    return 0


@contextlib.contextmanager
def _told_that_it_lasts() -> Iterator[None]:
    """Says so, once, where the block takes longer than one waits for without a word."""
    said = "dptrain: still counting; it takes a minute or more where there are many steps, or little noise in each"
    timer = threading.Timer(PATIENCE, print, [said], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def parser() -> Parser:
    made = Parser(
        prog="dptrain budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--epsilon", type=float, help="the budget")
    made.add_argument("--delta", type=float, help="must be below 1/N; better below 1/(10 N)")
    made.add_argument("--examples", type=float, help="N: how many units there are, as a public figure")
    made.add_argument("--batch", "--expected-batch-size", type=float, dest="batch", help="expected batch size, in units")
    made.add_argument("--sampling-rate", type=float, help="q: the probability that a unit is in a batch")
    made.add_argument("--steps", type=int, help="optimizer updates")
    made.add_argument("--epochs", type=float, help="in place of steps: how often a unit is drawn on average")
    made.add_argument("--noise-multiplier", type=float, help="σ: the noise over the sensitivity")
    made.add_argument("--clipping-norm", type=float, help="C (1.0); ε does not depend on it")
    for name, kinds in PLAIN.items():
        made.add_argument(f"--{name.replace('_', '-')}", choices=get_args(kinds), help=f"({get_args(kinds)[0]})")
    for name in WHOLE:
        made.add_argument(f"--{name.replace('_', '-')}", type=int, help="as in a recipe's [privacy]")
    for name in FLOATS:
        made.add_argument(f"--{name.replace('_', '-')}", type=float, help="as in a recipe's [privacy]")
    made.add_argument("--household", type=int, nargs="+", default=[], metavar="K",
                      help="also the ε of K people who are all there or all not; each takes some seconds")  # fmt: skip
    made.add_argument("--format", choices=("text", "json"), default="text", help="(%(default)s)")
    made.add_argument("--output", type=Path, help="also writes a page, a drawing or a document: .html, .svg or .json")
    return made


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags as they were given.

    Raises:
        ConfigError: a flag that is not known, or what a flag does not take.
    """
    made = parser()
    given, rest = made.parse_known_args(list(arguments))
    if rest:
        known = [flag for action in made._actions for flag in action.option_strings]  # argparse has no public list
        guess = nearest(rest[0].split("=")[0], known)
        hint = f"did you mean {guess}?" if guess else "type `dptrain budget --help` for its flags"
        raise ConfigError(f"`dptrain budget` does not take {rest[0]!r}; {hint}")
    if given.output is not None and given.output.suffix not in SUFFIXES:
        raise ConfigError(f"--output is {given.output}; give a name that ends in {', '.join(SUFFIXES)}")
    if min(given.household, default=1) < 1:
        raise ConfigError(f"--household is {min(given.household)}; give whole numbers from 1 up, such as 2 4")
    return given


def planned(given: argparse.Namespace) -> Any:
    """The plan that the flags determine, with its noise and its steps.

    Raises:
        UserError: too little or too much is given, or the plan would not mean what it says.
    """
    from dptrain.plan import PrivacyPlan
    from evaluation import budget

    _enough(given)
    rate, batch = _batches(given)
    steps = given.steps
    if given.epochs is not None:
        if not (math.isfinite(given.epochs) and given.epochs > 0):
            raise ConfigError(f"--epochs is {given.epochs}; give a number above 0, such as 20")
        steps = budget.steps_of_epochs(given.epochs, rate)
    norm = given.clipping_norm if given.clipping_norm is not None else math.inf if given.unit == "edge" else 1.0
    others = {name: getattr(given, name) for name in (*PLAIN, *WHOLE, *FLOATS) if getattr(given, name) is not None}
    if given.sampling == "fixed_size" and "max_examples" not in others and given.examples is not None:
        others["max_examples"] = round(given.examples)
    plan = PrivacyPlan(
        sampling_rate=rate, expected_batch_size=batch, steps=1 if steps is None else steps, clipping_norm=norm,
        delta=given.delta, **others,
    )  # fmt: skip
    if given.noise_multiplier is not None:
        plan = dataclasses.replace(plan, noise_multiplier=given.noise_multiplier)
    if given.unit in ("node", "edge") and given.examples is not None:
        plan.check_delta(given.examples)
    if given.noise_multiplier is None:
        return budget.with_noise_for(plan, given.epsilon)
    return budget.with_steps_for(plan, given.epsilon) if steps is None else plan


def _enough(given: argparse.Namespace) -> None:
    """Two of ε, noise and steps, and δ."""
    if given.steps is not None and given.epochs is not None:
        raise ConfigError("--steps and --epochs are both given; one follows from the other, so leave one out")
    three = {
        "--epsilon": given.epsilon,
        "--noise-multiplier": given.noise_multiplier,
        "--steps or --epochs": given.steps if given.steps is not None else given.epochs,
    }
    there = [name for name, value in three.items() if value is not None]
    if len(there) != 2:
        said = f"{', '.join(there) or 'none'} {'is' if len(there) < 2 else 'are'} given"
        raise ConfigError(f"of {', '.join(three)}, {said}; give two, and the third is found")
    if given.delta is None:
        examples = _examples(given)
        hint = "give one below 1/(10 N), such as 1e-6"
        if examples:
            power = 10.0 ** math.floor(-math.log10(10 * examples))
            hint = f"give one of at most 1/(10 N) = {1 / (10 * examples):.1e}, such as {power:g}"
        raise ConfigError(f"--delta is not given, and none is taken for granted; {hint}")


def _examples(given: argparse.Namespace) -> float | None:
    if given.examples is not None:
        return given.examples
    return given.batch / given.sampling_rate if given.batch and given.sampling_rate else None


def _batches(given: argparse.Namespace) -> tuple[float, float]:
    """The sampling rate and the expected batch size from two of three."""
    three = {"--examples": given.examples, "--batch": given.batch, "--sampling-rate": given.sampling_rate}
    there = {name: value for name, value in three.items() if value is not None}
    for name, value in there.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value:g}; give a number above 0")
    if given.examples is not None and given.examples != round(given.examples):
        raise ConfigError(f"--examples is {given.examples:g}; give a whole number, such as {max(1, round(given.examples))}")
    if len(there) < 2:
        raise ConfigError(
            f"{', '.join(there) or 'none'} of {', '.join(three)} is given; give two, such as --examples 60000 --batch 1024"
        )
    examples, batch, rate = given.examples, given.batch, given.sampling_rate
    if rate is None:
        if batch > examples:
            raise ConfigError(f"--batch is {batch:g}, more than --examples {examples:g}; give at most all of them")
        return batch / examples, batch
    if batch is None:
        return rate, rate * examples
    if examples is not None and abs(rate * examples - batch) > 1e-6 * batch:
        raise PlanError(
            f"--batch is {batch:g}, and --sampling-rate {rate:g} of --examples {examples:g} are {rate * examples:g}; "
            "leave one of the three out"
        )
    return rate, batch


def _json(found: Any) -> str:
    from dptrain.plain import as_plain

    return json.dumps(as_plain(found), indent=1, ensure_ascii=False, allow_nan=False)
