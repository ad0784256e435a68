"""The command line: ``dptrain``.

Commands are looked up here and imported when they are called, so that ``dptrain --help`` answers at once. Whatever the
user can mend is one sentence on standard error and exit code 2.

A script that registers models or data sets of its own can call it with them in place::

    from recipes.cli import main
    main(["run", "my.toml"])
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dptrain.errors import ConfigError, ElsewhereError, RankError, UserError, nearest, unknown_name
from recipes.notes import as_sentences

if TYPE_CHECKING:
    from evaluation.result import ComparisonResult
    from recipes.sweep import Sweep

FAILED = 1
USAGE_ERROR = 2
DOCTOR_HELP = """usage: dptrain doctor RECIPE [--fix] [--format text|json] [the flags of `dptrain run`]

Examines the recipe's model and loss on public or random examples: no private example is looked at. Exit code 1 where
something is wrong. --fix shows what would be replaced (BatchNorm by GroupNorm), and examines the result."""
AUDIT_HELP = """usage: dptrain audit RECIPE [--how white-box|one-run|many-runs|worst-case] [--canaries N] [--trainings N]
                             [--canary mislabelled|natural|noise] [--records N] [--format text|json]
                             [--bound steinke|f-dp|clopper-pearson|gdp]
                             [the flags of `dptrain run`]

Trains the recipe with canaries in it and says how much of each budget can be shown at each checkpoint that the recipe keeps
(--training.checkpoint-every), beside the most that could have been. All bounds share one permitted error; --bound computes
one of a game's two alone, which then has the whole of it. Each audit is kept below the comparison's folder (--output) and
stands in its reports; none replaces an earlier one.
Exit code 3 where a claim is contradicted: more is shown than ε permits, or the mechanism is not what it says it is."""
RELEASE_HELP = """usage: dptrain release RUN [--policy policy.toml] [--guard top5-rounded] [--output FOLDER] [--with-figures]
                           [--intended-use TEXT] [--format text|json]

Checks one trained model (RUN is its folder, such as runs/digits/eps=08.00/seed=0): its files, its ledger, the audits that are
kept beside it, and the attacks on exactly its weights, against a policy. Where every check is met it writes a folder to
publish, with a model card; otherwise it writes nothing, lists every reason, and the exit code is 1.
--policy: a TOML file; left out, ε of at most 10 and no bound on attacks. Its keys, each of which may be left out:
    maximum_epsilon, maximum_delta, maximum_tpr (at 1% FPR), maximum_auc, maximum_identification, maximum_exposure (bits),
    maximum_link_auc, minimum_utility, required_attacks, minimum_shadow_models, require_audit, ledger_above_card
