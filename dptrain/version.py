"""Which versions made a result."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dptrain", "torch", "opacus", "dp-accounting", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Installed version of every package that a figure depends on."""
    return {"python": platform.python_version(), **{name: _installed(name) for name in PACKAGES}}


@functools.cache
def _installed(name: str) -> str:
    """Read once a process: a package's own file of facts is long."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
