"""``dptrain serve``: a release behind a guard, and the keys of those who may ask it.

    dptrain serve runs/digits/eps=08.00/seed=0 --guard top5-rounded --rate 10 --queries 20000
    dptrain serve keys add clinic                                   # shows the key once
    dptrain serve keys add me --role administrator                  # for statistics, metrics, and to reload
    dptrain serve keys list
    dptrain serve keys revoke 4f9a61c2
    dptrain serve thresholds runs/digits/eps=08.00/seed=0           # of the monitor; `dptrain serve thresholds --help`

Keys, the guard's secret, what clients have spent and what the monitor knows of them are kept in one state database: a file, or
any URL that SQLAlchemy knows. It is private, and never part of what is released.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dptrain.errors import ConfigError, UserError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from dptrain.release.loading import Served
    from dptrain.release.monitor import Monitor, Thresholds
    from dptrain.release.monitor.store import Store
    from dptrain.release.version import Version, Watching

STATE = "dptrain-serve.db"
EXTRA = ("fastapi", "uvicorn", "starlette", "sqlalchemy", "prometheus_client", "h11")
NONE = "none"
"""In place of a guard's text: no guard, and that is meant."""
THRESHOLDS = "monitor.json"
"""In a published folder: what was calibrated for this model."""


class Parser(argparse.ArgumentParser):
    """One that says what is wrong as every command does, and takes no flag by its first letters."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; `{self.prog} --help` lists every flag")


def main(arguments: Sequence[str]) -> int:
    """Serves until it is asked to end, looks after keys, or calibrates a monitor.

    Raises:
        UserError: something given cannot be used, or the extra ``serve`` is not installed.
    """
    try:
        if arguments and arguments[0] == "thresholds":
            from recipes import thresholds

            return thresholds.main(arguments[1:], Parser)
        return _keys(arguments[1:]) if arguments and arguments[0] == "keys" else _serve(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise UserError(f"`dptrain serve` needs {error.name}, which is not installed; pip install 'dptrain[serve]'") from None


def parser() -> Parser:
    """The flags of ``dptrain serve RUN``."""
    made = Parser(prog="dptrain serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", metavar="RUN", help="folder of a run, or of a release")
    made.add_argument("--guard", help="what is shown, such as top5-rounded; none for all; left out, what the card states")
    made.add_argument(
        "--unmeasured-guard",
        action="store_const",
        const="accept",
        default="refuse",
        help="with --guard: serves behind another guard than the one that the release was cleared with",
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    made.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    made.add_argument("--keys", choices=("required", "none"), default="required", help="who may ask (%(default)s)")
    made.add_argument("--rate", type=float, help="examples a second and client; left out, no limit")
    made.add_argument("--burst", type=int, default=1000, help="examples at once, with --rate (%(default)s)")
    made.add_argument("--queries", type=int, help="examples in all a client; left out, no limit")
    made.add_argument("--state", default=STATE, help="file or database URL (%(default)s)")
    actions = ("log", "slow", "degrade", "refuse", "off")
    made.add_argument("--monitor", choices=actions, default="log", help="what follows an alert (%(default)s)")
    made.add_argument("--thresholds", type=Path, help=f"of the monitor; left out, {THRESHOLDS} in the release")
    made.add_argument("--max-body", type=int, default=8 * 2**20, help="bytes of a request (%(default)s)")
    made.add_argument("--max-batch", type=int, default=256, help="examples of a request (%(default)s)")
    made.add_argument("--connections", type=int, default=64, help="of one address at once; more behind a proxy (%(default)s)")
    made.add_argument("--timeout", type=float, default=10.0, help="seconds for each part of a request (%(default)s)")
    made.add_argument("--grace", type=float, default=5.0, help="seconds to finish requests when ended (%(default)s)")
    made.add_argument("--threads", type=int, help="of the model; left out, all cores but one, at most 4")
    return made


def threads_for(cores: int) -> int:
    """One core is left to HTTP; small batches gain nothing from many."""
    return max(1, min(4, cores - 1))


def _serve(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    import torch
    from prometheus_client import CollectorRegistry

    from dptrain.release.keys import Keys
    from dptrain.release.limits import Limits
    from dptrain.release.listening import run
    from dptrain.release.loading import Served, find
    from dptrain.release.server import create_app
    from dptrain.release.service import Settings

    if not 0 <= given.port <= 65535:
        raise ConfigError(f"the port is {given.port}; give a number from 0 to 65535, such as 8000")
    if given.threads is not None and given.threads < 1:
        raise ConfigError(f"--threads is {given.threads}; give a whole number from 1 up")
    settings = Settings(
        max_body=given.max_body,
        max_batch=given.max_batch,
        timeout=given.timeout,
        grace=given.grace,
        clients="keys" if given.keys == "required" else "addresses",
        connections=given.connections,
    )
    limits = Limits(given.rate, given.burst, given.queries)
    torch.set_num_threads(given.threads or threads_for(os.cpu_count() or 1))
    served = Served.load(find(Path(given.run)))
    guard = guard_of(given.guard, served.card, given.unmeasured_guard)
    store = _store(given.state, served)
    keys = Keys(store.engine)
    registry = CollectorRegistry()
    watched = Watched(given.monitor, given.thresholds, store, registry)

    def renew(new: "Served", version: "Version") -> "tuple[str | None, Watching | None]":
        return guard_of(given.guard, new.card, given.unmeasured_guard), watched.of(new, version.monitor)

    app = create_app(
        served,
        guard_text=guard,
        monitor=watched.of(served),
        limits=limits,
        store=store,
        keys=keys,
        settings=settings,
        registry=registry,
        renew=renew,
    )
    served.check_unchanged()
    _say(f"serving {served.folder} behind {guard or 'no guard: every score is shown'} at http://{given.host}:{given.port}")
    roles = {one.holder.role for one in keys.list() if one.revoked is None}
    adding = f"type dptrain serve keys add NAME --state {given.state}"
    if given.keys == "required" and "client" not in roles:
        _say(f"no client has a key yet; {adding}")
    if "administrator" not in roles:
        _say(f"statistics and metrics need an administrator's key; {adding} --role administrator")
    try:
        run(app, given.host, given.port, settings)
    finally:
        store.close()
    return 0


def guard_of(given: str | None, card: dict[str, Any], unmeasured: Literal["refuse", "accept"] = "refuse") -> str | None:
    """The guard that was asked for; where none was, the one that the card states or the recipe names.

    Args:
        unmeasured: whether it may be another than the card states, of which what was measured does not speak.

    Raises:
        ConfigError: it is another one, or what the card states is fitted on members, so that a server cannot make it.
    """
    from dptrain.release.loading import guard_in
    from dptrain.release.parts import needs_members, parse

    stated = guard_in(card)
    if given is not None:
        same = stated is None or (given != NONE and parse(given) == parse(stated))
        if not same and unmeasured == "refuse":
            raise ConfigError(
                f"--guard is {given}, and the release was made to stand behind {stated!r}: what was measured of it does not "
                "hold then; leave --guard out, or give --unmeasured-guard as well"
            )
        return None if given == NONE else given
    text = stated or card.get("recipe", {}).get("release", {}).get("guard")
    if text is not None and needs_members(text):
        raise ConfigError(
            f"the card states the guard {text!r}, which is fitted on members, and a server holds none; give another one, such "
            "as --guard top5-rounded --unmeasured-guard"
        )
    return text


def _store(state: str, served: "Served | None" = None) -> "Store":
    """The state database; a file is its owner's alone."""
    from dptrain.release.monitor.store import Store

    url = state
    if "://" not in state:
        path = Path(state).absolute()
        if served is not None and path.resolve().is_relative_to(served.folder.resolve()):
            raise ConfigError(f"--state is {state}, inside of the release, which can be published; name a file elsewhere")
        if not path.parent.is_dir():
            raise ConfigError(f"--state is {state}, and there is no folder {path.parent}; make it, or name another file")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        url = f"sqlite:///{path}"
    return Store(url)


