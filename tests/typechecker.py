"""The checker of types and shapes while tests run: an int may stand where a float is meant, as PEP 484 has it."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_checked: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))
_made: dict[Any, Any] = {}


def checked(function: Any) -> Any:
    """A function within a function is checked anew each time it is defined, in a training at every step: what checks the same
    annotations of the same arguments is written once. It is given arguments to check, and does nothing else."""
    code = getattr(function, "__code__", None)
    if code is None or "<locals>" not in function.__qualname__ or function.__closure__:
        return _checked(function)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    optional = (len(function.__defaults__ or ()), tuple(function.__kwdefaults__ or ()))
    annotations = tuple((name, _said(annotation)) for name, annotation in function.__annotations__.items())
    key = (function.__module__, function.__qualname__, code.co_code, code.co_varnames, counts, optional, annotations)
    try:
        if key not in _made:
            _made[key] = _checked(function)
    except TypeError:  # an annotation that has no hash
        return _checked(function)
    return _made[key]


def _said(annotation: Any) -> Any:
    """What an annotation says: arrays of the same type and shape are equal, whose class is another one each time."""
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return annotation.dtype, annotation.array_type, annotation.dim_str
    if isinstance(annotation, list):
        return tuple(map(_said, annotation))
    inner = get_args(annotation)
    return (get_origin(annotation), tuple(map(_said, inner))) if inner else annotation
