"""Model inversion: what does the model give away about the people it learned from?

* :mod:`~evaluation.inversion.knowledge`: what an attacker of a class knows, and what every such attack is
* :mod:`~evaluation.inversion.class_`: what a class looks like
* :mod:`~evaluation.inversion.evaluator`: who judges a reconstruction, without the target
"""
