"""The problems, one TOML each, and the command line.

* :mod:`~recipes.comparison`: a recipe under several budgets, as TOML and as flags
* :mod:`~recipes.runs`: runs it, and gathers what was found
* :mod:`~recipes.cli`: ``dptrain``
"""