--guard: what will stand before its answers; bounds are then held against the attacks that were made through it.
--with-figures: the model card says what attacks found. It was computed from members without noise, and ε does not cover it."""
CONTRADICTED = 3
INTERRUPTED = 130
RESUMABLE = ("run", "resume", "evaluate", "audit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is 0, 1 where a run failed, the doctor found an error or a release is refused, 2 for
    what the user can mend, 3 where an audit contradicts a claim, 130 after Ctrl-C, or a signal that asks the same."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] == "--version":
        from importlib.metadata import version

        print(f"dptrain {version('dptrain')}")
        return 0
    try:
        if given[0] not in COMMANDS:
            raise unknown_name("command", given[0], COMMANDS)
        with _stopped_by_signals(given[0]), as_sentences():
            return COMMANDS[given[0]][0](given[1:])
    except UserError as error:
        if not (_is_quiet() and isinstance(error, ElsewhereError)):
            print(f"dptrain: {error}", file=sys.stderr)
        return USAGE_ERROR
    except RankError as error:
        print(f"dptrain: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:
        way_on = f"; `dptrain resume {stop.args[0]}` goes on from the last checkpoint" if stop.args else ""
        if not _is_quiet():
            print(f"\ndptrain: stopped{way_on}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read has read enough; what Python still holds for it goes nowhere
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"dptrain: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return USAGE_ERROR


def usage() -> str:
    lines = [
        "usage: dptrain COMMAND [...]",
        "",
        "Train with differential privacy, attack every checkpoint, report.",
        "",
    ]
    lines += [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    lines += ["", "Start with `dptrain run digits`. `dptrain run --help` lists every flag."]
    return "\n".join(lines)


def list_command(arguments: list[str]) -> int:
    """Recipes, data sets, models, losses, optimizers, guards, attacks and executors."""
    _no_more("list", arguments)
    from dptrain.registry import DATASETS, EXECUTORS, GUARDS, LOSSES, MODELS, OPTIMIZERS, REGULARIZERS
    from evaluation.plan import ATTACKS
    from recipes import comparison

    sections = {"recipe": {name: comparison.about(name) for name in comparison.names()}}
    registries = (DATASETS, MODELS, LOSSES, OPTIMIZERS, REGULARIZERS, GUARDS, ATTACKS, EXECUTORS)
    sections |= {registry.kind: registry.about() for registry in registries if registry.names()}
    for kind, entries in sections.items():
        print(f"{kind}s" if not kind.endswith("s") else f"{kind}es")
        for name, about in entries.items():
            print(f"  {name:<22} {about}")
    return 0


def show_command(arguments: list[str]) -> int:
    """The resolved comparison, as TOML."""
    from recipes import comparison

    name, flags = _first("show", "a recipe, such as digits", arguments)
    print(comparison.to_toml(comparison.load(name, flags)), end="")
    return 0


def run_command(arguments: list[str]) -> int:
    """Train, attack, report."""
    from recipes import comparison, sweep

    if any(argument in ("-h", "--help") for argument in arguments):
        print(comparison.help_text())
        print(sweep.HELP)
        print("  --distributed N: train each model on N processes of this machine together; it changes no guarantee.")
        return 0
    processes, arguments = _processes(typed := arguments)
    how, arguments = sweep.split_flags(arguments)
    name, flags = _first("run", "a recipe, such as digits", arguments)
    wanted = comparison.load(name, flags)
    _check_one_way(processes, how)
    if processes:
        return _launch(["run", *typed], processes)
    with sweep.begun(how, wanted):
        from recipes import runs

        with _joined():
            result = runs.run(wanted, Path(name).stem, runs.command_line(["run", *typed]), sweep=how)
    return _show(result, Path(wanted.output))


def resume_command(arguments: list[str]) -> int:
    """Go on with a run that was cut; --only eps=08.00/seed=0 with a part of it, --data.path where its data lie by now."""
    from recipes import runs, sweep

    processes, arguments = _processes(typed := arguments)
    how, arguments = sweep.split_flags(arguments, only=True)
    _check_one_way(processes, how)
    folder, rest = _first("resume", "a run, such as runs/digits", arguments)
    data_path, rest = _valued(rest, "--data.path")
    _no_more("resume", rest)
    from recipes import select

    if select.is_selection(Path(folder)):
        return select.resume(Path(folder))
    comparison = runs.load_run(Path(folder), data_path)
    about = runs.about_run(Path(folder))
    if processes:
        return _launch(["resume", *typed], processes)
    with _joined():
        result = runs.run(comparison, about["name"], about["command"], sweep=how)
    return _show(result, Path(folder))


def select_command(arguments: list[str]) -> int:
    """The best of several private trainings, with what choosing it costs."""
    from recipes import select

    return select.main(arguments)


def evaluate_command(arguments: list[str]) -> int:
    """Attack the checkpoints of a run again, with other attacks where --attacks names them."""
    from evaluation.plan import ATTACKS

    folder, rest = _first("evaluate", "a run, such as runs/digits", arguments)
    if rest and (rest[0] != "--attacks" or len(rest) == 1):
        raise ConfigError(f"{' '.join(rest)!r} was given; the one flag here is --attacks, such as --attacks membership.lira")
    for name in rest[1:]:
        ATTACKS.check(name)
    from recipes import runs

    result = runs.evaluate_again(Path(folder), rest[1:])
    return _show(result, Path(folder))


def report_command(arguments: list[str]) -> int:
    """The table of a run, or several joined into one page."""
    from recipes import report

    return report.main(arguments)


def doctor_command(arguments: list[str]) -> int:
    """Whether a recipe's model is fit for privacy, and what that costs; the exit code is 1 where it is not."""
    from recipes import comparison

    if any(argument in ("-h", "--help") for argument in arguments):
        print(DOCTOR_HELP, comparison.help_text(), sep="\n\n")
        return 0
    name, rest = _first("doctor", "a recipe, such as digits", arguments)
    fix, rest = "--fix" in rest, [argument for argument in rest if argument != "--fix"]
    kind, flags = _taken(rest, "--format", ("text", "json"))
    wanted = comparison.load(name, flags)
    from recipes import doctor

    diagnosis = doctor.examine(wanted, fix=fix)
    if kind == "json":
        import json

        print(json.dumps(diagnosis.plain(), indent=1, ensure_ascii=False))
    else:
        print(diagnosis)
    return 0 if diagnosis.ok else 1


