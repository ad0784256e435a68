"""Releases to serve, made at once and without training; and a real server for them on the loopback interface."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from sqlalchemy import create_engine

from dptrain import models
from dptrain.checkpoint import save_release
from dptrain.data import alphabet
from dptrain.data.values import Values
from dptrain.plain import as_plain
from dptrain.recipe import ModelConfig, Recipe, RegularizationConfig
from dptrain.release.keys import Keys
from dptrain.release.limits import Limits
from dptrain.release.listening import server_of
from dptrain.release.loading import Served
from dptrain.release.server import create_app
from dptrain.release.service import Settings

for kind in ("connect", "read", "write", "pool"):  # of whoever asks a server here: how long it may take is the server's to say
    setattr(DEFAULT_TIMEOUT_CONFIG, kind, 60.0)

DIGITS = tuple(map(str, range(10)))
STATEMENT = "(2.00, 1e-05)-differential privacy for one example, in a test."


def card(config: ModelConfig, **data: Any) -> dict[str, Any]:
    """Of a model that nobody trained."""
    recipe = as_plain(Recipe(model=config))
    guarantee = {"statement": STATEMENT, "epsilon": 2.0, "delta": 1e-5, "unit": "example"}
    facts = {"name": "made-up", "kind": "image", "classes": list(DIGITS), "value": None, "bounds": [0.0, 1.0]}
    return {"recipe": recipe, "data": facts | {"input_shape": [8, 8]} | data, "guarantee": guarantee}


def card_of_digits() -> dict[str, Any]:
    return card(ModelConfig(name="mlp", hidden=(16,)))


def digits(folder: Path, seed: int = 0, **data: Any) -> Path:
    """A random network that reads 8 × 8 numbers from 0 to 1."""
    return _write(folder, ModelConfig(name="mlp", hidden=(16,)), seed, **data)


def dose(folder: Path) -> Path:
    """A random model of a value."""
    value = as_plain(Values("dose", "mg a week", (2.0, 320.0)))
    facts = {"kind": "table", "classes": [], "value": value, "input_shape": [5], "bounds": [-1.0, 1.0]}
    return _write(folder, ModelConfig(name="linear"), 0, **facts)


def text(folder: Path) -> Path:
    """A random model of what comes next in a text of at most 16 characters."""
    labels = list(alphabet.LABELS)
    facts = {"kind": "text", "models": "language", "classes": labels, "input_shape": [16], "bounds": [0.0, len(labels) - 1.0]}
    return _write(folder, ModelConfig(name="lstm", hidden=(8,)), 0, **facts)


def words(folder: Path) -> Path:
    """A random model of two classes of messages, read as numbers of words."""
    facts = {"kind": "text", "classes": ["ham", "spam"], "input_shape": [6], "bounds": [0.0, 4096.0]}
    return _write(folder, ModelConfig(name="embedding_bag", hidden=(4,)), 0, **facts)


def _write(folder: Path, config: ModelConfig, seed: int, **data: Any) -> Path:
    stated = card(config, **data)
    torch.manual_seed(seed)
    shape = tuple(stated["data"]["input_shape"])
    model = models.build(config, shape, len(stated["data"]["classes"]) or 1, RegularizationConfig())
    save_release(folder, model.state_dict(), stated)
    return folder


class State:
    """A state database."""

    def __init__(self, folder: Path) -> None:
        self.engine = create_engine(f"sqlite:///{folder / 'state.db'}")


def app_of(folder: Path, **changes: Any) -> Any:
    """The application, for clients without keys unless it is said otherwise."""
    given: dict[str, Any] = {
        "guard_text": None,
        "monitor": None,
        "limits": Limits(),
        "store": None,
        "keys": None,
        "settings": Settings(clients="addresses"),
    } | changes
    return create_app(Served.load(folder), **given)


def keyed(folder: Path, **settings: Any) -> tuple[dict[str, Any], str, str]:
    """What makes a server with keys, a client's key, and an administrator's."""
    store = State(folder)
    keys = Keys(store.engine)
    changes = {"store": store, "keys": keys, "settings": Settings(**settings)}
    return changes, keys.add("a client"), keys.add("the owner", "administrator")


@contextmanager
def serving(app: Any, server: uvicorn.Server | None = None) -> Iterator[str]:
    """A real server in a thread; its address."""
    server = server or server_of(app, "127.0.0.1", 0, app.state.service.settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what a server does soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


@contextmanager
def held_back(patch: pytest.MonkeyPatch, seconds: float) -> Iterator[threading.Event]:
    """What the server holds back for exactly so many seconds is held back until the event, or until the block ends."""
    go, sleep = threading.Event(), asyncio.sleep

    async def held(given: float) -> None:
        if given != seconds:
            await sleep(given)
            return
        while not go.is_set():
            await sleep(0.01)

    with patch.context() as patched:
        patched.setattr(asyncio, "sleep", held)
        try:
            yield go
        finally:
            go.set()
