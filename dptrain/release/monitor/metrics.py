"""The monitor's figures for Prometheus. None is by client: a label a client would grow without end, and tell who asks.

They name detectors, so whoever may read them may learn how to pass one: they are for the operator alone.

monitor = Monitor(thresholds, metrics=Metrics(registry))
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from dptrain.release.monitor.monitor import Alert


class Metrics:
    """Counters in a registry that is given."""

    def __init__(self, registry: CollectorRegistry):
        self.queries = Counter("dptrain_monitor_queries", "Queries that the monitor saw.", registry=registry)
        self.alerts = Counter("dptrain_monitor_alerts", "Alerts, by detector.", ["detector"], registry=registry)
        self.decisions = Counter("dptrain_monitor_decisions", "Batches of queries, by action.", ["action"], registry=registry)
        self.clients = Gauge("dptrain_monitor_clients", "Clients in memory.", registry=registry)

    def observed(self, queries: int, alerts: "Sequence[Alert]", action: str, clients: int) -> None:
        self.queries.inc(queries)
        self.decisions.labels(action).inc()
        self.clients.set(clients)
        for alert in alerts:
            self.alerts.labels(alert.detector).inc()
