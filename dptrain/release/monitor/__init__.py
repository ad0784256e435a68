"""Who is probing: a monitor of what each client of a published model asks.

* ``sketch.py``: what is kept of a query, which is never the query
* ``statistics.py``: what is counted, in constant memory
* ``density.py``: how far a query is from benign ones
* ``state.py``: what is remembered of a client
* ``shared.py``: near-duplicates from several clients
* ``detectors.py``: what speaks of probing
* ``session.py``: what one client asked, and how it is played to them
* ``fitting.py``: what benign sessions are like
* ``thresholds.py``: how high that may be, calibrated on benign sessions; ``frozen.py``: as JSON
* ``benign.py``: benign sessions, made from held-out examples
* ``monitor.py``: alerts and what is done about them
* ``store.py``: clients and alerts in a database; ``metrics.py``: for Prometheus; ``log.py``: a line of JSON an event

The last three need what ``pip install dptrain[serve]`` installs, and are imported from their own modules.
"""

from dptrain.release.monitor.benign import benign_sessions
from dptrain.release.monitor.monitor import Action, Alert, Decision, Monitor
from dptrain.release.monitor.session import Session
from dptrain.release.monitor.thresholds import Thresholds, calibrate, measured

__all__ = ["Action", "Alert", "Decision", "Monitor", "Session", "Thresholds", "benign_sessions", "calibrate", "measured"]
