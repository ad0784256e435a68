"""How much one client may ask: a rate, and a budget for good.

    meter = Meter(Limits(rate=10.0, burst=100, queries=5000), store.engine)
    meter.take("4f9a61c2", examples=32)      # Exceeded, with the seconds to wait, where it is too much

Both count examples and not requests: a batch is as many queries as it has examples. The rate is a token bucket, which holds
``burst`` examples and is filled with ``rate`` of them a second. The budget is what a client is answered in all, over restarts.

The budget is taken from the state database in blocks and answered from memory. A server that is killed loses what it had taken
and not answered, at most one block a client, to the client's disadvantage; one that ends in order gives it back. Several
servers may share a database. Buckets are in memory alone, so a restart grants each client at most one burst. Memory holds
:data:`MOST_CLIENTS` clients: beyond them the one that was silent longest is written out and forgotten.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, insert, select, update

from dptrain.errors import ConfigError

MOST_CLIENTS = 50_000
BLOCK = 1000
"""Examples that are taken from the database at once, at most."""
SHARES = 20
"""Of a budget a block is at most one of as many parts."""

_tables = MetaData()
_spent = Table(
    "spent_queries",
    _tables,
    Column("client", String(64), primary_key=True),
    Column("examples", Integer, nullable=False),
)


@dataclass(frozen=True)
class Limits:
    """For each client alike; None is no limit.

    Raises:
        ConfigError: one of them is no positive number.
    """

    rate: float | None = None
    """Examples a second."""
    burst: int = 1000
    """Examples at once; only of use with a rate."""
    queries: int | None = None
    """Examples in all."""

    def __post_init__(self) -> None:
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ConfigError(f"the rate is {self.rate}; give examples a second, above 0, such as 10")
        if self.burst < 1:
            raise ConfigError(f"the burst is {self.burst}; give a whole number from 1 up, such as 100")
        if self.queries is not None and self.queries < 1:
            raise ConfigError(f"the queries are {self.queries}; give a whole number from 1 up, such as 10000")


class Exceeded(Exception):
    """A client asked for more than it may.

    Args:
        wait: seconds after which the same would be answered; None where it never will be.
    """

    def __init__(self, said: str, wait: int | None):
        super().__init__(said)
        self.wait = wait


@dataclass
class _Account:
    tokens: float
    at: float
    reserved: int = 0
    """Taken from the database and not answered yet."""
    answered: int = 0
    """Since this server began, or since the client was last forgotten."""


class Meter:
    """Counts what each client was answered. Not for several threads at once.

    Args:
        engine: the state database.
    """

    def __init__(self, limits: Limits, engine: Engine, clock: Callable[[], float] = time.monotonic):
        self.limits, self._engine, self._clock = limits, engine, clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        _tables.create_all(engine)

    def check(self, client: str) -> None:
        """Charges nothing.

        Raises:
            Exceeded: not a single example would be answered.
        """
        account = self._filled(client)
        if self.limits.rate is not None and account.tokens < 1:
            raise self._too_fast(account, 1, self.limits.rate)
        if self.limits.queries is not None:
            self._reserve(client, account, 1, self.limits.queries)

    def take(self, client: str, examples: int) -> None:
        """Charges ``examples``.

        Raises:
            Exceeded: rate or budget do not permit them; nothing was charged.
        """
        account, limits = self._filled(client), self.limits
        if limits.rate is not None and account.tokens < examples:
            raise self._too_fast(account, examples, limits.rate)
        if limits.queries is not None:
            self._reserve(client, account, examples, limits.queries)
            account.reserved -= examples
        account.tokens -= examples
        account.answered += examples

    def waste(self, client: str, examples: int = 1) -> None:
        """Charges what could not be answered: as so many examples of the rate, also on credit, and nothing of the budget."""
        account = self._filled(client)
        account.tokens = max(account.tokens - examples, -float(self.limits.burst))

    def answered(self) -> dict[str, int]:
        """Examples that each client in memory was answered since the start."""
        return {client: account.answered for client, account in self._accounts.items()}

    def close(self) -> None:
        """Gives back what was taken and not answered."""
        while self._accounts:
            self._forget()

    def _filled(self, client: str) -> _Account:
        """The client's account, its bucket filled up to now."""
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = _Account(float(self.limits.burst), self._clock())
            if len(self._accounts) > MOST_CLIENTS:
                self._forget()
        self._accounts.move_to_end(client)
        if self.limits.rate is not None:
            now = self._clock()
            account.tokens = min(self.limits.burst, account.tokens + max(0.0, now - account.at) * self.limits.rate)
            account.at = now
        return account

    def _too_fast(self, account: _Account, examples: int, rate: float) -> Exceeded:
        if examples > self.limits.burst:
            return Exceeded(f"{examples} examples are more than are answered at once: {self.limits.burst}", None)
        return Exceeded(
            f"this client asks for more than {rate:g} examples a second", math.ceil((examples - account.tokens) / rate)
        )

    def _reserve(self, client: str, account: _Account, examples: int, budget: int) -> None:
        if account.reserved >= examples:
            return
        block = max(1, min(BLOCK, budget // SHARES))
        account.reserved += self._add(client, max(examples - account.reserved, block), budget)
        if account.reserved < examples:
            raise Exceeded(
                f"this client has {account.reserved} of its {budget} examples left, and {examples} were asked for", None
            )

    def _forget(self) -> None:
        client, account = self._accounts.popitem(last=False)
        if account.reserved:
            self._add(client, -account.reserved, 0)

    def _add(self, client: str, wanted: int, budget: int) -> int:
        """Adds to what is spent as much of ``wanted`` as the budget has left, and says how much that was."""
        column = _spent.c.client
        while True:
            with self._engine.begin() as connection:
                spent = connection.execute(select(_spent.c.examples).where(column == client)).scalar()
                if spent is None:
                    connection.execute(insert(_spent).values(client=client, examples=0))
                    spent = 0
                given = min(wanted, max(0, budget - spent)) if wanted > 0 else wanted
                same = (column == client) & (_spent.c.examples == spent)
                if connection.execute(update(_spent).where(same).values(examples=spent + given)).rowcount:
                    return given
