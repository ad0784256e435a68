"""Which versions made a result."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dptrain", "torch", "opacus", "dp-accounting", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Installed version of every package that a figure depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
