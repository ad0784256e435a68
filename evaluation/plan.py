"""What is done to every checkpoint, and the registry of attacks. Imports no torch.

An attack is registered under ``family.name``; the family says how it is judged. ``membership.*`` gives a score an example
(higher means member); ``inversion.*`` gives one reconstruction a class; ``extraction.*`` asks a language model for the made-up
secrets that it may have been trained on; ``link.*`` scores pairs of nodes of a graph (higher means linked); ``node.*`` reads
what a model says of a node, from which its hidden words are guessed::

    from evaluation.plan import ATTACKS
    from evaluation.membership import MembershipAttack

    @ATTACKS.register("membership.confidence", "highest score, whatever the label")
    class Confidence(MembershipAttack):
        access = Access.SCORES
        paper = "..."

        def run(self, target, examples, knowledge):
            return target.scores(examples.inputs).max(1)
"""

from dataclasses import dataclass
from typing import Any

from dptrain.augmentation import Augment, moves
from dptrain.errors import ConfigError
from dptrain.registry import Builtin, Registry
from dptrain.release.parts import parse

ATTACKS: Registry[Any] = Registry(
    "attack",
    {
        "membership.threshold": Builtin(
            "evaluation.membership.threshold:LossThreshold",
            "the smaller the loss, the more a member (Yeom et al. 2018)",
        ),
        "membership.threshold_per_class": Builtin(
            "evaluation.membership.threshold:LossPerClass",
            "the loss against non-members of the class (Song & Mittal 2021)",
        ),
        "membership.confidence": Builtin(
            "evaluation.membership.threshold:Confidence",
            "the highest score, whatever the label (Salem et al. 2019)",
        ),
        "membership.confidence_per_class": Builtin(
            "evaluation.membership.threshold:ConfidencePerClass",
            "the highest score against non-members of the class",
        ),
        "membership.entropy": Builtin(
            "evaluation.membership.threshold:Entropy",
            "the entropy of the scores (Song & Mittal 2021)",
        ),
        "membership.entropy_per_class": Builtin(
            "evaluation.membership.threshold:EntropyPerClass",
            "the entropy against non-members of the class (Song & Mittal 2021)",
        ),
        "membership.modified_entropy": Builtin(
            "evaluation.membership.threshold:ModifiedEntropy",
            "entropy about the true label (Song & Mittal 2021)",
        ),
        "membership.modified_entropy_per_class": Builtin(
            "evaluation.membership.threshold:ModifiedEntropyPerClass",
            "the same against non-members of the class (Song & Mittal 2021)",
        ),
        "membership.calibrated_loss": Builtin(
            "evaluation.membership.calibrated:CalibratedLoss",
            "the loss less that of models without the example (Watson et al. 2022)",
        ),
        "membership.shadow_classifier": Builtin(
            "evaluation.membership.shadow:ShadowClassifier",
            "a classifier that learned from shadow models (Shokri et al. 2017)",
        ),
        "membership.lira": Builtin(
            "evaluation.membership.lira:Lira",
            "likelihood ratio over shadow models of the same recipe (Carlini et al. 2022)",
        ),
        "membership.lira_offline": Builtin(
            "evaluation.membership.lira:OfflineLira",
            "likelihood under shadow models without the example (Carlini et al. 2022)",
        ),
        "membership.answers": Builtin(
            "evaluation.membership.answers:AnswerRatio",
            "likelihood ratio of discrete answers, behind a guard (after Carlini et al. 2022)",
        ),
        "membership.ranks": Builtin(
            "evaluation.membership.ranks:RankRatio",
            "likelihood ratio of the classes' order, without their scores",
        ),
        "membership.repeated": Builtin(
            "evaluation.membership.repeated:RepeatedQueries",
            "near-identical copies of each example, averaged (after Watson et al. 2022)",
        ),
        "membership.rmia": Builtin(
            "evaluation.membership.rmia:Rmia",
            "ratio to reference models, against the population's (Zarifzadeh et al. 2024)",
        ),
        "membership.rmia_offline": Builtin(
            "evaluation.membership.rmia:OfflineRmia",
            "the same from models without the example (Zarifzadeh et al. 2024)",
        ),
        "membership.informia": Builtin(
            "evaluation.membership.informia:InfoRmia",
            "ratio to reference models, less the population's mean (Tao & Shokri 2025)",
        ),
        "membership.informia_offline": Builtin(
            "evaluation.membership.informia:OfflineInfoRmia",
            "the same from models without the example (Tao & Shokri 2025)",
        ),
        "membership.bayesian": Builtin(
            "evaluation.membership.bayesian:LastLayerBayes",
            "one reference model, its last layer uncertain (BMIA, Liu et al. 2025)",
        ),
        "membership.quantile": Builtin(
            "evaluation.membership.quantile:QuantileRegression",
            "what a non-member with this input would score (Bertran et al. 2023)",
        ),
        "membership.boundary": Builtin(
            "evaluation.membership.boundary:BoundaryDistance",
            "labels alone: distance to the boundary (Choquette-Choo et al. 2021)",
        ),
        "membership.noise": Builtin(
            "evaluation.membership.robustness:NoiseRobustness",
            "labels alone: noise that the label stands (Choquette-Choo et al. 2021)",
        ),
        "membership.shift": Builtin(
            "evaluation.membership.robustness:ShiftRobustness",
            "labels alone: shifts that the label stands (Choquette-Choo et al. 2021)",
        ),
        "membership.gradient_norm": Builtin(
            "evaluation.membership.gradient:GradientNorm",
            "weights: the norm of the example's gradient (Nasr et al. 2019)",
        ),
        "membership.gradient_layers": Builtin(
            "evaluation.membership.gradient:LayerNorms",
            "weights: its norm in each layer, against the population's (Nasr et al. 2019)",
        ),
        "membership.zlib": Builtin(
            "evaluation.membership.language:Zlib",
            "text: the loss over the compressed length (Carlini et al. 2021)",
        ),
        "membership.reference": Builtin(
            "evaluation.membership.language:Reference",
            "text: the loss less that of a public model (Mireshghallah et al. 2022)",
        ),
        "membership.neighbourhood": Builtin(
            "evaluation.membership.language:Neighbourhood",
            "text: the loss less that of texts next to it (Mattern et al. 2023)",
        ),
        "membership.min_k": Builtin(
            "evaluation.membership.language:MinK",
            "text: the fifth of it that is least expected (Shi et al. 2024)",
        ),
        "membership.min_k_plus_plus": Builtin(
            "evaluation.membership.language:MinKPlusPlus",
            "text: the same, measured in what is to be expected there (Zhang et al. 2025)",
        ),
        "attribute.map": Builtin(
            "evaluation.inversion.attribute:MaximumAPosteriori",
            "a hidden column from the known ones, the outcome and the model (Fredrikson et al. 2014)",
        ),
        "attribute.conditional": Builtin(
            "evaluation.inversion.attribute:conditional",
            "the same with a prior given the known columns",
        ),
        "attribute.first_order": Builtin(
            "evaluation.inversion.first_order:FirstOrder",
            "the same through derivatives (after Wu et al. 2016)",
        ),
        "attribute.confidence": Builtin(
            "evaluation.inversion.confidence:ConfidenceScores",
            "a hidden column by a classifier's confidence (CSMIA, Mehnaz et al. 2022)",
        ),
        "attribute.labels": Builtin(
            "evaluation.inversion.confidence:LabelsOnly",
            "a hidden column by a classifier's labels (LOMIA, Mehnaz et al. 2022)",
        ),
        "inversion.informed": Builtin(
            "evaluation.known_others:Informed",
            "one of ten candidates, by someone who knows all other examples (Balle et al. 2022)",
        ),
        "inversion.informed_1000": Builtin(
            "evaluation.known_others:of_a_thousand",
            "the same, one of a thousand",
        ),
        "inversion.reconstructor": Builtin(
            "evaluation.inversion.reconstructor:Reconstructor",
            "the one unknown example, read off the final weights by a network (Balle et al. 2022)",
        ),
        "inversion.prior": Builtin(
            "evaluation.inversion.prior:PriorInversion",
            "what a class looks like among inputs like public ones (after Chen et al. 2021)",
        ),
        "inversion.scores": Builtin(
            "evaluation.inversion.blackbox:ScoreInversion",
            "the same from scores rounded to 0.1, without derivatives",
        ),
        "inversion.estimated_gradient": Builtin(
            "evaluation.inversion.estimated_gradient:EstimatedGradient",
            "the same from differences of the scores of neighbours (Fredrikson et al. 2015)",
        ),
        "inversion.labels": Builtin(
            "evaluation.inversion.labels:LabelInversion",
            "the same from labels alone (after Kahla et al. 2022)",
        ),
        "inversion.prior_vae": Builtin(
            "evaluation.inversion.prior:vae_prior",
            "inversion.prior in the latent space of an autoencoder (Kingma & Welling 2014)",
        ),
        "inversion.prior_gan": Builtin(
            "evaluation.inversion.prior:gan_prior",
            "inversion.prior with a generator that the target's answers shaped (Chen et al. 2021)",
        ),
        "inversion.prior_ensemble": Builtin(
            "evaluation.inversion.prior_ensemble:PriorEnsemble",
            "what inversion.prior finds with several generators, together",
        ),
        "inversion.class": Builtin(
            "evaluation.inversion.class_:ClassInversion",
            "what a class looks like, from its score (Fredrikson et al. 2015)",
        ),
        "inversion.class_logit": Builtin(
            "evaluation.inversion.logit:LogitInversion",
            "the same from its output before the softmax (Nguyen et al. 2023)",
        ),
        "extraction.exposure": Builtin(
            "evaluation.extraction.attacks:ExposureAttack",
            "how high a made-up secret ranks among all that it might be (Carlini et al. 2019)",
        ),
        "extraction.generation": Builtin(
            "evaluation.extraction.attacks:GenerationAttack",
            "a made-up secret from the words before it (Carlini et al. 2019, 2021)",
        ),
        "link.posteriors": Builtin(
            "evaluation.graph.posteriors:Posteriors",
            "graph: the nearer the scores of two nodes, the more linked (He et al. 2021)",
        ),
        "link.labels": Builtin(
            "evaluation.graph.posteriors:Labels",
            "graph: linked are nodes of the same label",
        ),
        "link.supervised": Builtin(
            "evaluation.graph.posteriors:Supervised",
            "graph: a classifier of two scores that learned where edges are known (He et al. 2021)",
        ),
        "link.influence": Builtin(
            "evaluation.graph.influence:Influence",
            "graph: whose scores move with whose features (LinkTeller, Wu et al. 2022)",
        ),
        "link.release": Builtin(
            "evaluation.graph.released:Release",
            "graph: the noised sums or edges that a model was released with, read as they are",
        ),
        "link.weights": Builtin(
            "evaluation.graph.optimised:Optimised",
            "graph: one under which the weights give these labels (GraphMI, Zhang et al. 2021)",
        ),
        "node.attribute": Builtin(
            "evaluation.graph.words:FromScores",
            "graph: a hidden word of a node from its scores",
        ),
        "node.embedding": Builtin(
            "evaluation.graph.words:FromEmbedding",
            "graph: the same from its last hidden layer (Duddu et al. 2020)",
        ),
    },
)

