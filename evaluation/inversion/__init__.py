"""Model inversion: what does the model give away about the people it learned from?

* :mod:`~evaluation.inversion.knowledge`: what an attacker of a class knows, and what every such attack is
* :mod:`~evaluation.inversion.class_`: what a class looks like
* :mod:`~evaluation.inversion.attribute`: a hidden column of a person's row (prior times error model), with what the attacker
  knows in :mod:`~evaluation.inversion.attribute_knowledge`, its parts in :mod:`~evaluation.inversion.prior_of_columns` and
  :mod:`~evaluation.inversion.error_model`, other attackers in :mod:`~evaluation.inversion.first_order`,
  :mod:`~evaluation.inversion.tree` and :mod:`~evaluation.inversion.confidence`, and those who have no model in
  :mod:`~evaluation.inversion.attribute_figures`
* :mod:`~evaluation.inversion.evaluator`: who judges a reconstruction, without the target
"""
