"""``dptrain ledger``: what each data set has spent, over all runs of this machine.

Figures are :mod:`dptrain.ledger.books`'; here they become words, and each command's flags are read.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from dptrain.errors import ConfigError, LedgerError, nearest, unknown_name
from dptrain.ledger import Account, Books, Chain, Run, Spent, Statement, accounts, folder
from dptrain.plain import as_plain
from dptrain.rounding import up

HELP = """usage: dptrain ledger [DATA] [--format text|json]
       dptrain ledger limit DATA --epsilon 10 --delta 1e-5 [--unprotected refused|allowed] [--why TEXT]
       dptrain ledger check

What each data set has spent over all runs of this machine, whatever became of them or of their folders. DATA is a data set's
name, the beginning of its fingerprint, or a recipe; with it, its runs are listed one a line.
limit: states how much may be spent in all. What would pass it is not begun, neither by `dptrain run` nor by make_private(). A
    total may be lowered; raising it, or taking it back by --epsilon inf, wants a --why. --unprotected allowed: runs without a
    guarantee, whose ε is infinite, are not counted, since nothing of them ever leaves this machine.
check: whether a line of a ledger was changed or removed, which one, and then the exit code is 1.
The ledgers are kept in {folder} (DPTRAIN_LEDGER)."""

NOTES = """ε is composed by PLD over all runs with a guarantee, at the δ beside it, as if each had read every unit: which split
holds whom is not looked at. Units and relations are not added up: an ε of one says nothing of another. Whatever was published
of a run without a guarantee is covered by no ε. What was done with copies of the data on other machines is in their ledgers."""


def main(arguments: list[str]) -> int:
    """The exit code is 1 where a ledger was changed."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP.format(folder=folder()))
        return 0
    words, flags = _parsed(arguments)
    if words[:1] == ["check"]:
        _only(flags, "check", "--format")
        return check(flags.get("--format", "text"))
    if words[:1] == ["limit"]:
        _only(flags, "limit", "--epsilon", "--delta", "--unprotected", "--why", "--format")
        return limit(words[1:], flags)
    _only(flags, "ledger", "--format")
    if len(words) > 1:
        raise ConfigError(
            f"`dptrain ledger` takes one data set, and {words[1]!r} was given as well; see `dptrain ledger --help`"
        )
    as_json = _format(flags) == "json"
    return show(words[0], as_json) if words else overview(as_json)


def overview(as_json: bool = False) -> int:
    """Every data set with what it has spent."""
    found, broken = [], []
    for account in accounts():
        try:
            found.append((account, account.statement()))
        except LedgerError as error:
            broken.append(str(error))
    if as_json:
        print(json.dumps([plain(statement) for _, statement in found], indent=1, ensure_ascii=False))
    elif not found and not broken:
        print(f"No run of this machine has read private data yet; ledgers are kept in {folder()}.")
    else:
        print(*("\n".join(lines_of(statement)) for _, statement in found), NOTES, sep="\n\n")
    for error in broken:
        print(f"dptrain: {error}", file=sys.stderr)
    return 1 if broken else 0


def show(word: str, as_json: bool = False) -> int:
    """The runs of one data set, one a line."""
    for number, account in enumerate(find(word)):
        books = account.books()
        statement = books.statement()
        if as_json:
            runs = [of_run(run) for run in books.runs]
            print(json.dumps({**plain(statement), "each": runs}, indent=1, ensure_ascii=False))
            continue
        print("\n" * bool(number), end="")
        print(*lines_of(statement), "", sep="\n")
        print(*run_lines(books.runs), sep="\n")
        if books.reads:
            print(f"read without a training, by attacks: {len(books.reads)} times, last {books.reads[-1]['time']}")
        print(*clock(account), NOTES, sep="\n")
    return 0


