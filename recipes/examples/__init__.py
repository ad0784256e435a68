"""Complete scripts of one's own, each beside its form without privacy in ``before/``; and in ``adding/`` one's own data set,
model, attack, guard and regularizer.

    python recipes/examples/plain_loop.py        # runs/plain_loop/report.html
"""
