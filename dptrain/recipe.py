"""All that defines one trained model: data, model, optimizer, privacy, regularization, training.

A :class:`Recipe` is frozen, typed and free of private facts, so it can be printed, hashed, compared and published. Two
models of one recipe differ only in their seed and in which examples they saw. This module imports no torch: reading a
recipe must answer at once.

    >>> from dptrain.recipe import Recipe, PrivacyConfig
    >>> recipe = Recipe(privacy=PrivacyConfig(epsilon=4.0))
    >>> recipe.privacy.delta
    0.0001
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from dptrain.errors import ConfigError, unknown_name
from dptrain.penalties import parse as parse_penalty
from dptrain.registry import DATASETS, LOSSES, MODELS, OPTIMIZERS
from dptrain.release.parts import needs_members, parse

Mechanism = Literal["gaussian", "clip_only", "none"]
Relation = Literal["add_or_remove_one", "zero_out_one", "replace_one"]
Sampling = Literal["poisson", "truncated_poisson", "fixed_size", "cyclic_poisson", "balls_in_bins"]
Unit = Literal["example", "user", "node", "edge"]
EdgeRelease = Literal["none", "randomised_response", "laplace"]
Clipping = Literal["flat", "per_layer", "automatic"]
Noise = Literal["independent", "banded"]
Schedule = Literal["constant", "linear", "cosine"]
RelaxBy = Literal["example", "batch"]


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """With which probability an example becomes a member, a non-member, population or public; each by its own coin.

    Where ``test`` is `published` that goes for the examples outside of the data set's published test part. Where ``per_class``
    is given there are no coins.
    """

    members: float = 0.5
    """Trained on."""
    non_members: float = 0.3
    """Held out: stands against the members in every membership attack, and measures utility unless `test` says otherwise."""
    population: float = 0.1
    """Held out from the model and from inversion attacks: trains their independent evaluator."""
    public: float = 0.1
    """Known to everyone, the attacker included."""
    test: Literal["non_members", "published"] = "non_members"
    """What measures utility: the non-members, or the test part that came with the data set, which then does nothing else and
    trains no shadow model either: figures compare with published ones, and members differ from non-members in nothing but
    their coins."""
    members_are: Literal["drawn", "published"] = "drawn"
    """Who is trained on: drawn as the shares say, or the training part that came with the data set, with its validation part as
    population, its test part to measure utility, and all others as non-members. No coins, so membership attacks are not judged
    on it: figures compare with published ones."""
    per_class: int | None = None
    """So many members of each class, drawn at random, in place of the four shares; all others are non-members, and there is no
    population and no public part. Balanced, so no coins of their own: membership attacks are not judged on such a split. For
    the inversion of people's classes, each of which must be learned; of other classes nobody would be left to judge one."""

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ConfigError(f"data.split.per_class is {self.per_class}; give a whole number from 1 up, such as 7")
        if self.per_class is not None and self.test != "non_members":
            raise ConfigError(
                f"data.split.test is {self.test!r}, and with data.split.per_class the non-members measure utility; leave it out"
            )
        if self.members_are == "published" and (self.test != "published" or self.per_class is not None):
            raise ConfigError(
                "data.split.members_are is 'published', which goes with the published test part alone; give data.split.test = "
                "'published' and leave per_class out"
            )
        shares = (self.members, self.non_members, self.population, self.public)
        if any(not 0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
            raise ConfigError(
                f"data.split gives members, non_members, population, public = {shares}; give four shares from 0 to 1 "
                "that sum to 1, such as 0.5 0.3 0.1 0.1"
            )
        if self.members == 0:
            raise ConfigError("data.split.members is 0, so nothing would be trained on; give a share above 0")


Scale = Literal["linear", "square_root"]
"""On which a value is predicted."""


SecretFormat = Literal["pin", "card", "email", "password"]


@dataclass(frozen=True, kw_only=True)
class SecretsConfig:
    """Made-up secrets among the sequences of a text; see :mod:`dptrain.data.secrets`."""

    each: int = 0
    """Of each format and number of repetitions; about half of them are trained on, the others are controls. 0 plants none."""
    formats: tuple[SecretFormat, ...] = ("pin",)
    insertions: tuple[int, ...] = (1, 4, 16)
    """How often a secret is repeated."""
    seed: int = 0
    """Of the secrets themselves."""

    def __post_init__(self) -> None:
        if self.each < 0 or self.seed < 0:
            raise ConfigError(f"data.secrets has each {self.each} and seed {self.seed}; give whole numbers from 0 up")
        for kind in self.formats:
            if kind not in get_args(SecretFormat):
                raise unknown_name("format of secrets", kind, get_args(SecretFormat), ConfigError)
        if any(times < 1 for times in self.insertions) or len(set(self.insertions)) != len(self.insertions):
            raise ConfigError(
                f"data.secrets.insertions is {self.insertions}; give different whole numbers from 1 up, such as 1 4 16"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, and what is publicly known about it."""

    name: str = "digits"
    """A registered data set; `dptrain list` shows them."""
    path: str | None = None
    """File or folder of your own data (`table`, `images`, `faces`, `text`), the folder with the files of `mnist` or `cifar10`,
    or the file of `sms`, `shakespeare`, `cora` or `graph`."""
    target: str | None = None
    """`table`: the name of the column to predict, whose values are `classes`; or a number with its public bounds,
    `dose:number[0,150]`."""
    classes: tuple[str, ...] = ()
    """`table`: the values that the target can take, known without looking at the data; none where it is a number. `graph`: the
    names of what its labels count."""
    unit: str = ""
    """`table`: of a target that is a number, such as `mg a week`."""
    scale: Scale = "linear"
    """`table`: on which a target that is a number is predicted; `square_root` for one whose errors grow with it."""
    columns: tuple[str, ...] = ()
    """`table`: one text a column, `age:number[0,120]`, `sex:category[F,M]`; `?` at the end where cells may be missing."""
    image_size: tuple[int, int] | None = None
    """`images`: height and width that every picture must have. `faces`: those to which they are averaged down."""
    sequence_length: int = 64
    """`shakespeare`, `text`: characters of an example, or tokens. `sms`: words of a message that are read."""
    characters: int | None = None
    """`shakespeare`, `text`: only the first so many are used."""
    public: tuple[str, ...] = ()
    """`shakespeare`, `text`: files with public text, for `pretraining`."""
    text_column: str | None = None
    """`text`, of a table (`.csv`, `.tsv`, `.jsonl`): the column that holds the texts."""
    user_column: str | None = None
    """`text`, of a table: the column that says whose each text is, for `privacy.unit` user. Left out, nobody's is known."""
    tokenizer: str | None = None
    """`shakespeare`, `text`: a folder, or a name on the Hugging Face hub, whose tokens take the place of characters; of the
    model `lora` its own, which need not be given."""
    secrets: SecretsConfig = field(default_factory=SecretsConfig)
    held_out_edges: float = 0.0
    """`cora`, `graph`: the share of edges that no model's graph has, against which attacks on edges are judged."""
    max_degree: int | None = None
    """`cora`, `graph`: of a node's edges beyond so many, a random choice is left out before anything is trained."""
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        DATASETS.check(self.name)
        if not 0 <= self.held_out_edges < 1:
            raise ConfigError(f"data.held_out_edges is {self.held_out_edges}; give a share from 0 to below 1, such as 0.1")
        for name in ("sequence_length", "characters", "max_degree"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"data.{name} is {value}; give a whole number from 1 up")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and its size."""

    name: str = "linear"
    """A registered model; `dptrain list` shows them."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers, where the model has any: `mlp`, `scattering` and `public_pca`; [] leaves one layer to the
    classes. `lstm`: of its one layer. `embedding_bag`: of an embedding, then of hidden layers."""
    components: int = 64
    """`public_pca`: principal axes of the public examples that are kept; fewer than there are such examples."""
    hops: int = 1
    """`gap`: how often sums over neighbours are taken; as many as `privacy.aggregations`."""
    encoder: Literal["labels", "projection"] = "labels"
    """`gap`: what of a node is summed: the scores of a network that learned from labels and saw no edge, or a fixed projection
    of its features, which the unit `node` needs."""
    activation: Literal["tanh", "relu"] = "tanh"
    """tanh keeps activations bounded, which helps under clipping (Papernot et al. 2021)."""
    pretrained: str | None = None
    """`lora`: the folder of a causal language model, or its name on the Hugging Face hub. It stands in the release's card."""
    rank: int = 8
    """`lora`: of what is added to each adapted layer."""
    alpha: float = 16.0
    """`lora`: what is added is multiplied by this over the rank."""
    adapted: Literal["default", "all"] = "default"
    """`lora`: which linear layers; PEFT's own choice for the kind of model, or all but the last."""

    def __post_init__(self) -> None:
        MODELS.check(self.name)
        if self.rank < 1:
            raise ConfigError(f"model.rank is {self.rank}; give a whole number from 1 up, such as 8")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"model.alpha is {self.alpha}; give a finite number above 0, such as 16")
        if self.adapted not in ("default", "all"):
            raise unknown_name("value of model.adapted", self.adapted, ("default", "all"))
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"model.hidden is {self.hidden}; give widths of at least 1, such as 64 32")
        if self.hops < 1:
            raise ConfigError(f"model.hops is {self.hops}; give a whole number from 1 up, such as 1")
        if self.components < 1:
            raise ConfigError(f"model.components is {self.components}; give a whole number from 1 up, such as 64")


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What a language model learns from public text before it sees a private one; see :mod:`dptrain.pretraining`."""

    steps: int = 0
    """Updates; 0 learns nothing beforehand."""
    batch_size: int = 64
    learning_rate: float = 3e-3
    """Of AdamW, falling to 0 as a cosine."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1:
            raise ConfigError(
                f"pretraining has {self.steps} steps of {self.batch_size} examples; give whole numbers from 0 and from 1 up"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"pretraining.learning_rate is {self.learning_rate}; give a finite number above 0")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its step."""

    name: str = "sgd"
    """A registered optimizer; `dptrain list` shows them."""
    learning_rate: float = 1.0
    momentum: float = 0.9
    """Of `sgd`; under DP it is post-processing of noised gradients and free of charge."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of `adamw` and `dp_adamw`: decay of the averages of the gradient and of its square."""
    schedule: Schedule = "constant"
    """How the learning rate goes on after the warm-up: `constant`, or falling to 0 as a `linear` or `cosine` curve."""
    warmup: int = 0
    """Steps over which the learning rate rises to its value."""

    def __post_init__(self) -> None:
        OPTIMIZERS.check(self.name)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas is {self.betas}; give two numbers from 0 to below 1, such as 0.9 0.999")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"optimizer.schedule is {self.schedule!r}; give constant, linear or cosine")
        if self.warmup < 0:
            raise ConfigError(f"optimizer.warmup is {self.warmup}; give a whole number of steps from 0 up")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"optimizer.learning_rate is {self.learning_rate}; give a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"optimizer.momentum is {self.momentum}; give a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The public numbers from which the :class:`~dptrain.plan.PrivacyPlan` is built."""

    mechanism: Mechanism = "gaussian"
    """`gaussian`: clip and add noise; `clip_only`: clip and add none (no guarantee); `none`: ordinary training."""
    epsilon: float | None = None
    """The budget. Left out, a comparison's `epsilons` decide."""
    delta: float = 1e-4
    """Must be below 1/N; better below 1/(10 N)."""
    unit: Unit = "example"
    """Whose presence is hidden: one `example` (a row, a picture), one `user` with all that they contributed, one `node` of a
    graph with its features, label and edges, or one `edge`."""
    max_examples_per_unit: int | None = None
    """`user`: the most examples of one user that are used each time they are drawn, a fresh random subset."""
    relation: Relation = "add_or_remove_one"
    """What makes two data sets neighbours."""
    sampling: Sampling = "poisson"
    """How batches are drawn, which decides how the budget is counted."""
    sampling_rate: float = 1.0
    """q: the probability that an example is in a batch. Public; never computed from the data."""
    expected_batch_size: float = 898.0
    """What noisy sums are divided by. Public; q times a publicly known number of examples, or of users."""
    max_batch_size: int | None = None
    """`truncated_poisson`: the most examples in a batch; of more, a random subset is kept."""
    max_examples: int | None = None
    """`truncated_poisson`: a public upper bound on the number of examples; `fixed_size`: exactly that number, public."""
    clipping: Clipping = "flat"
    """`flat`: the whole gradient to C; `per_layer`: each layer, to C together; `automatic`: scaled to just below C (AUTO-S)."""
    automatic_stability: float = 0.01
    """`automatic`: γ in g · C / (‖g‖ + γ) (Bu et al. 2023)."""
    clipping_norm: float = 0.1
    """C: the most that one unit can contribute to a sum."""
    noise: Noise = "independent"
    """`independent`: anew in each step; `banded`: correlated over `bands` steps, with `cyclic_poisson`."""
    bands: int = 1
    """`cyclic_poisson`: the number of groups that take turns, and of steps over which banded noise is correlated."""
    max_degree: int | None = None
    """`node`: the most edges that a node has in the graph that is trained on; others are left out beforehand."""
    aggregations: int = 0
    """`node`, `edge`: noised sums over neighbours, one a hop, that are released before the first update."""
    aggregation_noise: float = 1.0
    """The noise multiplier of these sums, over that of the updates."""
    occurrences: int = 0
    """`node`: in how many examples of other nodes one node's features and edges are read, at most."""
    edge_release: EdgeRelease = "none"
    """`edge`: how the graph is perturbed once, before the first update: by `randomised_response` or by `laplace` noise."""

    def __post_init__(self) -> None:
        if self.epsilon is not None and not self.epsilon > 0:
            raise ConfigError(f"privacy.epsilon is {self.epsilon}; give a number above 0, such as 8")
        if not 0 < self.delta < 1:
            raise ConfigError(f"privacy.delta is {self.delta}; give a number above 0 and below 1/N, such as 1e-5")