class Watched:
    """The monitor of each release that is served.

    Args:
        action: that follows an alert; ``off`` is no monitor.
        path: of thresholds; left out, the release's own.
    """

    def __init__(self, action: str, path: Path | None, store: "Store", registry: "CollectorRegistry"):
        from dptrain.release.monitor.metrics import Metrics

        self._action, self._path, self._store = action, path, store
        self._metrics = None if action == "off" else Metrics(registry)

    def of(self, served: "Served", before: "Watching | None" = None) -> "Monitor | None":
        """The one before, where the thresholds are the same: it knows the clients.

        Raises:
            ConfigError: there are no thresholds, or they are for another model.
        """
        if self._action == "off":
            return None
        from dptrain.release.monitor import Monitor

        found = self._thresholds(served)
        if isinstance(before, Monitor) and before.thresholds.fingerprint == found.fingerprint:
            return before
        return Monitor(found, actions=self._action, store=self._store, metrics=self._metrics)  # pyright: ignore[reportArgumentType]  one of the flag's choices

    def _thresholds(self, served: "Served") -> "Thresholds":
        from dptrain.checkpoint import unpack_json
        from dptrain.release.monitor import Thresholds

        path = self._path or served.folder / THRESHOLDS
        if self._path is None and not path.is_file():
            raise ConfigError(
                f"{served.folder} holds no {THRESHOLDS}, so there are no thresholds for this model; make them by `dptrain "
                "serve thresholds RUN` and name the file with --thresholds, or give --monitor off"
            )
        try:
            content = unpack_json(path.read_bytes(), path)
        except OSError as error:
            raise ConfigError(
                f"--thresholds is {path}: {error.strerror}; name the {THRESHOLDS} of a published release"
            ) from None
        found = Thresholds.from_json(content)
        if not _fits(found, served):
            raise ConfigError(
                f"{path} was calibrated for another model than {served.folder}, which reads {served.input_shape} and has "
                f"{len(served.classes)} classes; name its own thresholds, or give --monitor off"
            )
        return found


