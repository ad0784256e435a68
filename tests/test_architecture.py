"""The house stands as it is drawn: arrows point one way, nothing stands where it should not."""

import ast
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
ALLOWED = {"dptrain": {"dptrain"}, "evaluation": {"dptrain", "evaluation"}, "recipes": {"dptrain", "evaluation", "recipes"}}
OURS = set(ALLOWED)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_arrows_never_turn_back(package: str):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imports(path) & OURS <= ALLOWED[package], path


def test_every_module_says_what_it_is_for():
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_nothing_is_ever_unpickled():
    """Sharp edge 18: no call that could run code from a file."""
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "torch.load(" not in text, path
            assert "import pickle" not in text, path
            assert "allow_pickle=True" not in text, path


def test_a_recipe_cannot_import_code():
    """Registries look names up; the only imports by text are of the project's own entries."""
    users = [
        path.relative_to(ROOT).as_posix()
        for package in ALLOWED
        for path in (ROOT / package).rglob("*.py")
        if "import_module(" in path.read_text(encoding="utf-8")
    ]
    assert sorted(users) == ["dptrain/__init__.py", "dptrain/registry.py", "evaluation/__init__.py"]


def test_the_files_whose_tests_come_first_are_there():
    assert all((Path(__file__).parent / name).is_file() for name in LONGEST)
    assert len(set(LONGEST)) == len(LONGEST)
