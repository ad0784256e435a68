"""What a command warns of, as sentences of its own: each kind once, and not as Python prints a warning, with a line of code.

    with as_sentences():
        ...

A training that is repeated for every budget, seed and shadow model would say the same as often.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NUMBER = re.compile(r"\d[\d.e+-]*")


@contextmanager
def as_sentences() -> Iterator[None]:
    """Says each ``UserWarning`` on standard error as errors are said; those that differ by a number alone are of one kind.

    Other categories, of libraries, and filters that make a warning an error are left as they are.
    """
    before, said = warnings.showwarning, set[str]()

    def say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        kind = NUMBER.sub("#", str(message))
        if category is not UserWarning:
            before(message, category, *where, **more)
        elif kind not in said:
            said.add(kind)
            print(f"dptrain: {message}", file=sys.stderr, flush=True)

    warnings.showwarning = say
    try:
        yield
    finally:
        warnings.showwarning = before
