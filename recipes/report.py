"""``dptrain report RUNS...``: the table of one comparison, or several joined.

    dptrain report runs/digits                                  # the table
    dptrain report runs/digits --format html                    # report.html again
    dptrain report runs/digits --format html --shared           # shared.html: to hand on
    dptrain report runs/plain runs/regularized --output both.html

A folder that holds no comparison is named, and the others are joined all the same; the exit code is then 1.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dptrain.errors import CheckpointError, ConfigError, UserError, nearest, unknown_name

if TYPE_CHECKING:
    from evaluation.result import ComparisonResult

FORMATS = ("table", "json", "html")
OUTPUT = "runs/joined.html"
FLAGS = ("--format", "--output", "--shared", "--with-leaks")
HELP = """usage: dptrain report RUN [--format table|json|html] [--shared [--with-leaks]]
       dptrain report RUN RUN... [--format table|json|html] [--output joined.html]

One RUN (a folder that `dptrain run` made): its table; --format json for one JSON document; --format html to write report.html
again. --shared writes shared.html beside it, for others: without pictures, fingerprints, and what share of examples leaks by
itself, which --with-leaks puts back. Members' own examples are in neither; they stay in private/vulnerable.html.
Several: a table, and one page at --output (left out, runs/joined.html) with the answer of each, those on the same data in one
chart. A folder that holds no comparison is named, the others are joined, and the exit code is 1."""


def main(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        return 0
    folders, flags = _parsed(arguments)
    if len(folders) == 1:
        return _one(Path(folders[0]), flags)
    if "--shared" in flags or "--with-leaks" in flags:
        raise ConfigError("--shared is of one run; a joined page holds no pictures, fingerprints or single examples anyway")
    return _several(folders, flags)


def _parsed(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    folders: list[str] = []
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        head, equals, value = rest.pop(0).partition("=")
        if not head.startswith("-"):
            folders.append(head + equals + value)
        elif head in ("--shared", "--with-leaks"):
            flags[head] = "yes"
        elif head in FLAGS:
            if not equals and not rest:
                raise ConfigError(f"{head} needs a value behind it")
            flags[head] = value if equals else rest.pop(0)
        else:
            guess = nearest(head, FLAGS)
            hint = f"did you mean {guess}?" if guess else "type `dptrain report --help` for its flags"
            raise ConfigError(f"`dptrain report` does not take {head!r}; {hint}")
    if not folders:
        raise ConfigError("`dptrain report` needs a run, such as runs/digits, as its first word")
    if flags.setdefault("--format", FORMATS[0]) not in FORMATS:
        raise unknown_name("format", flags["--format"], FORMATS)
    if "--with-leaks" in flags and "--shared" not in flags:
        raise ConfigError("--with-leaks goes with --shared; report.html has them without it")
    return folders, flags


def _one(root: Path, flags: dict[str, str]) -> int:
    if "--output" in flags:
        raise ConfigError("--output is of several runs joined; the page of one stands in its folder, as report.html")
    from recipes import runs

    _check(root)
    if "--shared" in flags:
        from evaluation.report import html

        leaks = "with per-example leaks" if "--with-leaks" in flags else "without per-example leaks"
        html.write(runs.gather(root), root, root / "shared.html", leaks)
        print(root / "shared.html")
    elif flags["--format"] == "json":
        from evaluation.result import to_json

        sys.stdout.write(to_json(runs.gather(root)))
    elif flags["--format"] == "html":
        from evaluation.report.html import PRIVATE

        runs.report(root)
        print(root / "report.html")
        if (root / PRIVATE).exists():
            print(f"{root / PRIVATE}  (members' examples: do not publish)")
    else:
        from evaluation.report import terminal

        print(terminal.render(runs.gather(root)))
    return 0


def _several(folders: list[str], flags: dict[str, str]) -> int:
    from evaluation.joined import document, joined
    from evaluation.report import joined as view
    from evaluation.result import to_json
    from recipes import runs

    output = Path(flags.get("--output", OUTPUT))
    if "--output" in flags and flags["--format"] == "json":
        raise ConfigError(f"--output is of a page, and --format json writes to standard output; type > {output} behind it")
    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output is {flags['--output']!r}; give a name that ends in .html, such as {OUTPUT}")
    found: list[tuple[str, ComparisonResult]] = []
    not_read: list[str] = []
    for folder in dict.fromkeys(str(Path(folder)) for folder in folders):
        try:
            _check(Path(folder))
            found.append((folder, runs.gather(Path(folder))))
        except UserError as error:  # one that cannot be read must not lose the others
            not_read.append(str(error))
    if not found:
        raise CheckpointError("; ".join(not_read))
    together = joined(found)
    if flags["--format"] == "json":
        sys.stdout.write(to_json(document(together, not_read)))
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        view.write(together, output, not_read)
        if flags["--format"] == "table":
            print(view.table(together), end="\n\n")
        print(output)
    for sentence in not_read:
        print(f"dptrain: {sentence}", file=sys.stderr)
    return 1 if not_read else 0


def _check(root: Path) -> None:
    """Raises CheckpointError, with what may have been meant, where a folder is no run."""
    from evaluation import scripted

    if (root / "comparison.toml").is_file() or scripted.is_there(root):
        return
    if not root.exists():
        siblings = sorted(entry.parent.name for entry in root.parent.glob("*/comparison.toml"))
        guess = nearest(root.name, siblings)
        hint = f"did you mean {root.parent / guess}?" if guess else "name the folder that `dptrain run` made"
        raise CheckpointError(f"there is no {root}, so it is not a run; {hint}")
    inside = sorted(str(entry.parent) for entry in root.glob("*/comparison.toml")) if root.is_dir() else []
    above = next((parent for parent in root.resolve().parents if (parent / "comparison.toml").is_file()), None)
    hint = "name the folder that `dptrain run` made"
    if inside:
        hint = f"there are some in it: type {' '.join(inside)}"
    elif above is not None:
        hint = f"it is a part of one: type {above}"
    raise CheckpointError(f"{root} holds no comparison.toml, so it is not a run; {hint}")
