"""From an attack on hidden words of nodes to its result: how well they are guessed, and what of that model and graph gave away.

**Headline.** The mean area under the ROC over the chosen words (:func:`evaluation.graph.words.chosen`), of nodes whose words
the attacker does not know. He knows those of the population; where the split has none, of a third of all nodes that were not
trained on, drawn by a coin each. The interval is the delete-a-group jackknife over nodes: words of one node go together.

**Baselines**, all judged on the same nodes: ``label``, who knows the true label of each node and has no model; ``features``,
who knows all other words of the node and has no model (imputation); ``without_graph``, the same attack on a model of the same
members that never saw an edge. The differences are ``auc_above_label`` and so on. They say different things. Above *label*:
the answers tell more of a node than its class, for which they are given. Above *without_graph*: what the graph adds, since the
answer for a node reads its neighbours' words as well as its own. Above *features*: more than whoever knows the rest of the
node has anyway; another attacker, who is no floor of this one.

**Members.** ``auc_members`` and ``auc_non_members`` are of the nodes whose labels were trained on and of the others, and
``members_minus_non_members`` is what training on a label added.

**Controls.** ``permuted``: the same guesses against the words of other nodes, which must be at chance.

**Verdict.** *withheld* where the permuted control is not at chance; *found nothing* where the AUC is; *leak* where it lies
above the label's, or where members, dealt by coins, are guessed better than others; *nothing beyond public* otherwise, since
labels alone do as well. It is never *within the plan*: an answer is computed from the node's own words when it is asked for,
and no plan of a training, of whatever unit, limits what an answer shows of its own input. So the headline is permitted
anything.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from evaluation.analysis import Case
from evaluation.baselines import GATE
from evaluation.graph.figures import dealt, jackknife
from evaluation.graph.words import WordAttack, chosen, guessed, imputed
from evaluation.membership import NotApplicable
from evaluation.result import AttackResult, Measure
from evaluation.verdicts import DIFFERENCE, misled, of_words

LEAST_KNOWN = 50
"""Nodes to learn from; a population of fewer is none."""
KNOWN_SHARE = 1 / 3


def node_attributes(case: Case, name: str, attack: WordAttack) -> AttackResult:
    """Guesses hidden words of nodes, and judges it.

    Raises:
        NotApplicable: the data set is no graph, or there are too few nodes or words to learn from.
    """
    graph = case.data.graph
    if graph is None:
        raise NotApplicable(f"{case.data.name} is no graph, and has no nodes with words")
    has, inputs = graph.features.numpy() != 0, torch.arange(len(graph.features))[:, None]
    known = _known(case, len(has))
    if len(known) < LEAST_KNOWN:
        raise NotApplicable(f"the attacker knows the words of {len(known)} nodes, too few to learn from; give a larger graph")
    judged, words = np.setdiff1d(np.arange(len(has)), known), chosen(has[known])
    if not len(words):
        raise NotApplicable("no feature is there in some nodes and missing in others, so that there is no word to guess")
    truth = _Truth(judged, has[np.ix_(judged, words)], dealt(len(has), _generator(case.seed, "groups")))
    hidden = has[np.ix_(known, words)]

    def through(target: Any) -> Float[np.ndarray, "judged words"]:
        seen = attack.read(target.behind(attack.access), inputs)
        return guessed(seen[known], hidden, seen[judged])

    labels = np.eye(len(case.data.classes))[case.data.targets.numpy()]
    scores = through(case.target)
    others = {"label": guessed(labels[known], hidden, labels[judged]), "features": imputed(has[known], has[judged], words)}
    if case.without_graph is not None:
        others["without_graph"] = through(case.without_graph)
    found, renamed = truth.area(scores, "auc"), truth.renamed(_generator(case.seed, "permuted"))
    measures = [
        *(truth.difference(scores, of_other, f"auc_above_{which}") for which, of_other in others.items()),
        *truth.by_membership(scores, np.isin(judged, case.split.members), dealt_by=case.split.drawn),
    ]
    result = AttackResult(
        name=name,
        status="ok",
        metric="auc",
        value=found.value,
        low=found.low,
        high=found.high,
        chance=0.5,
        access=attack.access.word,
        paper=attack.paper,
        metrics=tuple(measures),
        chance_metrics={
            measure.name: 0.0 if "above" in measure.name or measure.name == DIFFERENCE else 0.5 for measure in measures
        },
        baselines=tuple(truth.area(of_other, which) for which, of_other in others.items()),
        controls=(renamed.area(scores, "permuted"),),
    )
    if bool(np.all(scores == scores[0])):
        return dataclasses.replace(result, verdict="no signal", reason="every node got the same guess")
    reason = misled(renamed.area(scores, "permuted", GATE), "the words of other nodes")
    if reason is not None:
        return dataclasses.replace(result, verdict="withheld", reason=reason)
    verdict, reason = of_words(result)
    return dataclasses.replace(result, verdict=verdict, reason=reason)


@dataclasses.dataclass(frozen=True, eq=False)
class _Truth:
    """Which of the judged nodes have which words."""

    nodes: Int[np.ndarray, " judged"]
    has: Bool[np.ndarray, "judged words"]
    group: Int[np.ndarray, " nodes"]

    def area(self, scores: Float[np.ndarray, "judged words"], name: str, confidence: float = 0.95) -> Measure:
        """The mean over words."""
        return _within(jackknife(lambda kept: self._area(scores, kept), self.nodes[:, None], self.group, name, confidence), 0.0)

    def difference(
        self, scores: Float[np.ndarray, "judged words"], others: Float[np.ndarray, "judged words"], name: str
    ) -> Measure:
        """The mean area of the scores less that of others."""

        def figure(kept: Bool[np.ndarray, " judged"]) -> float:
            return self._area(scores, kept) - self._area(others, kept)

        return _within(jackknife(figure, self.nodes[:, None], self.group, name), -1.0)

    def by_membership(
        self, scores: Float[np.ndarray, "judged words"], is_member: Bool[np.ndarray, " judged"], dealt_by: str
    ) -> list[Measure]:
        """Of members, of the others, and the difference; that only where coins dealt them, so that they differ in nothing
        else."""

        def part(of: Bool[np.ndarray, " judged"], kept: Bool[np.ndarray, " judged"]) -> float:
            return self._area(scores, kept & of)

        figures = {
            "auc_members": (lambda kept: part(is_member, kept), 0.0),
            "auc_non_members": (lambda kept: part(~is_member, kept), 0.0),
        }
        if dealt_by == "coins":
            figures[DIFFERENCE] = (lambda kept: part(is_member, kept) - part(~is_member, kept), -1.0)
        found = [
            _within(jackknife(figure, self.nodes[:, None], self.group, name), least)
            for name, (figure, least) in figures.items()
        ]
        return [_unmeasured(one) if one.value is not None and np.isnan(one.value) else one for one in found]

    def renamed(self, generator: np.random.Generator) -> "_Truth":
        """Each node with the words of another one."""
        return dataclasses.replace(self, has=self.has[generator.permutation(len(self.has))])

    def _area(self, scores: Float[np.ndarray, "judged words"], kept: Bool[np.ndarray, " judged"]) -> float:
        """Over the words that some of the kept nodes have and others have not; NaN where there is none."""
        has = self.has[kept]
        count = has.sum(0)
        usable = (count > 0) & (count < len(has))
        if not usable.any():
            return float("nan")
        ranks, held = rankdata(scores[kept][:, usable], axis=0), has[:, usable]
        count = count[usable]
        return float((((ranks * held).sum(0) - count * (count + 1) / 2) / (count * (len(has) - count))).mean())


def _within(measure: Measure, least: float) -> Measure:
    if measure.low is None or measure.high is None:
        return measure
    return dataclasses.replace(measure, low=max(least, measure.low), high=min(1.0, measure.high))


def _unmeasured(measure: Measure) -> Measure:
    return Measure(name=measure.name, value=None, note="no word is there and missing among these nodes")


def _known(case: Case, nodes: int) -> Int[np.ndarray, " known"]:
    """Nodes whose words the attacker knows; none of them was trained on."""
    if len(case.split.population) >= LEAST_KNOWN:
        return case.split.population
    drawn = np.flatnonzero(_generator(case.seed, "known").random(nodes) < KNOWN_SHARE)
    return np.setdiff1d(drawn, case.split.members)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *b"words", *purpose.encode()]))
