"""Private mechanisms on graphs: what is released of edges, and what it costs a node or an edge.

    edges = bounded(graph.edges, nodes, plan.max_degree, secret_generator())
    table = noised_sums(graph.features, edges, plan, secret_generator())

* ``aggregation.py``: noised sums over neighbours, one a hop, under ``node`` or ``edge``
* ``bounded.py``: a graph with at most so many edges a node
* ``perturbation.py``: the whole graph, perturbed, under ``edge``: randomised response and Laplace noise
* ``occurrences.py``: DP-SGD where a node is read in the examples of others, and its account
* ``encoder.py``: a network of features and labels that sees no edge
* ``release.py``: what a model has released before its first update
"""
