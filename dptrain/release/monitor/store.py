"""Where clients' states and alerts are kept over a restart: SQLite by default, or any database that SQLAlchemy knows.

    store = Store("sqlite:///state.db")
    monitor = Monitor(thresholds, store=store)
    store.close()

A request never waits for a write: what is to be written is handed to one thread, which writes everything that came since in one
transaction, every ``interval`` seconds and at once after an alert. So a crash loses the last ``interval`` seconds of states. A
client that is not in memory is read when it asks first, and that a request does wait for. One process writes: two monitors over
one store each know half of what a client asks. Where the database cannot be read the request fails: nobody is forgiven because
a disk is full. A database in memory has one connection for all threads, which take turns, since whoever leaves a connection
rolls back what another thread has begun on it: there a request waits for one write of what others asked, at most.

States are made from queries (:mod:`~dptrain.release.monitor.sketch`): where queries are about people the store holds personal
data. :meth:`Store.forget` takes a client out.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    select,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from dptrain.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from dptrain.release.monitor.monitor import Alert

SCHEMA = 1
LOG = logging.getLogger("dptrain.monitor")
TABLES = MetaData()
META = Table("monitor_schema", TABLES, Column("version", Integer, primary_key=True))
CLIENTS = Table(
    "monitor_clients",
    TABLES,
    Column("client", String(255), primary_key=True),
    Column("thresholds", String(64), nullable=False),
    Column("written", Float, nullable=False),
    Column("state", LargeBinary, nullable=False),
)
ALERTS = Table(
    "monitor_alerts",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("client", String(255), nullable=False),
    Column("detector", String(64), nullable=False),
    Column("value", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("queries", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Index("monitor_alerts_client", "client"),
)
Source = Callable[[Callable[[str, bytes], None]], None]
"""Puts states, by client, into what it is given."""


class Store:
    """A database, and the thread that writes to it."""

    def __init__(self, url: str = "sqlite:///monitor.db", *, interval: float = 1.0):
        """
        Raises:
            UserError: the URL cannot be used.
            CheckpointError: the tables are of another version.
        """
        try:
            self.engine, self._turn = _opened(url)
            if self.engine.dialect.name == "sqlite":
                event.listen(self.engine, "connect", _for_sqlite)
            TABLES.create_all(self.engine)
            with self._transaction() as connection:
                version = connection.execute(select(META.c.version)).scalar()
                if version is None:
                    connection.execute(insert(META).values(version=SCHEMA))
        except (ArgumentError, SQLAlchemyError, ImportError) as error:
            raise UserError(
                f"{url!r} is no database that can be opened ({error}); give one such as sqlite:///monitor.db"
            ) from None
        if version not in (None, SCHEMA):
            raise CheckpointError(f"{url} has tables of version {version} and this version reads {SCHEMA}; give a new file")
        self._states: dict[str, tuple[str, bytes]] = {}
        self._alerts: list[dict[str, Any]] = []
        self._sources: list[tuple[str, Any]] = []
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._closed = threading.Event(), False
        self._interval = interval
        self._thread = threading.Thread(target=self._run, name="monitor-store", daemon=True)
        self._thread.start()

    def attach(self, thresholds: str, source: Source) -> None:
        """From here on has a monitor's method put the states that changed; one that is gone is asked no more."""
        self._sources = [kept for kept in self._sources if kept[1]() is not None]
        self._sources.append((thresholds, weakref.WeakMethod(source)))  # type: ignore[arg-type]

    def put(self, client: str, thresholds: str, state: bytes) -> None:
        """A state that is to be written; at once the one that ``get`` gives."""
        with self._lock:
            self._states[client] = (thresholds, state)

    def get(self, client: str, thresholds: str) -> bytes | None:
        """The state of a client under these thresholds; None where there is none."""
        with self._lock:
            waiting = self._states.get(client)
        if waiting is not None:
            return waiting[1] if waiting[0] == thresholds else None
        with self._transaction() as connection:
            wanted = (CLIENTS.c.client == client) & (CLIENTS.c.thresholds == thresholds)
            return connection.execute(select(CLIENTS.c.state).where(wanted)).scalar()

    def add_alerts(self, alerts: "Sequence[Alert]") -> None:
        """To be written, at once but not by the caller."""
        with self._lock:
            self._alerts.extend(dict(vars(alert)) for alert in alerts)
        self._wake.set()

    def alerts(self, most: int = 100, client: str | None = None) -> list[dict[str, Any]]:
        """The latest, newest first: fields of an :class:`~dptrain.release.monitor.Alert`."""
        self.flush()
        columns = [column for column in ALERTS.c if column.name != "number"]
        query = select(*columns).order_by(ALERTS.c.number.desc()).limit(most)
        if client is not None:
            query = query.where(ALERTS.c.client == client)
        with self._transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def forget(self, client: str) -> None:
        """Takes a client's state and alerts out of the database. A monitor that has it in memory keeps it there."""
        self.flush()
        with self._writing, self._transaction() as connection:
            for table in (CLIENTS, ALERTS):
                connection.execute(delete(table).where(table.c.client == client))

    def flush(self) -> None:
        """Writes everything, and waits for it.

        Raises:
            SQLAlchemyError: the database failed; nothing that was to be written is lost from memory.
        """
        with self._writing:
            for thresholds, source in self._sources:
                method = source()
                if method is not None:
                    method(lambda client, state, thresholds=thresholds: self.put(client, thresholds, state))
            with self._lock:
                states, alerts = dict(self._states), list(self._alerts)
            if not states and not alerts:
                return
            with self._transaction() as connection:
                names = list(states)
                for start in range(0, len(names), 500):
                    connection.execute(delete(CLIENTS).where(CLIENTS.c.client.in_(names[start : start + 500])))
                if states:
                    now = time.time()
                    rows = [
                        {"client": name, "thresholds": thresholds, "written": now, "state": state}
                        for name, (thresholds, state) in states.items()
                    ]
                    connection.execute(insert(CLIENTS), rows)
                if alerts:
                    connection.execute(insert(ALERTS), alerts)
            with self._lock:
                self._states = {name: kept for name, kept in self._states.items() if states.get(name) is not kept}
                del self._alerts[: len(alerts)]

    def close(self) -> None:
        """Writes everything and lets go of the database."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._thread.join()
        self.flush()
        self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Committed at the end, and rolled back where there is an error."""
        with self._turn, self.engine.begin() as connection:
            yield connection

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._interval)
            self._wake.clear()
            try:
                self.flush()
            except Exception as error:  # whatever it is: without this thread nothing would be written any more
                told = error if isinstance(error, SQLAlchemyError) else type(error).__name__  # others may name a client
                LOG.error("the monitor's store cannot be written to, and is tried again: %s", told)


def _opened(url: str) -> tuple[Engine, AbstractContextManager[Any]]:
    """The engine, and what is held while a connection of it is in use."""
    engine = create_engine(url, hide_parameters=True)  # errors are logged, and clients are parameters
    if not isinstance(engine.pool, SingletonThreadPool):
        return engine, nullcontext()
    engine.dispose()  # SQLite in memory, where each thread would have a database of its own
    options: dict[str, Any] = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    return create_engine(url, hide_parameters=True, **options), threading.Lock()


def _for_sqlite(connection: Any, _: object) -> None:
    """Readers do not wait for the writer."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