def audit_command(arguments: list[str]) -> int:
    """How much of a budget can be shown; the exit code is 3 where more can."""
    import dataclasses

    from dptrain.plain import as_plain
    from recipes import comparison

    if any(argument in ("-h", "--help") for argument in arguments):
        print(AUDIT_HELP, comparison.help_text(), sep="\n\n")
        return 0
    name, rest = _first("audit", "a recipe, such as digits", arguments)
    kind, rest = _taken(rest, "--format", ("text", "json"))
    from recipes import audit

    given: dict[str, str | int] = {}
    for field in dataclasses.fields(audit.Options):
        value, rest = _valued(rest, f"--{field.name}")
        if value is not None:
            given[field.name] = value if field.name in ("how", "canary", "bound") else _whole(f"--{field.name}", value)
    options = audit.Options(**given)  # pyright: ignore[reportArgumentType]  names and numbers, checked there
    wanted = comparison.load(name, rest)
    from evaluation.report import terminal
    from recipes import audits, folder, runs

    root = Path(wanted.output)
    folder.take(root)
    found, paths = [], []
    for one in audit.audit(wanted, options, runs.command_line(["audit", *arguments])):
        found.append(one)
        paths.append(audits.save(one, root))
        if kind == "text":
            print(terminal.audit(one), end="\n\n", flush=True)
    if kind == "json":
        import json

        print(json.dumps([as_plain(one) for one in found], indent=1, ensure_ascii=False))
    else:
        print(audit.conclusion(found), "", *paths, sep="\n", flush=True)
    if (root / "comparison.toml").exists():
        try:
            runs.report(root)
        except (UserError, OSError) as error:  # the audit has spoken, and its exit code is its own
            print(f"dptrain: the report of {root} was not made again: {error}", file=sys.stderr)
    return 0 if all(one.ok for one in found) else CONTRADICTED


def budget_command(arguments: list[str]) -> int:
    """What a privacy budget means before anything is trained."""
    from recipes import budget

    return budget.main(arguments)


def serve_command(arguments: list[str]) -> int:
    """Answer requests over HTTP, behind a guard; or look after the keys of those who may ask."""
    if not arguments:
        raise ConfigError("`dptrain serve` needs a run, such as runs/digits/eps=08.00/seed=0, or `keys`, as its first word")
    from recipes import serve

    return serve.main(arguments)


