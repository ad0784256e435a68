"""One line of JSON an event, from Python's own logging.

handler = logging.StreamHandler()
handler.setFormatter(JsonLines())
logging.getLogger("dptrain.monitor").addHandler(handler)

{"time": "2030-01-01T00:00:00+00:00", "level": "WARNING", "logger": "dptrain.monitor", "message": "client …",
 "alert": {"client": "…", "detector": "near_duplicates", "value": 12.1, …}, "action": "degrade"}
"""

import json
import logging
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime

KEPT = ("alert", "action")


class JsonLines(logging.Formatter):
    """A log record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": moment, "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        for name in KEPT:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