def _fits(thresholds: "Thresholds", served: "Served") -> bool:
    """Whether inputs are of the kind and the number that were calibrated on, and none of the classes that were is missing."""
    watch = thresholds.watch
    numbers = watch.density is None or len(watch.density.mean) == math.prod(served.input_shape)
    return watch.kind == ("tokens" if served.whole else "numbers") and numbers and watch.classes <= max(1, len(served.classes))


def _keys(arguments: Sequence[str]) -> int:
    made = Parser(prog="dptrain serve keys", description="Who may ask a server.")
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser)
    adding = commands.add_parser("add", help="make a key and show it once")
    adding.add_argument("name", metavar="NAME", help="whose it is")
    adding.add_argument("--role", choices=("client", "administrator"), default="client")
    listing = commands.add_parser("list", help="every key, without its secret")
    revoking = commands.add_parser("revoke", help="a key that opens nothing from now on")
    revoking.add_argument("id", metavar="ID", help="of the key, as `list` shows it")
    for command in (adding, listing, revoking):
        command.add_argument("--state", default=STATE, help="file or database URL (%(default)s)")
    given = made.parse_args(arguments)
    from dptrain.release.keys import Keys

    keys = Keys(_store(given.state).engine)
    if given.command == "add":
        print(keys.add(given.name, given.role))
        _say("this key is shown once and stored nowhere; hand it over in private")
    elif given.command == "revoke":
        keys.revoke(given.id)
    else:
        for one in keys.list():
            until = "in force" if one.revoked is None else f"revoked {_day(one.revoked)}"
            print(f"{one.holder.id}  {one.holder.role:<13}  {_day(one.made)}  {until:<18}  {one.holder.name}")
    return 0


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _say(text: str) -> None:
    print(f"dptrain: {text}", file=sys.stderr, flush=True)
