"""The monitor: what each client's queries look like, and what is done about it.

    monitor = Monitor(thresholds, actions="degrade", store=Store("sqlite:///state.db"))
    decision = monitor.admit(client)                                    # before anything is computed
    decision = monitor.observe(client, inputs, labels, margins)         # after the answer, before it is sent

An alert is an observation and no proof, and that none was raised is not a guarantee. An action holds for ``hold`` seconds after
the last query that was above a threshold, and ends by itself. Neither a query nor an answer is kept or logged, only what
:mod:`~dptrain.release.monitor.state` says, of at most ``clients`` clients in memory; the longest unseen goes to the store, or
is forgotten where there is none.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from dptrain.errors import CheckpointError, UserError, unknown_name
from dptrain.release.monitor.detectors import COLUMN, DECOYS, DETECTORS, SUMMED
from dptrain.release.monitor.shared import owner_of
from dptrain.release.monitor.sketch import sketched
from dptrain.release.monitor.state import State
from dptrain.release.monitor.thresholds import Thresholds

if TYPE_CHECKING:
    from dptrain.release.monitor.metrics import Metrics
    from dptrain.release.monitor.store import Store

Action = Literal["log", "slow", "degrade", "refuse"]
ACTIONS: tuple[Action, ...] = get_args(Action)
LOG = logging.getLogger("dptrain.monitor")
ABOVE = 10.0
"""How far a sum may grow above its threshold: so long does a client stay above it that probes no more."""
SHOWN = 200
"""Alerts that are kept in memory for the page."""


@dataclass(frozen=True)
class Alert:
    """A client's number was above its threshold."""

    time: float
    client: str
    detector: str
    value: float
    threshold: float
    queries: int
    """Of the client, up to the one that was too much."""
    text: str


@dataclass(frozen=True)
class Decision:
    """What to do with a query of a client."""

    action: Literal["allow", "slow", "degrade", "refuse"]
    """``slow``: after ``delay`` seconds; ``degrade``: with the label alone; ``refuse``: not at all."""
    alerts: tuple[Alert, ...] = ()
    delay: float = 0.0


@dataclass(eq=False)
class _Seen:
    state: State
    dirty: bool = False
    values: np.ndarray = field(default_factory=lambda: np.zeros(len(DETECTORS)))


