"""Lower bounds on ε: what a mechanism gives away at least, from the scores of canaries.

One run, with many canaries that fair coins inserted:

* :func:`one_run_bound`: (ε, δ) for any mechanism (Steinke, Nasr, Jagielski 2023)
* :func:`fdp_bound`: μ for any mechanism, or (ε, δ) again (Mahloujifar, Melis, Chaudhuri 2025)
* :func:`shift_estimate`: an estimate, no bound

Many runs, with and without one canary:

* :func:`clopper_pearson_bound`: (ε, δ) for any mechanism; :func:`katz_bound` where an attack errs often
* :func:`gdp_bound`: μ for any mechanism (Nasr et al. 2023)

Scores in, :class:`LowerBound` out; a higher score means member. :class:`Terms` states what is fixed beforehand, and
:func:`strongest` picks among bounds that shared their error.

    >>> import numpy as np
    >>> generator = np.random.default_rng(0)
    >>> is_member = generator.random(1000) < 0.5
    >>> scores = generator.normal(size=1000) + 3 * is_member
    >>> terms = Terms(access="white-box", relation="add_or_remove_one")
    >>> one_run_bound(scores, is_member, Guesses.of(400), terms).is_bound
    True
"""

from evaluation.audit.bound import AuditError as AuditError
from evaluation.audit.bound import LowerBound as LowerBound
from evaluation.audit.bound import Terms as Terms
from evaluation.audit.bound import strongest as strongest
from evaluation.audit.clopper_pearson import clopper_pearson_bound as clopper_pearson_bound
from evaluation.audit.clopper_pearson import katz_bound as katz_bound
from evaluation.audit.fdp import fdp_bound as fdp_bound
from evaluation.audit.gdp import gdp_bound as gdp_bound
from evaluation.audit.guesses import Guesses as Guesses
from evaluation.audit.guesses import planned_guesses as planned_guesses
from evaluation.audit.one_run import one_run_bound as one_run_bound
from evaluation.audit.shift import shift_estimate as shift_estimate
from evaluation.audit.thresholds import Bonferroni as Bonferroni
from evaluation.audit.thresholds import Everywhere as Everywhere
from evaluation.audit.thresholds import Explicit as Explicit
from evaluation.audit.thresholds import Split as Split
