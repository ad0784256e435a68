"""Secrets that a model of text repeats.

* :mod:`~evaluation.extraction.space`: all that a secret might have been, scored, ranked and searched
* :mod:`~evaluation.extraction.exposure`: how high a canary ranks among all that it might have been, exactly and estimated
* :mod:`~evaluation.extraction.generation`: what the model says after the words before a secret
* :mod:`~evaluation.extraction.tokens`: both of these of a model of tokens
* :mod:`~evaluation.extraction.patterns`: what looks like a secret in what it says
* :mod:`~evaluation.extraction.bound`: the most that a plan permits of a secret in n examples
* :mod:`~evaluation.extraction.attacks`: the two attacks, which ask the target and judge nothing
"""
