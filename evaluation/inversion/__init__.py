"""Model inversion: what does the model give away about the people it learned from?

*A class*, such as a person's face:

* :mod:`~evaluation.inversion.knowledge`: what an attacker of a class knows, and what every such attack is
* :mod:`~evaluation.inversion.class_`: what a class looks like
* :mod:`~evaluation.inversion.logit`: the same from logits, where scores are flat
* :mod:`~evaluation.inversion.generators`: what public examples teach about how an input looks
* :mod:`~evaluation.inversion.variational`: the same by a variational autoencoder, walked in through
  :mod:`~evaluation.inversion.network_generator`
* :mod:`~evaluation.inversion.adversarial`: the same against a discriminator that knows what the target answers
* :mod:`~evaluation.inversion.prior`: what a class looks like, among inputs that look like public ones; several such in
  :mod:`~evaluation.inversion.prior_ensemble`
* :mod:`~evaluation.inversion.distribution`: how sure an inversion is, where it gives a distribution
* :mod:`~evaluation.inversion.blackbox`: the same through scores alone
* :mod:`~evaluation.inversion.estimated_gradient`: the same through derivatives estimated from scores
* :mod:`~evaluation.inversion.labels`: the same through labels alone
* :mod:`~evaluation.inversion.pictures`: what attacks and judges do to pictures
* :mod:`~evaluation.inversion.evaluator`: who judges a reconstruction, without the target
* :mod:`~evaluation.inversion.recogniser`: the judge of pictures of people

*A hidden column* of a person's row:

* :mod:`~evaluation.inversion.attribute`: prior times error model, with what the attacker knows in
  :mod:`~evaluation.inversion.attribute_knowledge`, its parts in :mod:`~evaluation.inversion.prior_of_columns` and
  :mod:`~evaluation.inversion.error_model`, other attackers in :mod:`~evaluation.inversion.first_order`,
  :mod:`~evaluation.inversion.tree` and :mod:`~evaluation.inversion.confidence`, and those who have no model in
  :mod:`~evaluation.inversion.attribute_figures`

*A training example*:

* :mod:`~evaluation.inversion.bound`: the most that anyone can reconstruct of one example, from the plan alone
* :mod:`~evaluation.inversion.released`: what each step releases, and what one example adds to it
* :mod:`~evaluation.inversion.informed`: which of n candidates was trained on, by someone who knows all other examples
* :mod:`~evaluation.inversion.closed_form`: the one unknown example of a converged linear model, from its weights
* :mod:`~evaluation.inversion.reconstructor`: the one unknown example of any model, by a network that reads it off the weights
* :mod:`~evaluation.inversion.one_unknown`: how near that comes, beside what someone without the model has
* :mod:`~evaluation.inversion.gradient`: one example from its gradient, with and without noise
* :mod:`~evaluation.inversion.weights`: training examples from the weights of a small network
"""
