"""Keys are shown once, hashed at rest, and open nothing once revoked."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from dptrain.errors import ConfigError
from dptrain.release.keys import FRESH, Holder, Keys


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def keys_of(database: Path, clock: Clock | None = None) -> Keys:
    return Keys(create_engine(f"sqlite:///{database}"), clock or Clock())


def test_a_key_tells_its_holder(database: Path):
    keys = keys_of(database)
    given = keys.add("clinic")
    found = keys.holder(given)
    assert found == Holder(given.split("_")[1], "clinic", "client")
    assert keys_of(database).holder(given) == found


def test_the_secret_is_not_in_the_database(database: Path):
    given = keys_of(database).add("clinic")
    stored = database.read_bytes()
    secret = given.rpartition("_")[2]
    assert secret.encode() not in stored
    assert bytes.fromhex(secret) not in stored
    assert b"clinic" in stored


def test_no_other_text_opens(database: Path):
    keys = keys_of(database)
    given, other = keys.add("one"), keys.add("other")
    number, secret = given.split("_")[1:]
    wrong = "0" if secret[-1] != "0" else "1"
    mixed = f"dpt_{number}_{other.rpartition('_')[2]}"
    for text in (
        "",
        "dpt_",
        secret,
        given[:-1],
        given[:-1] + wrong,
        given + "0",
        given.upper(),
        f"dpt_00000000_{secret}",
        mixed,
    ):
        assert keys.holder(text) is None
    assert keys.holder("dpt_00000000_" + 64 * "0") is None


def test_a_revoked_key_opens_nothing_also_elsewhere_after_a_moment(database: Path):
    clock = Clock()
    here, there = keys_of(database), keys_of(database, clock)
    given = here.add("clinic")
    assert there.holder(given) is not None
    here.revoke(given.split("_")[1])
    assert here.holder(given) is None
    assert there.holder(given) is not None
    clock.now += FRESH + 0.1
    assert there.holder(given) is None
    assert here.list()[0].revoked is not None


def test_a_key_that_is_revoked_while_the_keys_are_read_opens_nothing_a_moment_after_that_began(database: Path):
    """However long the reading takes, such as on a machine that stalls."""
    clock = Clock()
    here, there = keys_of(database), keys_of(database, clock)
    given = here.add("clinic")

    def stalled(*_: object) -> None:
        if clock.now == 0.0:
            clock.now = FRESH + 0.1
            here.revoke(given.split("_")[1])

    event.listen(there._engine, "checkin", stalled)  # what was read is there, and the reader goes on after a while
    there.read()
    assert clock.now > FRESH
    assert there.holder(given) is None


def test_what_cannot_be_added_or_revoked_is_said(database: Path):
    keys = keys_of(database)
    for name in ("", "   ", "a" * 101, "a\nb"):
        with pytest.raises(ConfigError, match="name"):
            keys.add(name)
    with pytest.raises(ConfigError, match="role"):
        keys.add("clinic", "king")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no key in force"):
        keys.revoke("00000000")


def test_the_guards_secret_is_drawn_once_and_stays(database: Path, tmp_path: Path):
    secret = keys_of(database).secret("guard")
    assert len(secret) == 32
    assert keys_of(database).secret("guard") == secret
    assert keys_of(tmp_path / "other.db").secret("guard") != secret
