"""Kills a run, resumes it, and compares: the loop that issue-long promises hang on.

    python -m tests.faults.kill_loop --kills 50              one line a kill, and a summary; exit code 1 where one went wrong
    python -m tests.faults.kill_loop --list                  every site at which a run can be killed, and how often it is passed

Each time ``dptrain run`` of a small comparison of ``digits`` (one model under a budget, one without noise) is killed with
SIGKILL, ``dptrain resume`` goes on in a new process, and :mod:`tests.faults.unharmed` holds the folder against a run that was
not interrupted and against what was truly done. Kills are chosen so:

1. one of each area (:data:`AREAS`): a boundary of steps, inside a checkpoint's save, inside the release's, the ledger's
   append, an attack, a shadow model's cache, a result, the report, TensorBoard's files, telemetry, the split, the comparison's
   own files;
2. from then on, of five: two boundaries of steps, until each was had; two of the other areas in turn, each time at another
   site; and one from outside, at a random moment, half of these in interpreters of their own.

About every second write is cut in its middle, and every fifth run is killed a second time while it resumes. ``--only`` takes
each site of a kind that is asked for, each time that it is passed, and each write also in its middle.
"""

import argparse
import dataclasses
import gc
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults import unharmed
from tests.faults.processes import At, Outcome, anywhere, forked, started
from tests.faults.sites import Kill

RUN = shlex.split(
    "run digits --epsilons 8 --baselines clip_only --seeds 0 --training.steps 6 --training.checkpoint-every 3 "
    "--training.average 0.9 --regularization.early-stopping 5 --evaluation.attacks membership.threshold membership.lira "
    "--evaluation.shadow-models 4 --performance.threads 1 --performance.fleet 'one by one' --output"
)

STEP = "a step"
AREAS = {
    STEP: r"(before|after) a step of",
    "checkpoint": r"\S+ .*private/\.?checkpoint",
    "ledger": r"\S+ (account|.*ledger)",
    "release": r"\S+ .*\.?release\b",
    "attack": r"(before|after) membership|a shadow",
    "shadow models": r"\S+ .*private/fleet",
    "result": r"\S+ .*/(evaluation|\.?results?\.json)",
    "report": r"\S+ run/\.?(report|private)\.|\S+ .*html",
    "TensorBoard": r"\S+ run/.*(tradeoff|being_written)",
    "telemetry": r"\S+ run\.non_private",
    "split and identity": r"\S+ .*(split\.npz|run\.json)",
    "comparison": r"\S+ run",
}