FAMILIES = ("membership", "inversion", "attribute", "extraction", "link", "node")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Which attacks, and how much they may spend."""

    attacks: tuple[str, ...] = ("membership.threshold", "membership.lira", "inversion.class")
    """Registered attacks; `dptrain list` shows them."""
    shadow_models: int = 32
    """Models that imitate the target, trained by its own recipe, for the attacks that need them."""
    views: int = 1
    """Questions about each example, of the target and of the shadow models, for the attacks that ask several (LiRA): the
    example itself, then moved by `augment`. Above 1 for pictures alone; answers to all of them are kept in memory."""
    augment: Augment = "shift"
    """How `views` differ: by up to two pixels (`shift`, 25), mirrored (`flip`, 2), or both (`shift_flip`, 50)."""
    false_positive_rates: tuple[float, ...] = (0.01,)
    """At which the true positive rate is reported."""
    guards: tuple[str, ...] = ()
    """Guards that stand before each model one after the other, such as label_only or top5-rounded: every attack that sees
    scores at most runs again through each, beside attacks that know of it. `dptrain list` shows their parts."""
    hidden: str | None = None
    """Of a table: the column that attribute inference guesses."""
    known: tuple[str, ...] | None = None
    """Of a table: columns that its attacker knows beside the outcome. Left out, all but the hidden one; an empty list, none."""
    inversion_steps: int = 300
    """Gradient steps of `inversion.class`, at most; other inversions end by themselves."""
    inversion_restarts: int = 4
    """Starting points of `inversion.class`; the one that the target likes best is kept."""

    def __post_init__(self) -> None:
        for name in self.attacks:
            ATTACKS.check(name)
            if name.split(".")[0] not in FAMILIES:
                raise ConfigError(f"the attack {name!r} is of no known family; name it {' or '.join(FAMILIES)}.something")
        for guard in self.guards:
            parse(guard)
        if len(set(self.guards)) != len(self.guards):
            raise ConfigError(f"evaluation.guards is {self.guards}; give each guard once")
        if self.shadow_models < 4:
            raise ConfigError(f"evaluation.shadow_models is {self.shadow_models}; give at least 4, better 16 or more")
        for name in ("inversion_steps", "inversion_restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name} is {getattr(self, name)}; give a whole number from 1 up")
        if not 1 <= self.views <= len(moves(self.augment)):
            raise ConfigError(
                f"evaluation.views is {self.views}; with evaluation.augment = {self.augment!r} give a whole number from 1 to "
                f"{len(moves(self.augment))}"
            )
        if any(not 0 < rate < 1 for rate in self.false_positive_rates):
            raise ConfigError(
                f"evaluation.false_positive_rates is {self.false_positive_rates}; give shares above 0 and below 1"
            )
