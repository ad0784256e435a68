"""The SMS Spam Collection: 5,171 text messages, 653 of them spam.

    data = load(DataConfig(name="sms"))         # inputs [5171, 64], numbers of words; classes ham and spam

A line of the file is ``ham`` or ``spam``, a tab, and a message (Almeida, Gómez Hidalgo, Yamakami 2011, "Contributions to the
Study of SMS Spam Filtering"). 403 of its 5,574 lines repeat an earlier one and are left out before anything else: whoever was
drawn as a non-member and has a twin among the members is no non-member. 33 more are like an earlier one but for case, digits
and white space, and stay.

An example is one message, the numbers of its first ``data.sequence_length`` words (:mod:`~dptrain.data.words`). The unit of
privacy is the message: who wrote or received several is in several examples.
"""

from pathlib import Path

import torch

from dptrain.data.dataset import DataSet
from dptrain.data.places import shared_file
from dptrain.data.words import BUCKETS, hashed
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

NAME = "text/SMSSpamCollection"
WHERE = "https://archive.ics.uci.edu/dataset/228/sms+spam+collection"
CLASSES = ("ham", "spam")


def load(config: DataConfig) -> DataSet:
    """The messages, from ``data.path`` or from ``DPTRAIN_DATA``.

    Raises:
        DataError: the file is not there, or is something else.
    """
    path = Path(config.path) if config.path else shared_file(NAME)
    if path is None:
        raise DataError(
            f"the SMS Spam Collection is not on this computer; download and unpack it from {WHERE}, and name the file "
            f"SMSSpamCollection with --data.path, or put it at {NAME} below the folder of DPTRAIN_DATA"
        )
    lines = _lines(path)
    messages = [line.split("\t", 1) for line in dict.fromkeys(lines)]
    return DataSet(
        name="sms",
        inputs=torch.stack([hashed(text, config.sequence_length) for _, text in messages]),
        targets=torch.tensor([CLASSES.index(label) for label, _ in messages]),
        classes=CLASSES,
        bounds=(0.0, float(BUCKETS)),
        kind="text",
        source="SMS Spam Collection v.1 (Almeida, Gómez Hidalgo, Yamakami 2011), CC BY 4.0",
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(
            f"there is no file {path}; download and unpack the SMS Spam Collection from {WHERE}, and name the file "
            "SMSSpamCollection with --data.path"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); write it again as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if line.split("\t", 1)[0] not in CLASSES or "\t" not in line:
            raise DataError(
                f"line {number} of {path} is not 'ham' or 'spam', a tab and a message; give the file as it was published"
            )
    return [line.rstrip("\r") for line in lines]
