"""What the views call things, so that one thing has one name in all of them.

* :mod:`~evaluation.report.wording.names`: attacks, metrics, rows, figures
* :mod:`~evaluation.report.wording.answer`: the result in a few sentences; :mod:`~evaluation.report.wording.findings`: sentences
  on what only some comparisons have
* :mod:`~evaluation.report.wording.parts`: what stands where in a result
* :mod:`~evaluation.report.wording.troubles`: what failed or is refuted, and what verdicts mean
* :mod:`~evaluation.report.wording.said`: what a model of text says
* :mod:`~evaluation.report.wording.spending`: what a data set has spent
* :mod:`~evaluation.report.wording.left_out`: what was not tested
* :mod:`~evaluation.report.wording.passages`: passages that stand in several views
"""

from evaluation.report.wording.answer import answer as answer
from evaluation.report.wording.answer import choice as choice
from evaluation.report.wording.answer import opening as opening
from evaluation.report.wording.findings import exposure_in_words as exposure_in_words
from evaluation.report.wording.findings import findings as findings
from evaluation.report.wording.left_out import left_out as left_out
from evaluation.report.wording.names import ATTACK_NAMES as ATTACK_NAMES
from evaluation.report.wording.names import METRIC_NAMES as METRIC_NAMES
from evaluation.report.wording.names import attack_name as attack_name
from evaluation.report.wording.names import budget as budget
from evaluation.report.wording.names import interval as interval
from evaluation.report.wording.names import is_rate as is_rate
from evaluation.report.wording.names import measure_name as measure_name
from evaluation.report.wording.names import metric_name as metric_name
from evaluation.report.wording.names import number as number
from evaluation.report.wording.names import row_name as row_name
from evaluation.report.wording.names import short_name as short_name
from evaluation.report.wording.names import variant_key as variant_key
from evaluation.report.wording.names import variant_name as variant_name
from evaluation.report.wording.parts import about as about
from evaluation.report.wording.parts import applicable as applicable
from evaluation.report.wording.parts import attacks as attacks
from evaluation.report.wording.parts import beside as beside
from evaluation.report.wording.parts import chances as chances
from evaluation.report.wording.parts import find as find
from evaluation.report.wording.parts import headlines as headlines
from evaluation.report.wording.parts import judges as judges
from evaluation.report.wording.parts import levels as levels
from evaluation.report.wording.parts import likeness_without_model as likeness_without_model
from evaluation.report.wording.parts import measure_names as measure_names
from evaluation.report.wording.parts import measured_names as measured_names
from evaluation.report.wording.parts import unit_of_value as unit_of_value
from evaluation.report.wording.parts import utility_names as utility_names
from evaluation.report.wording.passages import ALONE as ALONE
from evaluation.report.wording.passages import CHOSEN_ON as CHOSEN_ON
from evaluation.report.wording.passages import COMPACT as COMPACT
from evaluation.report.wording.passages import COMPUTED_FROM_MEMBERS as COMPUTED_FROM_MEMBERS
from evaluation.report.wording.passages import FRONT as FRONT
from evaluation.report.wording.passages import HOW_NEAR as HOW_NEAR
from evaluation.report.wording.passages import MEMBERS_THEMSELVES as MEMBERS_THEMSELVES
from evaluation.report.wording.passages import NO_EXAMPLES_KEPT as NO_EXAMPLES_KEPT
from evaluation.report.wording.passages import WHAT_IT_SAYS as WHAT_IT_SAYS
from evaluation.report.wording.passages import WHERE_EXAMPLES_ARE as WHERE_EXAMPLES_ARE
from evaluation.report.wording.said import insertions as insertions
from evaluation.report.wording.said import secrets_said as secrets_said
from evaluation.report.wording.said import visible as visible
from evaluation.report.wording.spending import spending as spending
from evaluation.report.wording.troubles import audit_name as audit_name
from evaluation.report.wording.troubles import audit_verdict as audit_verdict
from evaluation.report.wording.troubles import broken as broken
from evaluation.report.wording.troubles import contradicted as contradicted
from evaluation.report.wording.troubles import seen as seen
from evaluation.report.wording.troubles import verdict_words as verdict_words