class Monitor:
    """Of all clients of one model. Its methods may be called from several threads."""

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        actions: dict[str, Action] | Action = "log",
        store: "Store | None" = None,
        decoys: Shaped[np.ndarray, "decoys ..."] | None = None,
        clock: Callable[[], float] = time.time,
        hold: float = 600.0,
        delay: float = 1.0,
        clients: int = 2048,
        metrics: "Metrics | None" = None,
        seed: int | None = None,
    ):
        """
        Args:
            actions: one for all detectors, or by detector; those not named are logged.
            decoys: inputs that nobody has a reason to ask for. A query near one is an alert at once. No false-alarm rate is
                stated for it.
            hold: seconds that an action lasts, and that a detector is quiet after an alert.
            delay: seconds, of ``slow``.
            clients: in memory at once.
            seed: of what is drawn into samples; from the operating system by default.

        Raises:
            UserError: a detector or an action that there is not, or a number that is none.
        """
        self.thresholds, self.hold, self.delay = thresholds, hold, delay
        self.actions = _actions(actions)
        if clients < 1 or hold <= 0 or delay < 0:
            raise UserError(f"clients={clients}, hold={hold}, delay={delay}; give at least 1, above 0, and at least 0")
        self._watch, self._clock, self._most, self._metrics = thresholds.watch, clock, clients, metrics
        limits = {**thresholds.values, **({} if decoys is None else {DECOYS: 0.5})}
        self._limits = np.array([limits.get(name, np.inf) for name in DETECTORS])
        self._decoys = None if decoys is None else sketched(decoys, self._watch.seed)
        self._shared, self._generator = self._watch.shared(), np.random.default_rng(seed)
        self._clients: OrderedDict[str, _Seen] = OrderedDict()
        self._alerts: deque[Alert] = deque(maxlen=SHOWN)
        self._lock, self._store = threading.RLock(), store
        if store is not None:
            store.attach(thresholds.fingerprint, self._hand_over)
            self._alerts.extend(Alert(**row) for row in store.alerts(SHOWN)[::-1])

    def admit(self, client: str) -> Decision:
        """Whether and how to answer this client at all, from what it asked before."""
        with self._lock:
            return self._decision(self._seen(client).state, ())

    def observe(
        self,
        client: str,
        inputs: Shaped[np.ndarray, "queries ..."],
        labels: Int[np.ndarray, " queries"],
        margins: Float[np.ndarray, " queries"],
    ) -> Decision:
        """What these queries say, and so what to do with their answer.

        Args:
            labels: −1 where the guard refused.
            margins: between the model's two highest scores, not the shown ones; NaN where there is none.
        """
        if len(inputs) == 0:
            return self.admit(client)
        with self._lock:
            seen, now = self._seen(client), self._clock()
            state, before = seen.state, seen.state.queries
            found = self._watch.update(
                state,
                inputs,
                labels,
                margins,
                np.full(len(labels), now),
                self._shared,
                owner_of(client),
                self._generator,
                self._decoys,
            )
            seen.dirty, seen.values = True, np.minimum(found[-1], self._limits + ABOVE)
            alerts = tuple(self._raised(client, state, before, found, now))
            state.sums = np.minimum(state.sums, self._limits[: len(SUMMED)] + ABOVE)
            decision = self._decision(state, alerts)
        self._tell(len(labels), alerts, decision)
        return decision

    def _raised(self, client: str, state: State, before: int, found: np.ndarray, now: float) -> Iterator[Alert]:
        """Every action is prolonged as long as its detector is above; an alert is raised once in that time."""
        above = found > self._limits
        for column in np.flatnonzero(above.any(0)):
            name, row = DETECTORS[column], int(above[:, column].argmax())
            state.held[ACTIONS.index(self.actions[name])] = now + self.hold
            if now >= state.quiet[column]:
                state.quiet[column] = now + self.hold
                state.alerts += 1
                value, limit, queries = float(found[row, column]), float(self._limits[column]), before + row + 1
                text = f"client {client}: {name} is {value:.3g}, above {limit:.3g}, after {queries} queries"
                alert = Alert(now, client, name, value, limit, queries, text)
                self._alerts.append(alert)
                yield alert

    def _decision(self, state: State, alerts: tuple[Alert, ...]) -> Decision:
        now = self._clock()
        for action in reversed(ACTIONS[1:]):
            if state.held[ACTIONS.index(action)] > now:
                return Decision(action, alerts, self.delay if action == "slow" else 0.0)  # type: ignore[arg-type]
        return Decision("allow", alerts)

    def _tell(self, queries: int, alerts: tuple[Alert, ...], decision: Decision) -> None:
        for alert in alerts:
            LOG.warning(alert.text, extra={"alert": alert, "action": self.actions[alert.detector]})
        if self._store is not None and alerts:
            self._store.add_alerts(alerts)
        if self._metrics is not None:
            self._metrics.observed(queries, alerts, decision.action, len(self._clients))

    def _seen(self, client: str) -> _Seen:
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = _Seen(self._restored(client))
            while len(self._clients) > self._most:
                name, oldest = self._clients.popitem(last=False)
                if self._store is not None and oldest.dirty:
                    self._store.put(name, self.thresholds.fingerprint, oldest.state.to_bytes())
        self._clients.move_to_end(client)
        return found

    def _restored(self, client: str) -> State:
        """What the store has; where that cannot be read the client begins anew, and the operator is told."""
        fresh = self._watch.fresh()
        content = None if self._store is None else self._store.get(client, self.thresholds.fingerprint)
        if content is None:
            return fresh
        try:
            return State.from_bytes(content, fresh)
        except CheckpointError as error:
            text = f"client {client} begins anew, since what was known of it cannot be read: {error}"
            alert = Alert(self._clock(), client, "state", 0.0, 0.0, 0, text)
            self._alerts.append(alert)
            LOG.warning(text, extra={"alert": alert, "action": "log"})
            if self._store is not None:
                self._store.add_alerts((alert,))
            return fresh

    def _hand_over(self, put: Callable[[str, bytes], None]) -> None:
        """Gives away the states that changed since this was last called. Each is copied and put under the lock, one at a time:
        a client that fell out of memory in between would come back without what was on its way."""
        with self._lock:
            names = [name for name, seen in self._clients.items() if seen.dirty]
        for name in names:
            with self._lock:
                seen = self._clients.get(name)
                if seen is None or not seen.dirty:
                    continue
                put(name, seen.state.to_bytes())
                seen.dirty = False

    def save(self) -> None:
        """Writes everything to the store, and waits for it."""
        if self._store is not None:
            self._store.flush()

    def statistics(self) -> dict[str, Any]:
        """For the page, as JSON takes it: what is known of each client in memory, and the latest alerts."""
        with self._lock:
            now = self._clock()
            clients = {name: self._of(seen, now) for name, seen in self._clients.items()}
            alerts = [vars(alert) for alert in self._alerts]
        return {"clients": clients, "alerts": alerts[::-1], "statement": self.thresholds.statement()}

    def _of(self, seen: _Seen, now: float) -> dict[str, Any]:
        state, watched = seen.state, np.flatnonzero(np.isfinite(self._limits))
        return {
            "queries": state.queries,
            "repeats": state.repeats,
            "alerts": state.alerts,
            "last": state.last if np.isfinite(state.last) else None,
            "action": self._decision(state, ()).action,
            "detectors": {
                DETECTORS[column]: {"value": float(seen.values[column]), "threshold": float(self._limits[column])}
                for column in watched
            },
        }


def _actions(given: "dict[str, Action] | Action") -> dict[str, Action]:
    default: Action = given if isinstance(given, str) else "log"
    by_detector: dict[str, Action] = dict.fromkeys(DETECTORS, default)
    by_detector |= {} if isinstance(given, str) else given
    for name, action in by_detector.items():
        if name not in COLUMN:
            raise unknown_name("detector", name, DETECTORS, UserError)
        if action not in ACTIONS:
            raise unknown_name("action", action, ACTIONS, UserError)
    return by_detector
