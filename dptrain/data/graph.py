"""One graph whose nodes are the examples: Cora, and any file in the Planetoid layout.

    data = load_cora(DataConfig(name="cora"))
    data.inputs          # [2708, 1], numbers of nodes
    data.graph.features  # [2708, 1433], rows of length 1
    data.graph.edges     # [2, 5278], each edge once

An example is a node, and its input is its number: features and edges belong to the graph, which a model is bound to
(:mod:`dptrain.models.on_graph`). Training is transductive: all nodes and edges are there, and a member is a node whose *label*
was trained on.

A file holds ``x [nodes, features]``, ``y [nodes]`` and ``edge_index [2, edges]``, and may hold the masks of a published split
(``train_mask``, ``val_mask``, ``test_mask``; Yang, Cohen, Salakhutdinov 2016, "Revisiting Semi-Supervised Learning with Graph
Embeddings"). Edges count once, whatever their direction; loops and repetitions are left out. Each row of features is scaled
to length 1, by itself. Nodes of the published training part come first and those of the published test part last, in the file's
order.

**Edges that are left out.** ``data.held_out_edges`` gives each edge a coin: those held out are real edges that no model's graph
has, and stand against the others where an attack guesses at edges. The coin is a hash of the edge's two nodes alone, so that
data sets that differ in one edge give graphs that differ in one edge at most. ``data.max_degree`` leaves out edges of nodes
that have more, at random (:mod:`dptrain.graph.bounded`), before anything is trained. Both draws have fixed seeds: all models
of a data set have the same graph.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.data.places import shared_file
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

CORA = "cora.npz"
WHERE = "https://github.com/kimiyoung/planetoid"
CORA_CLASSES = (
    "case based",
    "genetic algorithms",
    "neural networks",
    "probabilistic methods",
    "reinforcement learning",
    "rule learning",
    "theory",
)
NEEDED = ("x", "y", "edge_index")
MASKS = ("train_mask", "val_mask", "test_mask")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes with features, and undirected edges between them.

    Raises:
        DataError: edges are not as they must be, or name nodes that there are not.
    """

    features: Float[Tensor, "nodes features"]
    """Each row of length 1, or of zeros."""
    edges: Int[Tensor, "2 edges"]
    """Each once, the smaller node first, in order; no loops."""
    held_out: Int[Tensor, "2 held_out"]
    """Real edges that no model's graph has; of the same form."""

    def __post_init__(self) -> None:
        for name, given in (("edges", self.edges), ("held_out", self.held_out)):
            if given.dim() != 2 or len(given) != 2 or given.is_floating_point():
                raise DataError(f"the graph's {name} are of shape {tuple(given.shape)}; give whole numbers [2, edges]")
            if given.numel() and (int(given.min()) < 0 or int(given.max()) >= len(self.features)):
                raise DataError(f"the graph's {name} name nodes outside of its {len(self.features)} rows of features")
            if not torch.equal(given, undirected(given)):
                raise DataError(f"the graph's {name} are not in order; give each edge once, as undirected() does")
        both = torch.cat([self.edges, self.held_out], 1)
        if undirected(both).shape[1] != both.shape[1]:
            raise DataError("the graph's held-out edges are among its edges; leave each out on one side")

    @property
    def nodes(self) -> int:
        return len(self.features)

    @property
    def both_ways(self) -> Int[Tensor, "2 twice"]:
        """Every edge in both directions."""
        return torch.cat([self.edges, self.edges.flip(0)], 1)

    @property
    def degrees(self) -> Int[Tensor, " nodes"]:
        return torch.bincount(self.edges.flatten(), minlength=self.nodes)


def undirected(edges: Int[Tensor, "2 any"]) -> Int[Tensor, "2 edges"]:
    """Each edge once, the smaller node first, in order, without loops."""
    low, high = edges.min(0).values if edges.numel() else edges[0], edges.max(0).values if edges.numel() else edges[1]
    kept = low != high
    return torch.unique(torch.stack([low[kept], high[kept]]), dim=1)


def load_cora(config: DataConfig) -> Any:
    """The Cora citation graph in its Planetoid version: 2,708 papers, 5,278 citations, 7 subjects.

    Raises:
        DataError: the file is not there, or is something else.
    """
    path = Path(config.path) if config.path else shared_file(CORA)
    if path is None:
        raise DataError(
            f"Cora is not on this computer; convert the Planetoid files of {WHERE} (ind.cora.*) into one .npz with x, y, "
            f"edge_index, train_mask, val_mask and test_mask, and name it with --data.path, or put it at {CORA} below the "
            "folder of DPTRAIN_DATA"
        )
    source = "Cora (Sen et al. 2008), Planetoid version and split (Yang, Cohen, Salakhutdinov 2016)"
    return _loaded("cora", path, config, CORA_CLASSES, source)