@dataclass(frozen=True)
class Case:
    area: str
    kill: Kill | At
    second: float | None = None
    """Where the resuming process is killed as well: the part of its messages after which it is."""
    own: bool = False
    """In interpreters of their own."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill_loop", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of places")
    parser.add_argument("--list", action="store_true", help="show the sites, and kill nothing")
    parser.add_argument("--only", help="a regular expression: kill at these sites, each once")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dptrain-faults-") as name:
        base = Path(name)
        os.environ["DPTRAIN_LEDGER"] = str(base / "account")
        warm()
        reference = forked([*RUN, str(base / "run")], base, base / "log")
        if reference.code:
            print((base / "log").read_text(), file=sys.stderr)
            return 1
        shutil.move(base / "run", base / "reference")
        if given.list:
            for site, times in Counter(reference.sites).items():
                print(f"{times:4} {area_of(site):<20} {site}")
            return 0
        cases = every(reference, given.only) if given.only else list(chosen(reference, given.kills, given.seed))
        wrong = sum(not resumed(case, number, len(cases), base, reference) for number, case in enumerate(cases, 1))
    right = len(cases) - wrong
    print(f"{right} of {len(cases)} resumed correctly" + ("; ledger ≥ truth in all" if not wrong else ""))
    return 1 if wrong else 0


def warm() -> None:
    """Imports and computes what every child would; no gradient, which could not be forked."""
    import torch

    import evaluation.report.html
    import evaluation.report.private
    import evaluation.report.tensorboard  # noqa: F401  they are only to be there
    from recipes import comparison, runs

    torch.set_num_threads(1)
    wanted = comparison.load("digits", RUN[2:-1])
    jobs, data = wanted.jobs(), runs.dptrain.data.load(wanted.recipe.data)
    shares = wanted.recipe.data.split
    runs.check(jobs, data, {seed: runs.split_of(data, shares, seed, "example") for seed in wanted.seeds})
    for job in jobs:
        plan = runs.build_training(
            job.recipe, data, torch.arange(1000).numpy(), 0, public=torch.arange(1100, 1200).numpy()
        ).plan
        if plan.is_private:
            for drawn in (((0, 3),), ((0, 6),), ((0, 3), (3, 6))):
                steps = drawn[-1][1]
                plan.guarantee(steps, drawn)
                dataclasses.replace(plan, steps=steps).guarantee()
                dataclasses.replace(plan, steps=steps).example_curve()
    gc.freeze()  # what is here is not looked through again in each child


def area_of(site: str) -> str:
    return next(area for area, pattern in AREAS.items() if re.match(pattern, site))


def every(reference: Outcome, pattern: str) -> list[Case]:
    """Each site of which the pattern is a part, each time that it is passed; writes also in their middle."""
    found = [
        (site, number)
        for site, times in Counter(reference.sites).items()
        for number in range(1, times + 1)
        if re.search(pattern, site)
    ]
    kills = [Kill(site, number) for site, number in found]
    kills += [Kill(site, number, half=True) for site, number in found if site.startswith("write")]
    return [Case(area_of(kill.site), kill) for kill in kills]


def chosen(reference: Outcome, kills: int, seed: int) -> Iterator[Case]:
    """The places, as the module says."""
    chance = random.Random(seed)
    places = _places(reference, chance)
    turns, others = deque(places), deque(area for area in places if area != STEP)
    said = len(reference.sites) + len(reference.steps) + 4
    for number in range(kills):
        second = chance.random() if number % 5 == 3 else None
        turn = (number - len(places)) % 5 if number >= len(places) else None
        if turn == 4:
            yield Case("any moment", anywhere(said, chance), second, own=chance.random() < 0.5)
            continue
        if turn is None:
            area = turns.popleft()
        elif turn % 2 == 0:
            area = STEP
        else:
            area = others[0]
            others.rotate(-1)
        yield Case(area, places[area][0], second)
        places[area].rotate(-1)


def _places(reference: Outcome, chance: random.Random) -> dict[str, deque[Kill]]:
    """Of each area, in the order in which they are taken: a site once, whichever time it is passed; boundaries of steps all."""
    times = Counter(reference.sites)
    sites = list(times)
    chance.shuffle(sites)
    places: dict[str, deque[Kill]] = {area: deque() for area in AREAS}
    for site in sites:
        area = area_of(site)
        if re.fullmatch(r"\S+ account", site):
            continue  # the folder of all accounts, made once for all runs
        if area == STEP:
            places[area].extend(Kill(site, number) for number in range(1, times[site] + 1))
        else:
            half = site.startswith("write") and chance.random() < 0.5
            places[area].append(Kill(site, chance.randint(1, times[site]), half))
    boundaries = list(places[STEP])
    chance.shuffle(boundaries)
    places[STEP] = deque(sorted(boundaries, key=lambda kill: kill.site.startswith("after")))
    lacking = [area for area, kills in places.items() if not kills]
    if lacking:
        raise LookupError(f"no site of the run is one of {', '.join(lacking)}: AREAS does not know what it is called by now")
    return places


def resumed(case: Case, number: int, of: int, base: Path, reference: Outcome) -> bool:
    """Kills, resumes, compares; says in a line what came of it."""
    root, log = base / "run", base / "log"
    for folder in (root, base / "run.non_private"):
        shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    begin, run = time.monotonic(), started if case.own else forked
    lives = [run([*RUN, str(root)], base, log, case.kill)]
    went_wrong = ""
    try:
        unharmed.whole(root)
        unharmed.accounted(root, lives)
        if case.second is not None:
            seconds = At(1 + int(case.second * len(reference.sites)), 0.0)
            lives.append(run(again(root), base, log, seconds))
            unharmed.whole(root)
        killed = sum(life.killed for life in lives)
        lives.append(run(again(root), base, log))
        assert lives[-1].code == 0, f"the resumed run ended with {lives[-1].code}: {log.read_text()[-1500:]}"
        unharmed.whole(root)
        unharmed.verified(root)
        unharmed.exact(root, base / "reference")
        unharmed.nothing_left(root, base / "reference")
        unharmed.accounted(root, lives, exactly=True)
        unharmed.fresh(lives, reference)
        unharmed.nothing_lost(lives)
        if isinstance(case.kill, Kill):
            assert killed, "it was not killed"
    except Exception as error:  # the others are tried all the same
        went_wrong = f"{type(error).__name__}: {error}"
        killed = sum(life.killed for life in lives)
    steps = [sum(label == unharmed.NOISY for label, _, _ in life.steps) for life in lives]
    how = "not reached: it had ended" if not killed else "killed" + (f" {killed} times" if killed > 1 else "")
    print(
        f"{number:3}/{of} {how:<14} {case.area:<18} {case.kill}{' (own interpreter)' if case.own else ''}; private steps taken "
        f"{' + '.join(map(str, steps))}: {'WRONG: ' + went_wrong if went_wrong else 'as uninterrupted'} "
        f"[{time.monotonic() - begin:.1f} s]",
        flush=True,
    )
    return not went_wrong


def again(root: Path) -> list[str]:
    """What a person types after a kill: resume, or run again where not even the folder was taken."""
    return ["resume", str(root)] if (root / "comparison.toml").exists() else [*RUN, str(root)]


if __name__ == "__main__":
    sys.exit(main())
