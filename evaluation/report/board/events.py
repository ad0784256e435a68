"""A run of TensorBoard: its events are gathered in memory, and its file is whole or not there.

    events = Events(begun=time.time())
    events.scalar("tradeoff/test_accuracy", 0.93, step=8000)
    events.save(root / "tradeoff")

Other writers' files in the same folder are left alone, also broken ones: TensorBoard reads each for itself. TensorBoard lists
runs, and gives them their seven colours, in the order of their first event: ``begun`` is the time that the first one states.
"""

import io
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # pyright: ignore[reportAttributeAccessIssue]  made by protobuf
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary as torch_summary

from dptrain.files import write_file

SUFFIX = ".dptrain"
"""By which this view knows its own files."""
CURVE_POINTS = 127


class Events:
    """What one run shows."""

    def __init__(self, begun: float):
        """Args:
        begun: in seconds since 1970; runs are listed in this order.
        """
        self._begun = begun
        self._summaries: list[tuple[Any, int]] = []

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._add(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)

    def text(self, tag: str, markdown: str) -> None:
        self._add(Summary(value=text_summary.text_pb(f"{tag}/text_summary", markdown).value), 0)

    def image(self, tag: str, pixels: np.ndarray, about: str = "") -> None:
        """A picture ``[height, width, 3]`` of bytes; ``about`` is Markdown, and stands behind the picture's dot with an i."""
        content = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG", optimize=True)
        height, width, _ = pixels.shape
        parts = [str(width).encode(), str(height).encode(), content.getvalue()]
        tensor = TensorProto(dtype="DT_STRING", string_val=parts)
        tensor.tensor_shape.dim.add().size = len(parts)
        metadata = image_metadata.create_summary_metadata(display_name=None, description=about)
        self._add(Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]), 0)

    def roc(self, tag: str, false: np.ndarray, true: np.ndarray, step: int) -> None:
        """A curve of the PR tab, with recall := false positive rate and precision := true positive rate."""
        # The plugin orders by a threshold of its own, from which the curve runs back; it is read by its two rates alone.
        back = np.linspace(len(false) - 1, 0, CURVE_POINTS).round().astype(int)
        some = np.ones(CURVE_POINTS)  # counts are not read, but points without any are dropped
        self._add(torch_summary.pr_curve_raw(tag, some, some, some, some, true[back], false[back], CURVE_POINTS), step)

    def layout(self, charts: dict[str, dict[str, list[Any]]]) -> None:
        """The charts of the Custom Scalars tab, by group; TensorBoard shows those of a group from the last to the first."""
        self._add(torch_summary.custom_scalars({group: dict(reversed(own.items())) for group, own in charts.items() if own}), 0)

    def trials(self, parameters: list[Any], metrics: list[Any]) -> None:
        """The columns of the HParams tab."""
        self._add(hparams.hparams_config_pb(hparams=parameters, metrics=metrics), 0)

    def trial(self, parameters: dict[str, Any], name: str) -> None:
        """A row of the HParams tab."""
        self._add(hparams.hparams_pb(parameters, trial_id=name), 0)

    def save(self, folder: Path) -> Path:
        """Writes the file. It gets a name that TensorBoard reads only when it is complete."""
        content = io.BytesIO()
        records = RecordWriter(content)
        records.write(Event(wall_time=self._begun, file_version="brain.Event:2").SerializeToString())
        for summary, step in self._summaries:
            records.write(Event(wall_time=self._begun, step=step, summary=summary).SerializeToString())
        name = f"events.out.tfevents.{self._begun:017.6f}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        write_file(folder / name, content.getvalue(), meanwhile="being_written")
        return folder / name

    def _add(self, summary: Any, step: int) -> None:
        # Those of torch and those of tensorboard are the same messages of different classes.
        self._summaries.append((Summary.FromString(summary.SerializeToString()), step))


def own_files(root: Path) -> list[Path]:
    """What this view wrote below a comparison's folder, also for models that are no longer in it."""
    return [path for depth in ("*", "*/*") for path in root.glob(f"{depth}/events.out.tfevents.*{SUFFIX}")]
