"""Views of one result; none of them computes a figure.

* :mod:`~evaluation.report.terminal`: the table
* :mod:`~evaluation.report.tensorboard`: curves over ε, ROC, pictures, HParams
* :mod:`~evaluation.report.html`: one page that stands alone
* :mod:`~evaluation.report.private`: a page of the members that leak, which is not to be shared
* :mod:`~evaluation.report.wording`: what the views call things
* :mod:`~evaluation.report.figures`: the drawings that they share
"""