def limit(words: list[str], flags: dict[str, str]) -> int:
    """States a total."""
    missing, said = [flag for flag in ("--epsilon", "--delta") if flag not in flags], ""
    if len(words) != 1:
        said = f"{len(words)} data sets are named" if words else "no data set is named"
    elif missing:
        said = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given"
    if said:
        raise ConfigError(
            f"{said}; type `dptrain ledger limit DATA --epsilon 10 --delta 1e-5`, with a data set or a recipe, such as digits"
        )
    found = find(words[0])
    if len(found) > 1:
        prefixes = ", ".join(account.data[:12] for account in found)
        raise ConfigError(f"{len(found)} data sets are called {words[0]!r}; give the beginning of a fingerprint: {prefixes}")
    epsilon, delta = (_number(flag, flags[flag]) for flag in ("--epsilon", "--delta"))
    unprotected: Any = flags.get("--unprotected", "refused")
    found[0].limit(epsilon, delta, unprotected=unprotected, why=flags.get("--why", ""))
    statement = found[0].statement()
    print(*(lines_of(statement) if _format(flags) == "text" else [json.dumps(plain(statement), ensure_ascii=False)]), sep="\n")
    return 0


def check(kind: str) -> int:
    """Whether every ledger is as it was written."""
    paths = {*folder().glob("*.jsonl"), *(path.with_suffix("") for path in folder().glob("*.jsonl.head"))}
    found = []
    for path in sorted(paths):
        try:
            entries = Chain(path).entries()
            found.append({"path": str(path), "name": Books(entries).name, "entries": len(entries), "error": ""})
        except LedgerError as error:
            found.append({"path": str(path), "name": "", "entries": 0, "error": str(error)})
    if kind == "json":
        print(json.dumps(found, indent=1, ensure_ascii=False))
    for one in found if kind != "json" else ():
        stem = Path(one["path"]).stem[:12]
        print(
            f"BROKEN  {one['error']}" if one["error"] else f"whole   {one['name'] or '-':<16} {stem}  {one['entries']} entries"
        )
    if not found:
        print(f"There are no ledgers in {folder()}.", file=sys.stderr if kind == "json" else sys.stdout)
    return 1 if any(one["error"] for one in found) else 0


def find(word: str) -> list[Account]:
    """The accounts that a word means: several, where data sets of one name differ.

    Raises:
        UserError: nothing is called that.
    """
    kept = accounts()
    found = [account for account in kept if word in (account.name, account.data)]
    found = found or [account for account in kept if len(word) >= 4 and account.data.startswith(word)]
    if found:
        return found
    from recipes import comparison

    if word not in comparison.names() and not word.endswith(".toml"):
        names = {account.name for account in kept if account.name} | {account.data[:12] for account in kept}
        raise unknown_name("data set or recipe", word, names | set(comparison.names()))
    import dptrain.data

    data = dptrain.data.load(comparison.load(word).recipe.data)
    return [Account(data.fingerprint, data.name)]


# -- words ------------------------------------------------------------------------------------------------------------


def lines_of(statement: Statement) -> list[str]:
    """A data set and what it has spent."""
    of_runs = [
        f"{count} {what}"
        for count, what in (
            (statement.without_guarantee, "without a guarantee"),
            (statement.failed, "failed"),
            (statement.unfinished, "under way or killed"),
        )
        if count
    ]
    runs = f"{statement.runs} run{'s' * (statement.runs != 1)}{', of which ' * bool(of_runs)}{', '.join(of_runs)}"
    named = statement.name or statement.data
    lines = [f"{named}  ({statement.data[:12]})  {runs}" if named != statement.data else f"{named}  {runs}"]
    lines += [f"  {_spent(line)}" for line in statement.spent]
    if statement.runs > statement.without_guarantee and not statement.spent:
        lines.append("  no step was announced yet")
    for one in statement.selected:
        lines.append(
            f"  selection {one.name!r}: the best of {one.runs} runs, a number that was drawn ({one.distribution}, mean "
            f"{one.mean:g}): ε = {up(one.epsilon)} at δ = {one.delta:g} for {one.chosen or 'the chosen one'} alone"
        )
    lines += [f"  where of each selection the chosen run alone is released: {_spent(line)}" for line in statement.only_selected]
    return [*lines, f"  {_limit(statement)}"]


