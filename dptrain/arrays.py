"""Private arrays in one file: for its owner alone, written whole, read strictly, never unpickled.

write_arrays(path, {"members": members, "seed": np.array(0)})
with read_arrays(path, "a whole split file", missing="restore it", damaged="restore it") as arrays:
    members = arrays["members"]
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dptrain.errors import CheckpointError
from dptrain.files import write_file


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file so that a reader finds all of it or nothing."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_file(path, content.getvalue(), mode=0o600)


@contextmanager
def read_arrays(path: Path, whole: str, *, missing: str, damaged: str) -> Iterator[dict[str, np.ndarray]]:
    """The arrays, to be made into what they are within the block; whatever the block raises says that the file is damaged.

    Args:
        whole: what the file is while it is not damaged.
        missing: what to do where there is no file.
        damaged: what to do where it is not that.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    try:
        with path.open("rb") as handle, np.lib.npyio.NpzFile(handle, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        yield arrays
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {missing}") from None
    except Exception as error:  # a damaged file raises nearly anything: BadZipFile, ValueError, KeyError, zlib.error, …
        raise CheckpointError(f"{path} is not {whole} ({error}); {damaged}") from None
