"""A model that answers over HTTP: attacks as a stranger with an API key makes them.

    target = RemoteTarget.connect("http://127.0.0.1:8000", key="dpt_...")
    ATTACKS["membership.boundary"]().run(target, examples, knowledge)

It is a :class:`~evaluation.target.Target` whose every question goes to a prediction server (:mod:`dptrain.release.server`), so
that an attack meets what a client meets: the guard, the limits, and the monitor. It sees scores at most, and of those what the
guard shows, completed as an attacker who knows the guard completes them (:mod:`evaluation.completed`).

A language model says what comes after one beginning at a time. Each place of a text is then a question of its own, and the
beginning is sent again with each: the server keeps nothing of a client's text.
"""

import copy
import http.client
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import UserError
from dptrain.release.guard import NO_CLASS, Answers, Guard, Shows
from evaluation.access import Access, AccessError
from evaluation.completed import completed
from evaluation.target import Kind, Reading, Target

BATCH = 256
"""Examples that are asked about in one request."""
TIMEOUT = 60.0
LONGEST_WAIT = 30.0
"""Seconds that are waited at most where the server says when to ask again."""
TOO_MANY = 429


class ServerError(UserError):
    """The server did not answer a question. What it said stands in the message."""


@dataclass(frozen=True)
class ServerGuard(Guard):
    """A guard that stands at the server: what comes from there has gone through it, and its card says what it does."""

    text: str
    says_of_itself: str

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        raise UserError(f"the guard {self.text!r} stands at the server, which alone can answer through it; ask the server")

    def statement(self) -> str:
        return self.says_of_itself


class RemoteTarget(Target):
    """What a prediction server shows of its model."""

    def __init__(
        self,
        url: str,
        *,
        classes: Sequence[str],
        bounds: tuple[float, float],
        kind: Kind = "classification",
        key: str | None = None,
        batch: int = BATCH,
        guard: Guard | None = None,
    ):
        super().__init__(nn.Identity(), Access.SCORES, bounds=bounds, classes=len(classes), kind=kind, guard=guard)
        if kind == "regression":
            raise UserError("the model predicts a value, and what is attacked over HTTP has classes")
        self._door = _Door(url, key)
        self._number_of = {name: number for number, name in enumerate(classes)}
        self._batch = batch
        if len(self._number_of) < len(classes):
            raise UserError("two classes have the same name, so that an answer does not say which is meant")

    @classmethod
    def connect(cls, url: str, *, key: str | None = None, batch: int = BATCH) -> "RemoteTarget":
        """The model that the server's own card describes.

        Raises:
            ServerError: no server answers there, or not with a card.
        """
        card = _Door(url, key).ask("GET", "/v1/card")
        try:
            data, stands = card["data"], card["guard"]
            guard = None if stands["text"] is None else ServerGuard(str(stands["text"]), str(stands["statement"]))
            low, high = data["bounds"]
            classes, kind = tuple(map(str, data["classes"])), data.get("models", "classification")
        except (KeyError, TypeError, ValueError):
            raise ServerError(f"{url} shows a card that does not describe its data and its guard") from None
        return cls(url, classes=classes, bounds=(low, high), kind=kind, key=key, batch=batch, guard=guard)

    def behind(self, access: Access) -> "RemoteTarget":
        """The same server for an attacker of this level.

        Raises:
            AccessError: the server shows less.
        """
        if access > Access.SCORES:
            raise AccessError(
                f"a server shows scores at most, and this attack asks for {access.word}; attack the release instead"
            )
        other = copy.copy(self)
        other.access, other.queries = access, 0
        return other

    def labels(self, inputs: Tensor) -> Int[np.ndarray, "examples ..."]:
        if self.kind == "language":
            return np.stack([self._answers(inputs[:, : place + 1]).labels for place in range(inputs.shape[1])], axis=1)
        return self._answers(inputs).labels

    def scores(self, inputs: Tensor) -> Float[np.ndarray, "examples classes"]:
        self._require(Access.SCORES)
        return completed(self._answers(inputs))

    def log_likelihoods(self, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, "examples length"]:
        self._require(Access.SCORES)
        places = [self._logs(inputs[:, : place + 1]) for place in range(inputs.shape[1])]
        return np.stack([np.take_along_axis(logs, targets[:, [at]].numpy(), 1)[:, 0] for at, logs in enumerate(places)], axis=1)

    def surprise(self, inputs: Tensor) -> tuple[Float[np.ndarray, "examples length"], Float[np.ndarray, "examples length"]]:
        self._require(Access.SCORES)
        means, deviations = [], []
        for place in range(inputs.shape[1]):
            logs = self._logs(inputs[:, : place + 1])
            mean = (np.exp(logs) * logs).sum(1, keepdims=True)
            means.append(mean[:, 0])
            deviations.append(np.sqrt((np.exp(logs) * np.square(logs - mean)).sum(1)))
        return np.stack(means, axis=1), np.stack(deviations, axis=1)

    def read(
        self, tokens: Int[Tensor, "sequences more"], state: Reading | None = None
    ) -> tuple[Float[Tensor, "sequences tokens"], Reading]:
        self._require(Access.SCORES)
        so_far = tokens if state is None else torch.cat([state[0][0], tokens], 1)
        return torch.from_numpy(self._logs(so_far)), (so_far[None],)

    def _logits(self, inputs: Tensor, needed: Access) -> np.ndarray:
        raise AccessError(f"a server shows no {needed.word}; attack the release instead")

    def _logs(self, beginnings: Int[Tensor, "sequences length"]) -> Float[np.ndarray, "sequences tokens"]:
        """Log-probabilities of what comes next; of what is shown as 0, those of the least number above it."""
        return np.log(np.maximum(completed(self._answers(beginnings)), np.finfo(float).tiny))

    def _answers(self, inputs: Tensor) -> Answers:
        self._require(Access.LABEL)
        self.queries += len(inputs)
        shown: list[dict[str, Any]] = []
        for part in inputs.split(self._batch):
            body = io.BytesIO()
            np.save(body, part.detach().cpu().numpy(), allow_pickle=False)
            given = self._door.ask("POST", "/v1/predict", body.getvalue())
            shown += given["answers"]
        return _read(shown, self._number_of)


