"""A comparison with its answer: what is computed from all of its rows together, behind the summary.

result = with_answer(result)        # headline, fronts and untested are filled in
"""

import dataclasses

from evaluation.headline import headline
from evaluation.pareto import fronts
from evaluation.result import ComparisonResult
from evaluation.untested import untested


def with_answer(result: ComparisonResult) -> ComparisonResult:
    """The same result with its headline, its fronts and what was not tested."""
    found = headline(result.runs, result.summary, result.baselines, result.audits)
    first = None if found.chosen is None else found.chosen.strongest
    left_out = untested(
        result.runs,
        result.summary,
        result.data,
        result.evaluation,
        result.recipe,
        result.audits,
        len({run.step for run in result.checkpoints}),
    )
    return dataclasses.replace(result, headline=found, fronts=fronts(result.runs, result.summary, first), untested=left_out)