def load_graph(config: DataConfig) -> Any:
    """A graph of your own from ``data.path``, an .npz in the Planetoid layout; ``data.classes`` names what ``y`` counts.

    Raises:
        DataError: no path, no classes, or the file is something else.
    """
    if not config.path:
        raise DataError("the data set 'graph' is a file of your own; name an .npz with x, y and edge_index by --data.path")
    if not config.classes:
        raise DataError(
            "data.classes is not given, and the classes of your own graph are public facts that nobody computes; name them "
            "with --data.classes, in the order of y"
        )
    return _loaded("graph", Path(config.path), config, config.classes, f"{Path(config.path).name} (your own)")


def _loaded(name: str, path: Path, config: DataConfig, classes: tuple[str, ...], source: str) -> Any:
    from dptrain.data.dataset import DataSet

    stored = _read(path)
    features, labels = _features(stored["x"], path), _whole(stored["y"], "y", path)
    nodes = len(features)
    if labels.shape != (nodes,):
        raise DataError(f"{path} has x of {nodes} nodes and y of shape {tuple(labels.shape)}; give one label a node")
    edges = _whole(stored["edge_index"], "edge_index", path)
    if edges.dim() != 2 or len(edges) != 2 or (edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes):
        raise DataError(
            f"{path} has edge_index of shape {tuple(edges.shape)}; give [2, edges] with numbers from 0 to {nodes - 1}"
        )
    order, first, last, between = _order(stored, nodes, path)
    place = torch.empty(nodes, dtype=torch.int64)
    place[order] = torch.arange(nodes)
    graph = _graph(features[order], undirected(place[edges]), config)
    return DataSet(
        name=name,
        inputs=torch.arange(nodes)[:, None],
        targets=labels[order],
        classes=classes,
        bounds=(0.0, float(nodes - 1)),
        kind="graph",
        source=source,
        published_test=last,
        published_members=first,
        published_validation=between,
        graph=graph,
    )


def _graph(features: Tensor, edges: Tensor, config: DataConfig) -> Graph:
    """The graph that models are bound to, after what is held out and what is too much for one node."""
    if config.max_degree is not None:
        from dptrain.graph.bounded import bounded

        edges = bounded(edges, len(features), config.max_degree, _generator(b"bounded degree"))
    out = torch.from_numpy(coins(edges, len(features)) < config.held_out_edges)
    edges, held_out = edges[:, ~out], edges[:, out]
    return Graph(features, edges, held_out)


def coins(edges: Int[Tensor, "2 edges"], nodes: int) -> Float[np.ndarray, " edges"]:
    """A number from 0 to 1 for each edge, by a hash of its two nodes and of nothing else.

    One edge more or less then moves no other edge's coin: what a plan promises to one edge holds from the file on.
    """
    with np.errstate(over="ignore"):
        mixed = (edges[0] * nodes + edges[1]).numpy().astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # SplitMix64 (Steele et al. 2014)
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _generator(purpose: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, *purpose])))


def _whole(given: np.ndarray, name: str, path: Path) -> Tensor:
    if not np.issubdtype(given.dtype, np.integer):
        raise DataError(f"{path} has {name} of the type {given.dtype}; give whole numbers, counted from 0")
    return torch.from_numpy(given.astype(np.int64))


def _features(given: np.ndarray, path: Path) -> Tensor:
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.number) or not np.isfinite(given).all():
        raise DataError(f"{path} has x of shape {given.shape} and type {given.dtype}; give finite numbers [nodes, features]")
    rows = torch.from_numpy(given.astype(np.float32))
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _order(stored: dict[str, np.ndarray], nodes: int, path: Path) -> tuple[Tensor, int, int, int]:
    """The nodes in their order here, and how many of them are the published training, test and validation parts."""
    if not all(name in stored for name in MASKS):
        return torch.arange(nodes), 0, 0, 0
    train, val, test = (np.asarray(stored[name], dtype=bool) for name in MASKS)
    if any(mask.shape != (nodes,) for mask in (train, val, test)) or (train.astype(int) + val + test).max() > 1:
        raise DataError(f"{path} has masks that overlap or do not fit its {nodes} nodes; give one truth value a node each")
    others = ~(train | val | test)
    parts = [np.flatnonzero(mask) for mask in (train, val, others, test)]
    return torch.from_numpy(np.concatenate(parts)), len(parts[0]), len(parts[3]), len(parts[1])


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            stored = {name: opened[name] for name in (*NEEDED, *MASKS) if name in opened.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; give an .npz with x, y and edge_index by --data.path") from None
    except Exception as error:  # numpy and zipfile have an error of their own for each way to be damaged
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as .npz ({reason}); write it by numpy.savez with x, y and edge_index") from None
    missing = [name for name in NEEDED if name not in stored]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; a graph has x [nodes, features], y [nodes], edge_index [2, edges]")
    return stored
