"""A published model or tokenizer: its folder on this computer, or its name on the Hugging Face hub.

    folder_of("HuggingFaceTB/SmolLM2-135M", "model.pretrained")      # fetched once, then from the hub's own cache
    folder_of("models/smol", "model.pretrained")                     # a folder is read where it lies

Whatever cannot be had ends in one sentence that says what to download and where to put it. Only safetensors and text are
fetched and read: other weight files are pickles, which can run code.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dptrain.errors import ConfigError

FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt")
"""Settings, weights, and what tokenizers are made of."""
SETTINGS, WEIGHTS = "config.json", "*.safetensors"


@contextmanager
def text_extra(key: str) -> Iterator[None]:
    """Turns a missing library of the extra ``text`` into a sentence.

    Args:
        key: of the recipe, such as ``model.pretrained``, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key} names a Hugging Face model, and {error.name} is not installed; type pip install 'dptrain[text]'"
        ) from None


def folder_of(name: str, key: str) -> Path:
    """Where its files lie; those of a name are fetched from the hub where they are not in its cache.

    Raises:
        ConfigError: there is no such folder, it cannot be fetched, or the hub's client is not installed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or not name:
        raise ConfigError(f"{key} is {name!r}, and there is no such folder; give one, or a name on the Hugging Face hub")
    return _fetched(name, key)


@functools.lru_cache(maxsize=8)
def _fetched(name: str, key: str) -> Path:
    with text_extra(key):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars
    try:
        disable_progress_bars()
        return Path(snapshot_download(name, allow_patterns=list(FETCHED)))
    except Exception as error:  # of many kinds: of the hub, of its client, of the connection, of the disk
        own = name.rpartition("/")[2]
        for_alone = ", or --data.tokenizer where you named a tokenizer alone" if key == "data.tokenizer" else ""
        raise ConfigError(
            f"{name!r} is no folder here and cannot be fetched from the Hugging Face hub ({type(error).__name__}); where there "
            f"is a network type hf download {name} --local-dir {own}, put that folder (with config.json, model.safetensors and "
            f"tokenizer.json) on this computer, and give --model.pretrained {own}{for_alone}"
        ) from None


def first_line(error: BaseException) -> str:
    """What a library said, short enough for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")


def check_folder(folder: Path, wanted: dict[str, str], key: str) -> None:
    """Refuses a folder that lacks a file.

    Args:
        wanted: what each pattern's files are for.

    Raises:
        ConfigError: it names the file.
    """
    for pattern, purpose in wanted.items():
        if any(folder.glob(pattern)):
            continue
        pickled = "; its .bin files are pickles, which can run code, and are not read" if any(folder.glob("*.bin")) else ""
        raise ConfigError(
            f"{key} is {str(folder)!r}, which lacks {pattern} ({purpose}{pickled}); put it there, or give another folder"
        )
