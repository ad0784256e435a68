"""Names of attacks, metrics, rows and figures, so that one thing has one name in all views."""

import math
import re

from dptrain.rounding import significant
from evaluation.result import Bought, FrontPoint, Measure, RunResult, Standing, Summary

Row = Summary | RunResult | Bought | Standing | FrontPoint
"""What stands for one budget, baseline or regularizer."""
ATTACK_NAMES = {
    "membership.threshold": "Membership, loss threshold",
    "membership.threshold_per_class": "Membership, loss threshold per class",
    "membership.confidence": "Membership, confidence threshold",
    "membership.confidence_per_class": "Membership, confidence threshold per class",
    "membership.entropy": "Membership, entropy threshold",
    "membership.entropy_per_class": "Membership, entropy threshold per class",
    "membership.modified_entropy": "Membership, modified entropy threshold",
    "membership.modified_entropy_per_class": "Membership, modified entropy threshold per class",
    "membership.calibrated_loss": "Membership, calibrated loss",
    "membership.shadow_classifier": "Membership, shadow classifier",
    "membership.lira": "Membership, LiRA",
    "membership.lira_offline": "Membership, LiRA offline",
    "membership.answers": "Membership, ratio of shown answers",
    "membership.ranks": "Membership, ratio of ranks",
    "membership.repeated": "Membership, repeated queries",
    "membership.rmia": "Membership, RMIA",
    "membership.rmia_offline": "Membership, RMIA offline",
    "membership.informia": "Membership, InfoRMIA",
    "membership.informia_offline": "Membership, InfoRMIA offline",
    "membership.bayesian": "Membership, last layer (BMIA)",
    "membership.quantile": "Membership, quantile regression",
    "membership.boundary": "Membership, labels: distance to the boundary",
    "membership.noise": "Membership, labels: under noise",
    "membership.shift": "Membership, labels: under shifts",
    "membership.gradient_norm": "Membership, gradient norm",
    "membership.gradient_layers": "Membership, gradient norm per layer",
    "membership.zlib": "Membership, loss by compressed length",
    "membership.reference": "Membership, loss against a public reference",
    "membership.neighbourhood": "Membership, loss against neighbours",
    "membership.min_k": "Membership, least expected characters (Min-K%)",
    "membership.min_k_plus_plus": "Membership, least expected characters, normalised (Min-K%++)",
    "attribute.map": "Attribute inference, published (MAP)",
    "attribute.conditional": "Attribute inference, prior given what is known",
    "attribute.first_order": "Attribute inference, through derivatives",
    "attribute.confidence": "Attribute inference, by confidence (CSMIA)",
    "attribute.labels": "Attribute inference, by labels (LOMIA)",
    "inversion.class": "Class inversion",
    "inversion.class_logit": "Class inversion, through logits",
    "inversion.informed": "Informed adversary, one of 10 candidates",
    "inversion.informed_1000": "Informed adversary, one of 1,000 candidates",
    "inversion.reconstructor": "Informed adversary, final weights (reconstructor)",
    "inversion.prior": "Class inversion with a public prior",
    "inversion.prior_vae": "Class inversion with a public prior, autoencoder",
    "inversion.prior_gan": "Class inversion with a public prior, shaped by the target",
    "inversion.prior_ensemble": "Class inversion with several public priors",
    "inversion.scores": "Class inversion from scores, without gradients",
    "inversion.estimated_gradient": "Class inversion by estimated gradients",
    "inversion.labels": "Class inversion from labels alone",
    "link.posteriors": "Links, from scores",
    "link.labels": "Links, from labels",
    "link.supervised": "Links, learned where edges are known",
    "link.influence": "Links, from influence (LinkTeller)",
    "link.weights": "Links, from weights (GraphMI)",
    "link.release": "Links, from what was released",
    "node.attribute": "Hidden words of nodes, from scores",
    "node.embedding": "Hidden words of nodes, from embeddings",
    "extraction.exposure": "Secrets, exposure",
    "extraction.generation": "Secrets, generation",
}
METRIC_NAMES = {
    "auc": "AUC",
    "identified_top1": "identified",
    "identified_top5": "identified, top 5",
    "identified_by_linear": "identified by the linear judge",
    "identified_of_draws": "draws identified",
    "nearer_than_known": "nearer than any known example",
    "nearer_by_mean_example": "the mean example nearer than any known one",
    "error_of_reconstruction": "mean squared error",
    "error_of_mean_example": "mean squared error of the mean example",
    "error_of_nearest_example": "mean squared error of the nearest known example",
    "error_of_released_model": "squared error, the released model's own",
    "ssim_of_reconstruction": "SSIM",
    "ssim_of_mean_example": "SSIM of the mean example",
    "ssim_of_nearest_example": "SSIM of the nearest known example",
    "named": "candidate named",
    "guessed": "members guessed",
    "guessed_held_out": "held-out guessed",
    "held_out_minus_imputation": "held-out − imputation",
    "train_minus_held_out": "members − held-out",
    "within_20_percent": "within 20%",
    "accuracy_without_the_graph": "accuracy without the graph",
    "accuracy_by_the_graph": "accuracy gained by the graph",
    "auc_in_graph": "AUC, edges in the graph against edges held out",
    "auc_above_features": "AUC above features alone",
    "auc_above_without_graph": "AUC above a model without the graph",
    **{
        f"auc_{name}": f"AUC by {words}"
        for name, words in {
            "cosine": "cosine distance",
            "euclidean": "Euclidean distance",
            "chebyshev": "Chebyshev distance",
            "braycurtis": "Bray–Curtis distance",
            "canberra": "Canberra distance",
            "cityblock": "city-block distance",
            "sqeuclidean": "squared Euclidean distance",
        }.items()
    },
    "auc_above_label": "AUC above the label alone",
    "auc_members": "AUC, members",
    "auc_non_members": "AUC, others",
    "members_minus_non_members": "members − others",
    "precision_at_density": "precision at the true density",
    "features_precision_at_density": "the same of features alone",
    "next_character": "next character right",
    "next_token": "next token right",
    "bits_per_character": "bits a character",
    "most_frequent_character": "always the most frequent character",
    "most_frequent_token": "always the most frequent token",
    "frequencies_bits_per_character": "by frequencies alone, bits a character",
    "within_a_tenth_of_the_range": "within a tenth of the range",
    "off_by_more_than_20_percent": "off by more than 20%",
    "off_by_more_than_35_percent": "off by more than 35%",
    "statistics_mean_absolute_error": "mean absolute error of noised statistics",
    "median_within_20_percent": "always the median, within 20%",
    "median_within_a_tenth_of_the_range": "always the median, within a tenth of the range",
    "median_mean_absolute_error": "always the median, mean absolute error",
    "exposure": "exposure, most insertions, bits",
    "exposure_by_sampling": "exposure by sampling, most insertions, bits",
    "exposure_sampled": "the same, estimated by sampling, bits",
    "exposure_extrapolated": "the same, estimated by extrapolation, bits",
    "exposure_never_inserted": "exposure, never inserted, bits",
    "ranked_first": "ranked first of all candidates",
    "recovered": "named by the restricted search",
    "recovered_greedy": "said, greedy",
    "recovered_beam": "said, beam search",
    "recovered_sampled": "said in 100 samples",
    "nearly_restricted": "nearly named by the restricted search",
    "nearly_greedy": "nearly said, greedy",
    "nearly_beam": "nearly said, beam search",
    "nearly_sampled": "nearly said in 100 samples",
    "count_email": "e-mail addresses out of training, unasked",
    "count_phone": "phone numbers out of training, unasked",
    "count_card": "card numbers out of training, unasked",
    "count_pin_or_password": "PINs and passwords out of training, unasked",
}
VARIANT_NAMES = {"non_private": "non-private", "clip_only": "clip only", "regularized": "regularized", "dp": "DP"}
OPTION_NAMES = {
    "relax": "RelaxLoss",
    "information_bottleneck": "bottleneck (MID)",
    "bilateral_dependency": "BiDO",
    "bilateral_ratio": "ratio",
    "freeze": "frozen layers (TL-DMI)",
    "freeze_steps": "updates",
    "relax_by": "by",
    "distillation_temperature": "temperature",
    "distillation_learning_rate": "step size",
}
"""Options of regularization whose name is not simply their words."""