DETAILS = {"relax_by", "bilateral_ratio", "freeze_steps", "distillation_temperature", "distillation_learning_rate"}
"""Of regularization: what says how another option is meant, and does nothing without it."""
COMPANIONS = {
    "label_entropy": ("output_entropy",),
    "relax": ("relax_by",),
    "bilateral_dependency": ("bilateral_ratio",),
    "freeze": ("freeze_steps",),
    "distillation": ("distillation_temperature", "distillation_learning_rate"),
}
"""An option of regularization, and what goes with it where each is tried alone."""


@dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """What keeps the model from overfitting. A defence against an attack only where the report's table says so."""

    dropout: float = 0.0
    """Share of each layer's inputs set to 0 while training."""
    weight_decay: float = 0.0
    """L2 penalty of the optimizer, on the weights alone."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all classes; below 0 it is taken from them."""
    label_entropy: float = 0.0
    """HAMP: entropy of the soft labels, as a share of the largest possible; 0 leaves labels hard."""
    output_entropy: float = 0.0
    """HAMP: how much the loss rewards the entropy of the output, in nats a nat."""
    mixup: float = 0.0
    """α of the Beta(α, α) by which each example is mixed with another; without clipping alone. 0 mixes none."""
    relax: float = 0.0
    """RelaxLoss: the loss, in nats, below which training does not push; 0 pushes on."""
    relax_by: RelaxBy = "example"
    """Whose loss `relax` is held against: each `example`'s own, or the `batch`'s mean, as published; without clipping alone."""
    information_bottleneck: float = 0.0
    """MID: β, nats of loss a nat that the last hidden layer may say of an input; 0 makes no bottleneck."""
    bilateral_dependency: float = 0.0
    """BiDO: λ, what the loss charges for hidden layers that depend on inputs; without clipping alone. 0 charges nothing."""
    bilateral_ratio: float = 10.0
    """How much dependence of hidden layers on labels is rewarded, a part of what dependence on inputs costs."""
    penalty: str = ""
    """Registered regularizers of your own, each with its strength glued to it, such as `logit_norm0.01`; joined by `-`."""
    freeze: int = 0
    """TL-DMI: first layers that learn from public examples of other classes and are then frozen; -1: all but the last."""
    freeze_steps: int = 300
    """Updates by which they learn."""
    early_stopping: int = 0
    """Steps without a lower loss on public examples (at most 4,096) after which training ends; 0 takes every step."""
    distillation: int = 0
    """Steps of a student on public examples, labelled by the trained model, that is released in its place; 0 makes none."""
    distillation_temperature: float = 1.0
    """By which both models' logits are divided while the student learns."""
    distillation_learning_rate: float = 0.1
    """Of the student, whose gradients are neither clipped nor noised."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"regularization.dropout is {self.dropout}; give a number from 0 to below 1")
        if not self.weight_decay >= 0:
            raise ConfigError(f"regularization.weight_decay is {self.weight_decay}; give a number from 0 up")
        if not -1 < self.label_smoothing < 1:
            raise ConfigError(f"regularization.label_smoothing is {self.label_smoothing}; give a number inside (-1, 1)")
        if not 0 <= self.label_entropy < 1:
            raise ConfigError(
                f"regularization.label_entropy is {self.label_entropy}; give a share from 0 to below 1, such as 0.8"
            )
        for name in ("output_entropy", "mixup", "relax", "information_bottleneck", "bilateral_dependency", "bilateral_ratio"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"regularization.{name} is {value}; give a finite number from 0 up")
        for name in ("distillation_temperature", "distillation_learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"regularization.{name} is {value}; give a finite number above 0")
        if self.freeze < -1:
            raise ConfigError(
                f"regularization.freeze is {self.freeze}; give a number of layers from 0 up, or -1 for all but the last"
            )
        for name in ("early_stopping", "distillation", "freeze_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"regularization.{name} is {getattr(self, name)}; give a whole number of steps from 0 up")
        if self.relax_by not in get_args(RelaxBy):
            raise unknown_name("regularization.relax_by", self.relax_by, get_args(RelaxBy))
        parse_penalty(self.penalty)

    def check_together(self) -> None:
        """Raises ConfigError where the options cannot be those of one model."""
        deciding = [name for name in ("label_smoothing", "label_entropy", "mixup", "relax") if getattr(self, name)]
        if len(deciding) > 1:
            raise ConfigError(
                f"regularization gives {' and '.join(deciding)}, and each decides alone what an example's output should be; "
                "give one of them to a model"
            )
        if self.mixup and self.bilateral_dependency:
            raise ConfigError(
                "regularization gives mixup and bilateral_dependency, and a mixed example has no one label to depend on; give "
                "one of them to a model"
            )
        if self.mixup and self.penalty:
            raise ConfigError(
                "regularization gives mixup and penalty, and a mixed example has no one input and label to be charged for; "
                "give one of them to a model"
            )
        of_hidden = [name for name in ("information_bottleneck", "bilateral_dependency", "penalty") if getattr(self, name)]
        if of_hidden and self.distillation:
            raise ConfigError(
                f"regularization gives {of_hidden[0]} and distillation, and the student that is released learns without it; "
                "give one of them to a model"
            )

    def each_alone(self) -> dict[str, "RegularizationConfig"]:
        """Each option that is set, by itself, under its name and value, such as ``label_smoothing=0.1``.

        What only says how an option is meant goes with it and stands in its name where it is not the default
        (``relax=0.3,relax_by=batch``). So do the two parts of HAMP, which were published as one defence.
        """
        default = RegularizationConfig()
        changed = {item.name for item in dataclasses.fields(self) if getattr(self, item.name) != getattr(default, item.name)}
        going_along = {part for name in changed for part in COMPANIONS.get(name, ())} | DETAILS
        found: dict[str, RegularizationConfig] = {}
        for item in dataclasses.fields(self):
            if item.name not in changed - going_along:
                continue
            names = [item.name, *(part for part in COMPANIONS.get(item.name, ()) if part in changed)]
            values = {name: getattr(self, name) for name in names}
            found[",".join(f"{name}={value}" for name, value in values.items())] = RegularizationConfig(**values)
        return found

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but dropout, weight decay and label smoothing."""
        others = (self.label_entropy, self.output_entropy, self.mixup, self.relax)
        of_hidden = (self.information_bottleneck, self.bilateral_dependency, self.freeze)
        return not any(others) and not any(of_hidden) and not self.needs_public and not self.penalty

    @property
    def needs_public(self) -> bool:
        """Whether training looks at public examples, which then can be in no model's training set."""
        return self.early_stopping > 0 or self.distillation > 0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, and how often to keep a checkpoint."""

    steps: int = 60
    """Optimizer updates; whole, and exactly as many as the budget is calibrated for."""
    checkpoint_every: int | None = None
    """Steps between checkpoints, each of which is attacked. Left out, only the last step is kept."""
    loss: str = "cross_entropy"
    """A registered loss that gives one value an example."""
    average: float | None = None
    """Decay of a moving average of the weights, such as 0.99, which is then what is released. Left out, there is none."""

    def __post_init__(self) -> None:
        LOSSES.check(self.loss)
        if self.steps < 1:
            raise ConfigError(f"training.steps is {self.steps}; give a whole number from 1 up")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ConfigError(f"training.checkpoint_every is {self.checkpoint_every}; give a whole number from 1 up")
        if self.average is not None and not 0 < self.average < 1:
            raise ConfigError(f"training.average is {self.average}; give a decay above 0 and below 1, such as 0.99")

    @property
    def stops(self) -> tuple[int, ...]:
        """The steps at which a checkpoint is kept; the last one always is."""
        return (*range(self.checkpoint_every or self.steps, self.steps, self.checkpoint_every or self.steps), self.steps)


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """What a prediction of the released model shows."""

    guard: str | None = None
    """Guards, behind which attackers of scores or labels find the model and its shadows: names with their numbers glued to
    them, joined by `-` in the order in which an answer goes through them, such as `top5-rounded`; `dptrain list` shows them.
    Where it is left out, scores are shown as they are."""

    def __post_init__(self) -> None:
        if self.guard is not None:
            parse(self.guard)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that defines one trained model, except its seed."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)

    def __post_init__(self) -> None:
        self._share_tokenizer()
        self.regularization.check_together()
        if self.release.guard is not None and needs_members(self.release.guard) and self.data.split.population == 0:
            raise ConfigError(
                f"release.guard is {self.release.guard!r}, which is fitted on members and on a population that no model saw, "
                "and data.split.population is 0; raise it, such as to 0.1"
            )
        of_the_loss = (
            "label_entropy",
            "output_entropy",
            "mixup",
            "relax",
            "information_bottleneck",
            "bilateral_dependency",
        )
        given = [name for name in of_the_loss if getattr(self.regularization, name)]
        if given and self.training.loss != "cross_entropy":
            raise ConfigError(
                f"regularization.{given[0]} is a part of the loss cross_entropy, and training.loss is {self.training.loss!r}; "
                f"leave {' and '.join(given)} out, or give cross_entropy"
            )

    def _share_tokenizer(self) -> None:
        """Data for a published model are written in its own tokens.

        Raises:
            ConfigError: both are given and differ.
        """
        if self.model.name != "lora" or self.model.pretrained is None:
            return
        if self.data.tokenizer not in (None, self.model.pretrained):
            raise ConfigError(
                f"data.tokenizer is {self.data.tokenizer!r} and model.pretrained is {self.model.pretrained!r}, which reads its "
                "own tokens alone; leave data.tokenizer out"
            )
        object.__setattr__(self, "data", dataclasses.replace(self.data, tokenizer=self.model.pretrained))

    def unlocated(self) -> "Recipe":
        """The same without where on this computer the data lie."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, path=None, public=()))

    def digest(self) -> str:
        """A hash of every field but ``data.path`` and ``data.public``: models of different recipes can never be taken for one
        another.

        It is published, and a path can be guessed; which examples lay there is said by the data set's fingerprint. A field that
        came later is left out where it is not used, so that models from before keep their digest.
        """
        plain = dataclasses.asdict(self.unlocated())
        if not plain["regularization"]["penalty"]:
            del plain["regularization"]["penalty"]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What may change the speed and never the mechanism: nothing here enters a recipe's digest or its ε."""

    max_physical_batch: int = 1024
    """Examples that are in memory at once; a logical batch is computed in chunks of this many."""
    threads: int | None = None
    """CPU threads that torch may use; left out, torch decides."""
    chunks: Literal["as_drawn", "filled"] = "as_drawn"
    """`filled`: every chunk has `max_physical_batch` rows, so that all have one shape; what fills it counts for nothing."""
    norms: Literal["measured", "ghost", "instantiated", "one by one", "unfolded", "rows", "grouped"] = "measured"
    """How per-example norms are computed, where a layer offers this way; `measured` takes the fastest."""
    layout: Literal["measured", "contiguous", "channels_last"] = "measured"
    """In which order images and convolutions lie in memory; `measured` takes the faster."""
    fleet: Literal["measured", "masked", "gathered", "one by one"] = "measured"
    """How shadow models are trained: stacked, over all examples (`masked`) or over each one's own batch (`gathered`), or
    `one by one`; `measured` takes what its first steps show to be the fastest."""

    def __post_init__(self) -> None:
        for name in ("max_physical_batch", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"performance.{name} is {getattr(self, name)}; give a whole number from 1 up")