def _read(shown: Sequence[dict[str, Any]], number_of: dict[str, int]) -> Answers:
    """Answers as they were sent, with a class in the place of each name."""
    refused = np.array([one["refused"] for one in shown], dtype=bool)
    best = max((1, *(len(one["top"]) for one in shown)))
    scored = any("score" in entry for one in shown for entry in one["top"])
    classes = np.full((len(shown), best), NO_CLASS)
    scores = np.zeros((len(shown), len(number_of)))
    for row, one in enumerate(shown):
        names = [number_of[entry["label"]] for entry in one["top"]]
        # Equal scores are listed in the order of their classes, and the label says which of them is the model's.
        classes[row, : len(names)] = sorted(names, key=lambda name: name != number_of[one["label"]])
        if scored:
            scores[row, names] = [entry.get("score", 1.0) for entry in one["top"]]
    if scored:
        return Answers(scores, None if best == len(number_of) else classes, "scores", refused)
    weights = np.arange(best, 0, -1, dtype=float) / max(1, best * (best + 1) // 2)
    rows = np.flatnonzero(~refused)
    scores[rows[:, None], classes[rows]] = weights
    kind: Shows = "label" if best <= 1 else "ranks"
    return Answers(scores, classes, kind, refused)


class _Door:
    """One connection that is kept open, and opened again where the server closed it."""

    def __init__(self, url: str, key: str | None):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is no address of a server; give one such as http://127.0.0.1:8000")
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._url = parts.hostname, parts.port, url
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The answer to one request; where the server says when to ask again, it is asked then.

        Raises:
            ServerError: it refuses, or cannot be reached.
        """
        while True:
            status, wait, content = self._once(method, path, body)
            if status == http.client.OK:
                return json.loads(content)
            if status == TOO_MANY and wait is not None and wait <= LONGEST_WAIT:
                time.sleep(wait)
                continue
            raise ServerError(f"{self._url}{path} answered {status}: {content[:300].decode(errors='replace')}")

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, float | None, bytes]:
        headers = self._headers if body is None else {**self._headers, "content-type": "application/x-npy"}
        kept = self._connection
        try:
            return self._sent(method, path, body, headers)
        except (http.client.HTTPException, OSError) as error:
            self._close()
            if kept is None:
                raise ServerError(f"{self._url} cannot be reached: {error}") from None
        return self._once(method, path, body)  # the server had closed what was kept open

    def _sent(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, float | None, bytes]:
        if self._connection is None:
            self._connection = self._make(self._host, self._port, timeout=TIMEOUT)
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        wait = reply.getheader("retry-after", "")
        return reply.status, float(wait) if wait.isdecimal() else None, reply.read()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