def attack_name(name: str) -> str:
    return ATTACK_NAMES.get(name, name)


def metric_name(name: str) -> str:
    rate = _rate(name)
    inserted = INSERTED.fullmatch(name)
    if inserted:
        return f"{INSERTED_NAMES[inserted[1]]}, {inserted[2]} insertion{'' if inserted[2] == '1' else 's'}"
    return f"TPR at {rate} FPR" if rate else METRIC_NAMES.get(name, name.replace("_", " "))


INSERTED = re.compile(r"(exposure|median_exposure|recovered)_inserted_(\d+)")
INSERTED_NAMES = {
    "exposure": "exposure, bits",
    "median_exposure": "median exposure, bits",
    "recovered": "named by the restricted search",
}


def _rate(name: str) -> str:
    """``tpr_at_fpr_0.01`` as ``1%``; empty for every other metric."""
    try:
        return f"{100 * float(name.removeprefix('tpr_at_fpr_')):g}%" if name.startswith("tpr_at_fpr_") else ""
    except ValueError:
        return ""


def measure_name(name: str) -> str:
    """``membership.lira/auc`` in words."""
    attack, _, metric = name.partition("/")
    return f"{attack_name(attack)}: {metric_name(metric)}" if metric else metric_name(name)


def short_name(name: str) -> str:
    """``membership.lira/tpr_at_fpr_0.01`` as ``lira TPR 1%``: axes of a parallel-coordinates view have little room."""
    attack, _, metric = name.partition("/")
    if not metric:
        return metric_name(name)
    rate = _rate(metric)
    short = f"TPR {rate}" if rate else {"auc": "AUC", "identified_top1": "top-1"}.get(metric, metric)
    return f"{attack.split('.')[-1]} {short}"


