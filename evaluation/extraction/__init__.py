"""Secrets that a model repeats.

* :mod:`~evaluation.extraction.exposure`: how high a canary ranks among all that it might have been
"""