def _spent(line: Spent) -> str:
    runs = f"{line.runs} run{'s' * (line.runs != 1)}"
    return (
        f"{line.unit}, {line.relation}: ε = {_shown(line.epsilon)} at δ = {line.delta:g} for {runs} together "
        f"({line.steps} steps); largest single ε {_shown(line.largest)}"
    )


def _limit(statement: Statement) -> str:
    if statement.limit_epsilon is None or math.isinf(statement.limit_epsilon):
        return (
            f"no total is stated; `dptrain ledger limit {statement.name or statement.data[:12]} --epsilon 10 --delta 1e-5` does"
        )
    held = statement.only_selected if statement.selected else statement.spent
    spent = max((line.epsilon for line in held), default=0.0)
    left = statement.limit_epsilon - spent
    said = f"about {left:.3g} left" if left > 0 else "nothing left"
    return f"total ε = {statement.limit_epsilon:g} at δ = {statement.limit_delta:g}: {said}"


def run_lines(runs: list[Run]) -> list[str]:
    """A table, one run a line, in the order in which they began."""
    head = ("run", "began", "what", "steps", "ε alone", "δ", "ended")
    rows = [head, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, ""] if runs else ["no run has read it", ""]


def _row(run: Run) -> tuple[str, ...]:
    began = run.began.replace("T", " ").removesuffix("+00:00")
    delta = f"{float(run.about['delta']):g}" if run.has_guarantee and "delta" in run.about else "-"
    ended = f"failed: {run.why}" if run.status == "failed" else run.status
    return run.name, began, str(run.about.get("label", "")), str(run.steps), _shown(run.epsilon()), delta, ended


def of_run(run: Run) -> dict[str, Any]:
    """The same as plain values."""
    return as_plain(
        {
            "run": run.name,
            "began": run.began,
            "about": run.about,
            "steps": run.steps,
            "epsilon": run.epsilon(),
            "status": run.status,
            "why": run.why,
        }
    )


def plain(statement: Statement) -> dict[str, Any]:
    return as_plain(statement)


def clock(account: Account) -> list[str]:
    """A line where the clock of a machine went back: the order of entries is right, and some of their times are not."""
    back = [entry for entry in account.entries() if entry["kind"] == "note" and entry.get("what") == "clock"]
    return [f"The clock went back {len(back)} times, last from {back[-1]['was']} to {back[-1]['time']}.\n"] if back else []


def _shown(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else up(epsilon)


# -- flags ------------------------------------------------------------------------------------------------------------

FLAGS = ("--format", "--epsilon", "--delta", "--unprotected", "--why")


def _parsed(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    words, flags, rest = [], {}, list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            words.append(flag + equals + value)
            continue
        if flag not in FLAGS:
            guess = nearest(flag, FLAGS)
            raise ConfigError(
                f"there is no flag {flag}; {f'did you mean {guess}?' if guess else 'see `dptrain ledger --help`'}"
            )
        if not equals and not rest:
            raise ConfigError(f"{flag} needs a value behind it")
        flags[flag] = value if equals else rest.pop(0)
    return words, flags


def _only(flags: dict[str, str], command: str, *accepted: str) -> None:
    for flag in flags:
        if flag not in accepted:
            raise ConfigError(
                f"{flag} says nothing to `dptrain ledger{'' if command == 'ledger' else ' ' + command}`; leave it out"
            )
    _format(flags)


def _format(flags: dict[str, str]) -> str:
    kind = flags.get("--format", "text")
    if kind not in ("text", "json"):
        raise unknown_name("format", kind, ("text", "json"))
    return kind


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; give a number, such as {'10' if flag == '--epsilon' else '1e-5'}") from None
