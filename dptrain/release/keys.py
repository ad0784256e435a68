"""API keys: shown once, hashed at rest.

    keys = Keys(store.engine)
    print(keys.add("the clinic's app"))         # dpt_4f9a61c2_..., which is stored nowhere
    keys.holder("dpt_4f9a61c2_...")             # Holder(id="4f9a61c2", name="the clinic's app", role="client")
    keys.revoke("4f9a61c2")

A key is ``dpt_<id>_<secret>`` with 256 secret bits of the operating system. What is stored is a salted BLAKE2b of the secret: a
slow hash guards passwords, which can be guessed, and this cannot; it would only let strangers spend the server's time. A key
that is not there is compared as one that is, in constant time, so that the time of an answer tells nothing of either.

Keys are read again from the database every :data:`FRESH` seconds, so a key that is revoked elsewhere is refused after that.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Column, Engine, Float, LargeBinary, MetaData, String, Table, insert, select, update

from dptrain.errors import ConfigError, unknown_name

Role = Literal["client", "administrator"]
FRESH = 2.0
"""Seconds for which what was read of the database is relied upon."""
SHAPE = re.compile(r"dpt_([0-9a-f]{8})_([0-9a-f]{64})")
LONGEST_NAME = 100

_tables = MetaData()
_keys = Table(
    "api_keys",
    _tables,
    Column("id", String(8), primary_key=True),
    Column("name", String(LONGEST_NAME), nullable=False),
    Column("role", String(16), nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("made", Float, nullable=False),
    Column("revoked", Float),
)
_secrets = Table(
    "server_secrets",
    _tables,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Holder:
    """Whose a key is."""

    id: str
    name: str
    role: Role


@dataclass(frozen=True)
class Listed:
    """A key as its owner sees it later: all but the secret."""

    holder: Holder
    made: float
    """Seconds since 1970."""
    revoked: float | None


@dataclass(frozen=True)
class _Stored:
    holder: Holder
    salt: bytes
    hash: bytes


_NOBODY = _Stored(Holder("", "", "client"), bytes(16), bytes(32))
"""What a key is compared with that is not there; no secret has this hash."""


class Keys:
    """The keys of one state database."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic):
        self._engine, self._clock = engine, clock
        _tables.create_all(engine)
        self._known: dict[str, _Stored] = {}
        self._read_at = float("-inf")

    def add(self, name: str, role: Role = "client") -> str:
        """A new key, which is never shown again.

        Raises:
            ConfigError: the name is empty, too long or not printable, or there is no such role.
        """
        if not 0 < len(name.strip()) <= LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"the key's name is {name!r}; give 1 to {LONGEST_NAME} printable characters, such as clinic")
        if role not in get_args(Role):
            raise unknown_name("role of a key", role, get_args(Role))
        number, secret, salt = secrets.token_hex(4), secrets.token_hex(32), secrets.token_bytes(16)
        row = {"id": number, "name": name.strip(), "role": role, "salt": salt, "hash": _hash(secret, salt), "made": time.time()}
        with self._engine.begin() as connection:
            connection.execute(insert(_keys).values(row))
        self._read_at = float("-inf")
        return f"dpt_{number}_{secret}"

    def list(self) -> tuple[Listed, ...]:
        """Every key that was ever made, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_keys).order_by(_keys.c.made)).all()
        return tuple(Listed(Holder(row.id, row.name, row.role), row.made, row.revoked) for row in rows)

    def revoke(self, number: str) -> None:
        """From now on the key with this id opens nothing.

        Raises:
            ConfigError: there is none.
        """
        with self._engine.begin() as connection:
            change = update(_keys).where(_keys.c.id == number, _keys.c.revoked.is_(None)).values(revoked=time.time())
            if not connection.execute(change).rowcount:
                raise ConfigError(f"no key in force has the id {number!r}; `dptrain serve keys list` shows them")
        self._read_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether :meth:`holder` answers from memory."""
        return self._clock() - self._read_at <= FRESH

    def read(self) -> None:
        """Reads the keys in force from the database."""
        began = self._clock()  # what is revoked from here on may be missing in what is read
        with self._engine.connect() as connection:
            rows = connection.execute(select(_keys).where(_keys.c.revoked.is_(None))).all()
        self._known = {row.id: _Stored(Holder(row.id, row.name, row.role), row.salt, row.hash) for row in rows}
        self._read_at = began

    def holder(self, given: str) -> Holder | None:
        """Whose the key is; None where it is none in force."""
        if not self.is_fresh:
            self.read()
        found = SHAPE.fullmatch(given)
        number, secret = found.groups() if found else ("", "")
        stored = self._known.get(number, _NOBODY)
        return stored.holder if hmac.compare_digest(_hash(secret, stored.salt), stored.hash) else None

    def secret(self, name: str) -> bytes:
        """32 bytes that are drawn when they are first asked for, and stay: they live in the state database alone."""
        with self._engine.begin() as connection:
            stored = connection.execute(select(_secrets.c.value).where(_secrets.c.name == name)).scalar()
            if stored is None:
                stored = secrets.token_bytes(32)
                connection.execute(insert(_secrets).values(name=name, value=stored))
        return stored


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(secret.encode(), salt=salt, person=b"dptrain key", digest_size=32).digest()