def is_rate(name: str) -> bool:
    """Whether a measure has a chart and a column of its own in every view: shares between 0 and 1, and bits. Distances between
    inputs, errors of values, medians, near misses, counts and other distances between nodes are in the page's tables alone."""
    return not name.split("/")[-1].startswith(TABLES_ALONE)


TABLES_ALONE = (
    *("distance_", "similarity_", "mean_absolute_error", "statistics_", "median_exposure_", "nearly_", "count_"),
    *("auc_cosine", "auc_euclidean", "auc_chebyshev", "auc_braycurtis", "auc_canberra", "auc_cityblock", "auc_sqeuclidean"),
    *("auc_members", "auc_non_members", "features_precision"),
)


def budget(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else significant(epsilon)


def variant_name(item: Row) -> str:
    """Of a variant: ``DP``, ``clip only``, or ``label smoothing 0.1`` where regularizers are alone."""
    options = [option.partition("=") for option in item.regularizer.split(",") if option]
    words = [f"{OPTION_NAMES.get(name, name.replace('_', ' '))} {value}" for name, _, value in options]
    return ", ".join(words).replace(", by ", " by ") or VARIANT_NAMES[item.variant]


def row_name(item: Row) -> str:
    """Of a row or a series: ``DP, ε = 8``, or the variant's name."""
    name = variant_name(item)
    return f"{name}, ε = {budget(item.epsilon)}" if item.variant == "dp" else name


def variant_key(item: Summary | RunResult) -> str:
    """The variant in one word, such as ``clip_only`` or ``regularized-label_smoothing=0.1``."""
    return f"{item.variant}-{item.regularizer}" if item.regularizer else item.variant


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def interval(measure: Measure | None) -> str:
    """``0.585 [0.556, 0.613]``; a dash where nothing was measured."""
    if measure is None or measure.value is None:
        return "–"
    if measure.low is None or measure.high is None:
        return number(measure.value)
    return f"{number(measure.value)} [{number(measure.low)}, {number(measure.high)}]"
