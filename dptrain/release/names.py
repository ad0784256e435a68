"""Names that come from data, as they may be published.

    published = as_published(card)          # a release card without what the user's own files are called
    in_no_text(published)                   # ("caf\\udce9",): names that no document can hold

A data set that a user gave is called after its file or folder, and what somebody calls a folder is not public: a name of a
patient, of a project, of a client. A name of a file that is no UTF-8 is read with half of a character in it ("surrogate
escape", Python enhancement proposal 383), which JSON can carry and no answer of a server.
"""

import re
from collections.abc import Iterator
from typing import Any

GIVEN = "given by the user"
OWN_DATA = re.compile(r"(given by the user|\(your own)\)?$")
"""How the source of a user's own data ends (:mod:`dptrain.data`)."""


def as_published(card: dict[str, Any]) -> dict[str, Any]:
    """The release card with the name and the source of a user's own data left out. What it commits to stays."""
    data = card.get("data", {})
    name, source = str(data.get("name", "")), str(data.get("source", ""))
    if not OWN_DATA.search(source):
        return card
    is_file = source.startswith(name)  # faces and graphs are called so, whatever their file is
    called = {"name": f"data {GIVEN}"} if is_file else {}
    return {**card, "data": {**data, **called, "source": GIVEN}}


def in_no_text(value: Any) -> tuple[str, ...]:
    """The texts in a JSON value that no UTF-8 can hold, names of keys among them."""
    return tuple(dict.fromkeys(said for said in _texts(value) if not _is_text(said)))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield from _texts(key)
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


def _is_text(said: str) -> bool:
    try:
        said.encode()
    except UnicodeEncodeError:
        return False
    return True