def release_command(arguments: list[str]) -> int:
    """Publish a trained model, or say why not; the exit code is 1 where it is refused."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(RELEASE_HELP)
        return 0
    folder, rest = _first("release", "a trained model, such as runs/digits/eps=08.00/seed=0", arguments)
    with_figures, rest = "--with-figures" in rest, [argument for argument in rest if argument != "--with-figures"]
    kind, rest = _taken(rest, "--format", ("text", "json"))
    given: dict[str, str | None] = {}
    for flag in ("--policy", "--guard", "--output", "--intended-use"):
        given[flag], rest = _valued(rest, flag)
    if rest:
        guess = nearest(rest[0], [*given, "--format", "--with-figures"])
        hint = f"did you mean {guess}?" if guess else "type `dptrain release --help` for its flags"
        raise ConfigError(f"`dptrain release` does not take {rest[0]!r}; {hint}")
    from recipes import release, release_shown

    policy, output = given["--policy"], given["--output"]
    options = release.Options(
        policy=None if policy is None else Path(policy),
        guard=given["--guard"],
        output=None if output is None else Path(output),
        figures="published" if with_figures else "withheld",
        intended_use=given["--intended-use"] or "",
    )
    found = release.examine(Path(folder), options)
    published = release.publish(found) if found.clearance.granted else None
    print(release_shown.document(found, published) if kind == "json" else release_shown.text(found, published))
    return 0 if published else FAILED


def ledger_command(arguments: list[str]) -> int:
    """What each data set has spent, over all runs; the exit code is 1 where a ledger was changed."""
    from recipes import ledger

    return ledger.main(arguments)


def _valued(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that takes any, wherever it stands among others, and what is left without it."""
    for index, argument in enumerate(arguments):
        head, equals, value = argument.partition("=")
        if head != flag:
            continue
        if equals:
            return value, [*arguments[:index], *arguments[index + 1 :]]
        if index + 1 == len(arguments):
            raise ConfigError(f"{flag} needs a value behind it")
        return arguments[index + 1], [*arguments[:index], *arguments[index + 2 :]]
    return None, arguments


def _whole(flag: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"{flag} is {value!r}; give a whole number, such as 1000")
    return int(value)


def _processes(arguments: list[str]) -> tuple[int, list[str]]:
    """How many processes ``--distributed`` asks this one to start, and the other arguments. One that was started is told
    by its environment, and starts none."""
    if not any(argument.startswith("--distributed") for argument in arguments):
        return 0, arguments
    from recipes import launch

    processes, rest = launch.split_flag(arguments)
    return (0 if launch.is_launched() else processes), rest


def _check_one_way(processes: int, how: "Sweep") -> None:
    if processes and not how.is_here:
        raise ConfigError(
            "--distributed trains one model on several processes together, and --jobs and --executor several models at once; "
            "give one of both"
        )


def _launch(arguments: list[str], processes: int) -> int:
    from recipes import launch

    return launch.launch(launch.program(arguments), processes)


@contextmanager
def _joined() -> Iterator[None]:
    """Together with the processes that torchrun or ``--distributed`` started, where they did."""
    from dptrain import distributed

    distributed.join()
    yield
    distributed.leave()  # after a failure, the end of this process says it: others may be waiting


@contextmanager
def _stopped_by_signals(command: str) -> Iterator[None]:
    """SIGTERM and SIGHUP are Ctrl-C to whatever can be resumed: what a scheduler or a closed terminal ends is left in order.
    Inside of a training, :func:`dptrain.trainer.stop_at_step_end` hears them."""
    import signal
    import threading

    if command not in RESUMABLE or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _is_quiet() -> bool:
    """Whether another process says it: of several, the first one speaks."""
    return os.environ.get("RANK", "0") != "0"


def _show(result: "ComparisonResult | None", root: Path) -> int:
    if result is None:
        return 0
    from evaluation.report import terminal

    print(terminal.render(result))
    print("", *_pages(root), f"tensorboard --logdir {root}", sep="\n")
    for trouble in (troubles := list(_troubles(result, root))):
        print(f"dptrain: {trouble}", file=sys.stderr)
    return 1 if troubles else 0


