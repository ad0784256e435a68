"""From an attack on links to its result: how well it tells linked nodes from others, and what of that the graph gave away.

**Headline.** The area under the ROC of the edges of the model's graph against as many pairs that are not linked, drawn
uniformly. Beside it the precision at the true density, of all pairs that the attack scores, since unlinked pairs are hundreds
of times as many; and the areas of other scores of the same attack. Edges that were held out of the graph are in neither group.
Intervals are of :mod:`evaluation.graph.figures`: pairs share nodes.

**Baselines.** ``features``, the cosine of the raw features of two nodes: linked nodes resemble each other, and that alone has
an AUC of .80 on Cora. ``without_graph``, the same attack on a model of the same members that never saw an edge: what a model
says of similar nodes is similar. ``auc_above_features`` and ``auc_above_without_graph`` are the differences to them on the
same pairs.

**Controls.** ``permuted``: the same scores, with nodes renamed at random; against it every attack must be at chance. An
untrained model is no negative control: its layers mix the features of neighbours as those of a trained one do, so it gives
away edges with weights that know nothing.

**What a plan permits.** The headline is bounded by no plan, since features and labels that go with edges are no secret of any
edge. What is bounded is whether one edge was in the graph. ``auc_in_graph`` is the area of edges in the model's graph against
edges that a coin each held out: both are real edges, no resemblance of nodes tells them apart, and chance is .5. What features
alone get there stands beside it, and where that lies above chance nothing is concluded. Under a
private plan whose :meth:`edge_curve` bounds it, it is permitted at most the area under that curve.

**Verdict.** *withheld* where the permuted control is not at chance; *above the plan* where ``auc_in_graph`` is, interval and
all, at the gate's confidence; then *leak* (*within the plan* where the plan bounds edges) where the AUC lies above the
baselines that there are, or ``auc_in_graph`` above chance, which neither could explain; *found nothing* where no AUC is above
chance; and *nothing beyond public* otherwise.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from dptrain.graph.aggregation import sensitivity
from evaluation.analysis import Case
from evaluation.baselines import GATE
from evaluation.graph import LinkAttack, LinkKnowledge
from evaluation.graph.features import FeatureCosine
from evaluation.graph.figures import Contrast, dealt, precision_at_density
from evaluation.graph.pairs import Coverage, PairScores
from evaluation.membership import NotApplicable
from evaluation.metrics import is_constant
from evaluation.result import AttackResult, Measure
from evaluation.verdicts import IN_GRAPH, misled, of_links

if TYPE_CHECKING:
    from dptrain.accounting import TradeoffCurve

PRECISION = "precision_at_density"


def links(case: Case, name: str, attack: LinkAttack) -> AttackResult:
    """Runs one attack on links, and judges it.

    Raises:
        NotApplicable: the data set is no graph, the attack cannot be made on this model, or it scores too few edges.
    """
    bench = _Bench.of(case, attack)
    scored = bench.scores(case.target)
    edges, held_out = (pairs[scored.covered.holds(pairs)] for pairs in (bench.edges, bench.held_out))
    unlinked = scored.covered.draw(len(edges), np.concatenate([edges, held_out]), bench.generator("unlinked"))
    contrast = Contrast.of(edges, unlinked, bench.group)
    if not contrast.is_enough:
        raise NotApplicable(f"it scores {len(edges)} edges and {len(unlinked)} other pairs, too few to judge it by")
    values = scored.of(contrast.pairs)
    found = contrast.area(values, "auc")
    features = FeatureCosine.of_features(bench.knowledge.features, scored.covered)
    others = {"features": features.of(contrast.pairs)}
    without_graph = bench.without_graph(case)
    if without_graph is not None:
        others["without_graph"] = without_graph.of(contrast.pairs)
    in_graph = None if len(held_out) == 0 else _in_graph(scored, edges, held_out, bench)
    blind = None if len(held_out) == 0 else _in_graph(features, edges, held_out, bench)
    curve = None if in_graph is None else _edge_curve(case)
    ranked = {PRECISION: scored, f"features_{PRECISION}": features}
    measures = [
        *(contrast.difference(values, of_other, f"auc_above_{which}") for which, of_other in others.items()),
        *([] if in_graph is None else [in_graph]),
        *(
            precision_at_density(by, edges, held_out, bench.group, bench.generator(which), which)
            for which, by in ranked.items()
        ),
        *(contrast.area(beside, f"auc_{which}") for which, beside in scored.beside(contrast.pairs).items()),
    ]
    renamed = scored.of(_renamed(scored.covered, bench.generator("renamed"))[contrast.pairs])
    density = len(edges) / (scored.covered.count - len(held_out))
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
        permitted_metrics={} if curve is None else {IN_GRAPH: curve.auc()},
        chance_metrics={measure.name: _chance(measure.name, density) for measure in measures},
        baselines=(
            *(contrast.area(of_other, which) for which, of_other in others.items()),
            *([] if blind is None else [dataclasses.replace(blind, name=f"features_{IN_GRAPH}")]),
        ),
        controls=(contrast.area(renamed, "permuted"),),
    )
    if is_constant(values):
        return dataclasses.replace(result, verdict="no signal", reason="every pair of nodes got the same score")
    reason = misled(contrast.area(renamed, "permuted", GATE), "edges of renamed nodes")
    if reason is not None:
        return dataclasses.replace(result, verdict="withheld", reason=reason)
    if blind is not None and blind.low is not None and blind.low > 0.5:
        what = f"features alone tell edges of the graph from edges held out, AUC {blind.value:.3f}"
        return dataclasses.replace(result, verdict="withheld", reason=f"{what}: the groups differ by themselves")
    verdict, reason = of_links(result)
    return dataclasses.replace(result, verdict=verdict, reason=reason)


@dataclass(frozen=True, eq=False)
class _Bench:
    """The graph, what the attacker knows of it, and the coins of the judge."""

    attack: LinkAttack
    seed: int
    edges: Int[np.ndarray, "edges 2"]
    held_out: Int[np.ndarray, "held_out 2"]
    knowledge: LinkKnowledge
    group: Int[np.ndarray, " nodes"]

    @classmethod
    def of(cls, case: Case, attack: LinkAttack) -> "_Bench":
        graph = case.data.graph
        if graph is None:
            raise NotApplicable(f"{case.data.name} is no graph, and has no links to steal")
        edges, held_out = (np.asarray(pairs).T.astype(np.int64) for pairs in (graph.edges, graph.held_out))
        nodes = len(graph.features)
        known = np.zeros(nodes, dtype=bool)
        if attack.knows == "edges of half":
            known = _generator(case.seed, "known").random(nodes) < 0.5
        deviation, plan = 0.0, case.plan
        if plan is not None and case.is_private and plan.aggregations:
            deviation = plan.aggregation_noise * plan.noise_multiplier * sensitivity(plan)
        knowledge = LinkKnowledge(graph.features.float(), np.flatnonzero(known), edges[known[edges].all(1)], deviation)
        return cls(attack, case.seed, edges, held_out, knowledge, dealt(nodes, _generator(case.seed, "groups")))

    def generator(self, purpose: str) -> np.random.Generator:
        return _generator(self.seed, purpose)

    def scores(self, target: Any) -> PairScores:
        """The attack on one model; on every model with the same coins, so that it scores the same pairs."""
        found = self.attack.run(target.behind(self.attack.access), self.knowledge, self.generator("attack"))
        if (found.covered.asked | found.covered.answered)[self.knowledge.known].any():
            raise ValueError("the attack scores pairs of nodes whose edges it was told")
        return found

    def without_graph(self, case: Case) -> PairScores | None:
        """The attack on the model that never saw an edge; None where there is none, or the attack cannot be made on it."""
        if case.without_graph is None:
            return None
        try:
            return self.scores(case.without_graph)
        except NotApplicable:
            return None


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *b"links", *purpose.encode()]))


def _in_graph(
    scored: PairScores, edges: Int[np.ndarray, "edges 2"], held_out: Int[np.ndarray, "held_out 2"], bench: _Bench
) -> Measure:
    contrast = Contrast.of(edges, held_out, bench.group)
    return contrast.area(scored.of(contrast.pairs), IN_GRAPH)


def _renamed(covered: Coverage, generator: np.random.Generator) -> Int[np.ndarray, " nodes"]:
    """Another name for each node, so that the attack still scores every pair."""
    names = np.arange(len(covered.asked))
    for alike in (covered.asked, covered.answered & ~covered.asked):
        names[alike] = generator.permutation(names[alike])
    return names


def _edge_curve(case: Case) -> "TradeoffCurve | None":
    """The most that the plan permits an attack on whether one edge is in the graph; None where it bounds none."""
    if case.plan is None or not case.is_private or case.plan.unit not in ("node", "edge"):
        return None
    curve = case.plan.edge_curve()
    return curve if len(curve.epsilons) else None


def _chance(name: str, density: float) -> float:
    if name.endswith(PRECISION):
        return density
    return 0.0 if name.startswith("auc_above_") else 0.5
