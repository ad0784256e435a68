"""How a comparison's jobs are run: the flags of ``dptrain run`` and ``dptrain resume`` that are no part of the comparison.

    options, rest = split_flags(["digits", "--jobs", "2", "--seeds", "0"])

Imports no torch.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dptrain.errors import ConfigError
from dptrain.registry import EXECUTORS

if TYPE_CHECKING:
    from recipes.comparison import Comparison

FLAGS = {
    "--jobs": int,
    "--executor": str,
    "--ray.address": str,
    "--slurm.cluster": str,
    "--slurm.partition": str,
    "--slurm.minutes": int,
    "--slurm.gigabytes": float,
}
KINDS: dict[Any, str] = {int: "a whole number, such as 2", float: "a number, such as 4", str: "a word"}

HELP = """  --jobs N: so many models at once, each with its share of the cores; it changes no result.
  --executor local|ray|slurm: where they run: processes of this machine, a Ray cluster, or Slurm (extra `cluster`).
      ray: --ray.address auto, of a cluster that runs already. slurm: --slurm.partition P --slurm.minutes 240
      --slurm.gigabytes 4 of a job; --slurm.cluster local tries it on this machine.
  --seeds 0..4: 0 1 2 3 4, also among others."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How the jobs are run."""

    executor: str = "local"
    jobs: int = 1
    ray_address: str | None = None
    slurm_cluster: str = "slurm"
    slurm_partition: str | None = None
    slurm_minutes: int = 240
    slurm_gigabytes: float = 4.0
    only: tuple[str, ...] = ()
    """Labels of jobs, or what stands before their seeds; none means all."""

    @property
    def is_here(self) -> bool:
        """Whether one job after the other is done in this process."""
        return self.executor == "local" and self.jobs == 1

    def flags(self) -> list[str]:
        """As they are typed; what is the default is left out."""
        words = []
        for flag in FLAGS:
            name = flag.removeprefix("--").replace(".", "_")
            if getattr(self, name) != getattr(Sweep, name):
                words += [flag, str(getattr(self, name))]
        return [*words, *(("--only", *self.only) if self.only else ())]

    def options(self, threads: int | None) -> Any:
        """For an executor.

        Raises:
            ConfigError: a value is not accepted.
        """
        from dptrain.executor import Options

        own = {item.name for item in dataclasses.fields(Options)}
        given = {name: value for name, value in dataclasses.asdict(self).items() if name in own}
        return Options(threads=threads, **given)


def has_results(folder: Path) -> bool:
    """Whether a job has some: a first guess at whether it is complete."""
    return any((folder / "evaluation").glob("step=*/result.json"))


def begun(sweep: Sweep, comparison: "Comparison") -> AbstractContextManager[None]:
    """Lets the processes of a sweep on this machine import what they need while this one imports for itself; nothing where no
    job is left to do."""
    root = Path(comparison.output).resolve()
    jobs = comparison.jobs()
    if sweep.executor != "local" or sweep.jobs == 1 or all(has_results(root / one.label) for one in jobs):
        return nullcontext()
    from dptrain.executor import nursery, threads_of

    return nursery.begun("recipes.jobs", root, threads_of(sweep.options(comparison.performance.threads)))


def split_flags(arguments: list[str], *, only: bool = False) -> tuple[Sweep, list[str]]:
    """The flags of a sweep, wherever they stand, and all other arguments.

    Args:
        only: whether ``--only LABEL...`` is one of them.

    Raises:
        ConfigError: a flag without a value, or with one that is not accepted.
    """
    given: dict[str, Any] = {}
    rest: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if only and name == "--only":
            labels = [value] if equals else []
            while words and not words[0].startswith("--"):
                labels.append(words.pop(0))
            if not labels:
                raise ConfigError("--only needs the label of a job behind it, such as eps=08.00/seed=0")
            given["only"] = (*given.get("only", ()), *labels)
        elif name in FLAGS:
            if not equals and not words:
                raise ConfigError(f"{name} needs {KINDS[FLAGS[name]]} behind it")
            value = value if equals else words.pop(0)
            try:
                given[name.removeprefix("--").replace(".", "_")] = FLAGS[name](value)
            except ValueError:
                raise ConfigError(f"{name} is {value!r}; give {KINDS[FLAGS[name]]}") from None
        else:
            rest.append(word)
    sweep = Sweep(**given)
    EXECUTORS.check(sweep.executor)
    _check(sweep, given)
    return sweep, rest


def _check(sweep: Sweep, given: dict[str, Any]) -> None:
    if sweep.jobs < 1:
        raise ConfigError(f"--jobs is {sweep.jobs}; give a whole number from 1 up, such as 2")
    for name in given:
        kind, _, _ = name.partition("_")
        if kind in ("ray", "slurm") and kind != sweep.executor:
            flag = f"--{name.replace('_', '.', 1)}"
            here = f"--executor is {sweep.executor!r}"
            raise ConfigError(f"{flag} is given and {here}; add --executor {kind}, or leave {flag} out")
