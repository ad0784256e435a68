"""Text, cut into sequences: a language model learns what comes next.

    data = load(DataConfig(name="shakespeare"))         # inputs [17428, 64], targets [17428, 64], numbers of an alphabet
    data.others                                         # the same of two novels, which are public

An example is a sequence of ``data.sequence_length`` characters: the targets are those, and the inputs are the same ones moved
on by one, behind the sign for the start. No character is in two examples, so a sequence as the unit of privacy is each
character's own; what is said twice in a text is in two examples, and ε for one sequence does not hide it. The last characters
that fill no sequence are left out. The alphabet (:mod:`~dptrain.data.alphabet`) is known without looking at any text.

With ``data.tokenizer`` all of this goes for the tokens of a published tokenizer (:mod:`~dptrain.data.tokens`), which is as
public as the alphabet: the text is cut into tokens as a whole, and each is in one example.

``shakespeare`` is Tiny Shakespeare (Karpathy, char-rnn), ``text`` is a file of your own, ``data.public`` are files with public
text that a model may learn from beforehand. With ``data.secrets`` both hold made-up secrets as well
(:mod:`~dptrain.data.secrets`).

A file of your own may be a table of texts and say whose each is (:mod:`~dptrain.data.text_table`)::

    dptrain run my.toml --data.name text --data.path posts.csv --data.text-column body --data.user-column author \\
        --privacy.unit user --privacy.max-examples-per-unit 8

Then all that one user wrote is put together, in the order of the table and a line each, and cut by itself: no sequence is of
two users, and who wrote less than one sequence is in none. Each made-up secret belongs to a made-up user of its own, with all
of its repetitions, so that ε for one user is of the secret, however often it is repeated.
"""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from dptrain.data import secrets, text_table
from dptrain.data.alphabet import LABELS, START, encode
from dptrain.data.dataset import DataSet, Others
from dptrain.data.places import shared_file
from dptrain.data.tokens import Tokenizer, tokenizer_of
from dptrain.errors import DataError
from dptrain.files import write_file
from dptrain.recipe import DataConfig

SHAKESPEARE = "text/tinyshakespeare.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
PUBLIC = ("text/austen.txt", "text/melville.txt")
"""Below ``DPTRAIN_DATA``: the public text of ``shakespeare``, where no other is named."""


def load_shakespeare(config: DataConfig) -> DataSet:
    """Tiny Shakespeare: from ``data.path``, from ``DPTRAIN_DATA``, or downloaded.

    Raises:
        DataError: it is not there and cannot be downloaded, or what was named cannot be read.
    """
    path = Path(config.path) if config.path else shared_file(SHAKESPEARE) or _downloaded()
    public = [Path(name) for name in config.public] or [known for name in PUBLIC if (known := shared_file(name)) is not None]
    return _load(config, path, public, "shakespeare", "Tiny Shakespeare (Karpathy, char-rnn); plays in the public domain")


def load_text(config: DataConfig) -> DataSet:
    """A text of the user's own, at ``data.path``: a plain one, or a table of texts.

    Raises:
        DataError: no such file, one that is no UTF-8 text, or no such column.
    """
    if not config.path:
        raise DataError("data.path is not given; name a text file with --data.path")
    path = Path(config.path)
    return _load(config, path, [Path(name) for name in config.public], path.name, f"{path.name}, given by the user")


def _load(config: DataConfig, path: Path, public: list[Path], name: str, source: str) -> DataSet:
    length = config.sequence_length
    tokenizer = None if config.tokenizer is None else tokenizer_of(config.tokenizer)
    labels, start = (LABELS, START) if tokenizer is None else (tokenizer.labels, tokenizer.start)
    own, users = _own(config, path, tokenizer)
    others = None
    if public:
        parts = [sequences(_read(other), length, tokenizer) for other in public]
        groups = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
        known = torch.cat(parts)
        others = Others(shifted(known, start), groups, known)
    written = encode if tokenizer is None else tokenizer.encode
    planted = secrets.plant(config.secrets, len(own), length, written) if config.secrets.each else None
    targets = own if planted is None else torch.cat([own, planted.sequences])
    if users is not None and planted is not None:
        users = torch.cat([users, int(users.max()) + 1 + planted.owners])
    return DataSet(
        name=name,
        inputs=shifted(targets, start),
        targets=targets,
        classes=labels,
        bounds=(0.0, float(len(labels) - 1)),
        kind="text",
        source=source,
        users=users,
        others=others,
        planted=None if planted is None else planted.secrets,
        tokenizer=tokenizer,
    )


def _own(
    config: DataConfig, path: Path, tokenizer: Tokenizer | None
) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"] | None]:
    """The private sequences, and whose each is, where that is known."""
    length = config.sequence_length
    kind = "characters" if tokenizer is None else "tokens"
    if config.name == "text" and text_table.is_table(path, config):
        texts = text_table.read(path, config)
        cut = [sequences(text, length, tokenizer) for text in texts.by_user]
        own = torch.cat([encode("").view(0, length), *cut])
        if not len(own):
            raise DataError(
                f"{path} has no {'user' if texts.known else 'text'} with as many {kind} as data.sequence_length, {length}; "
                "give a smaller length"
            )
        return own, torch.repeat_interleave(torch.tensor([len(part) for part in cut])) if texts.known else None
    text = _read(path)[: config.characters]
    own = sequences(text, length, tokenizer)
    if not len(own):
        count = len(text) if tokenizer is None else len(tokenizer.encode(text))
        raise DataError(
            f"{path} has {count} {kind} and data.sequence_length is {length}; give a longer text, or a smaller length"
        )
    return own, None


def sequences(text: str, length: int, tokenizer: Tokenizer | None = None) -> Int[Tensor, "sequences length"]:
    """The text as numbers, cut; what fills no sequence is left out."""
    numbers = encode(text) if tokenizer is None else tokenizer.encode(text)
    return numbers[: len(numbers) // length * length].view(-1, length)


def shifted(targets: Int[Tensor, "sequences length"], start: int = START) -> Int[Tensor, "sequences length"]:
    """What a model has seen when it says each target: those before, and the start."""
    return torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], 1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; name a text file with --data.path or --data.public") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); write it again as UTF-8") from None


def _downloaded() -> Path:
    """The file in the user's cache, put there where it is not."""
    path = Path.home() / ".cache" / "dptrain" / SHAKESPEARE
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
            content = answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise DataError(
            f"Tiny Shakespeare is not on this computer and cannot be downloaded ({error}); put {ADDRESS} at {path}, or name "
            "the file with --data.path"
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"what {ADDRESS} holds now is another file than Tiny Shakespeare; name one with --data.path")
    write_file(path, content)
    return path
