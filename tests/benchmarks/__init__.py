"""Benchmarks, each with a command of its own: ``python -m tests.benchmarks.NAME``. None of them runs with the tests."""