def _pages(root: Path) -> Iterator[str]:
    """Where the reports are: the one to hand on, and the one to keep."""
    from evaluation.report.html import PRIVATE

    yield str(root / "report.html")
    if (root / PRIVATE).exists():
        yield f"{root / PRIVATE}  (members' examples: do not publish)"


def _troubles(result: "ComparisonResult", root: Path) -> Iterator[str]:
    """What must not go by unseen in a script: each ends the command with exit code 1."""
    for failure in result.failures:
        label, _, _ = failure.partition(": ")
        again = shlex.join(["dptrain", "resume", str(root), "--only", label])
        yield f"{failure}; this one alone: {again}" if "/seed=" in label else failure
    from evaluation.report import wording

    yield from wording.contradicted(result)
    for run in result.runs:
        found = [("", attack) for attack in run.attacks]
        found += [(f" through {item.guard}", attack) for item in run.guarded for attack in item.attacks]
        for through, attack in found:
            if attack.status == "failed":
                yield (
                    f"{run.label}: {attack.name}{through} FAILED: {attack.reason}; mend it, and `dptrain resume` tries it again"
                )
            if attack.verdict == "above the plan":
                yield (f"{run.label}: {attack.name}{through} is above the plan: {attack.reason}; do not release this model")


def _first(command: str, what: str, arguments: list[str]) -> tuple[str, list[str]]:
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(f"`dptrain {command}` needs {what}, as its first word")
    return arguments[0], arguments[1:]


def _no_more(command: str, arguments: list[str]) -> None:
    if arguments:
        raise ConfigError(f"`dptrain {command}` takes nothing more, and {arguments[0]!r} was given")


def _taken(arguments: list[str], flag: str, accepted: tuple[str, ...]) -> tuple[str, list[str]]:
    """The value of a command's own flag, wherever it stands among others, and what is left without it."""
    for index, argument in enumerate(arguments):
        if argument.split("=", 1)[0] == flag:
            end = index + (1 if "=" in argument else 2)
            return _choice(arguments[index:end], flag, accepted), [*arguments[:index], *arguments[end:]]
    return accepted[0], arguments


def _choice(arguments: list[str], flag: str, accepted: tuple[str, ...]) -> str:
    """The value of the one flag that a command takes; the first accepted one where it is left out."""
    if not arguments:
        return accepted[0]
    words = arguments[0].split("=", 1) + arguments[1:]
    if words[0] != flag or len(words) != 2:
        raise ConfigError(f"{' '.join(arguments)!r} was given; the one flag here is {flag} {'|'.join(accepted)}")
    if words[1] not in accepted:
        raise unknown_name("format", words[1], accepted)
    return words[1]


Command = Callable[[list[str]], int]

COMMANDS: dict[str, tuple[Command, str]] = {
    "list": (list_command, "recipes, data sets, models, losses, optimizers, attacks"),
    "show": (show_command, "the resolved recipe, as TOML"),
    "run": (run_command, "train, attack, report: dptrain run digits"),
    "resume": (resume_command, "go on with a run that was cut"),
    "select": (select_command, "the best of several private trainings, choosing included in its budget"),
    "evaluate": (evaluate_command, "attack the checkpoints of a run again"),
    "report": (report_command, "the table of a run, its pages, or several runs joined"),
    "budget": (budget_command, "what a budget means before anything is trained: noise, batch size, what attackers gain"),
    "audit": (audit_command, "how much of a budget can be shown, and whether more can"),
    "ledger": (ledger_command, "what each data set has spent, over all runs; state a total; check"),
    "release": (release_command, "check a trained model against a policy, and publish it with a model card"),
    "doctor": (doctor_command, "whether a recipe's model is fit for privacy, and what it costs; or --fix"),
    "serve": (serve_command, "answer requests over HTTP, behind a guard and a monitor"),
}


def entry() -> None:
    """The console script. One of several processes ends at once: threads of the library through which they speak may abort
    it where it ends while another one still waits, and its exit code would be lost."""
    code = main()
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
