"""What the views call things, so that one thing has one name in all of them."""

import dataclasses
import math
import re

from evaluation.result import (
    VERDICTS,
    AttackResult,
    AuditCheck,
    AuditResult,
    Bought,
    ComparisonResult,
    Measure,
    RunResult,
    Summary,
    TextSample,
)

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

COMPUTED_FROM_MEMBERS = (
    "The figures and pictures here are computed from members without noise: ε does not cover them. Do not publish them as "
    "they are where the membership or the examples are secret."
)

ALONE = (
    "Each audited example is attacked by itself: over the shadow models that had it and those that had not, what would an "
    "attacker get who knows everything but this example's membership? It is flagged where an exact rank test says that it "
    "leaks; of those flagged, at most one in twenty is expected to be there by chance. Its own TPR, at 1% FPR, is an estimate "
    'that a few dozen models make large or small by chance; "by chance", dotted, is how often that happens where the same '
    "answers are dealt to models at random."
)
WHERE_EXAMPLES_ARE = (
    "Which examples these are is shown on another page, private/vulnerable.html beside this one. It is no part of this report, "
    "since it holds members' examples as they are and says who was trained on; it is for whoever holds the data."
)
NO_EXAMPLES_KEPT = (
    "Which examples these are is no part of this report, since it says who was trained on; the page private/vulnerable.html "
    "shows them once `dptrain evaluate RUN` has attacked the models again, beside the data."
)
MEMBERS_THEMSELVES = (
    "This page holds examples of the training set as they are, and says which of them leak. No ε covers it. Do not publish it, "
    "do not put it into a repository, and send it to nobody who may not see the data."
)


HOW_NEAR = (
    "Distances are root mean squares, in units of an input or in the embedding of whoever judges. Nearer to private than to "
    "public examples shows the class, and of people the person: means of held-out images do so too. Nearer to members than to "
    "held-out examples, of which there are as many, shows what was trained on. Below, the same of what needs no model."
)

CHOSEN_ON = {
    ("faces", attack): (
        "Its settings were chosen on models of other halves of the same forty people, in which some who are private here were "
        "attacked: for these people it may look a little better than for others."
    )
    for attack in ("inversion.prior", "inversion.scores", "inversion.labels")
}
"""Where settings were chosen with a part of what they are now judged on, by data set and attack."""

RIGHT = {
    "next_character": "right about the next character",
    "next_token": "right about the next token",
    "within_20_percent": "within 20% of the true value",
    "within_a_tenth_of_the_range": "within a tenth of the value's public range",
}
"""What a model is where it is right, by the headline of what it is worth."""


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
    return "∞" if math.isinf(epsilon) else f"{epsilon:g}"


def variant_name(item: Summary | RunResult | Bought) -> str:
    """Of a variant: ``DP``, ``clip only``, or ``label smoothing 0.1`` where regularizers are alone."""
    options = [option.partition("=") for option in item.regularizer.split(",") if option]
    words = [f"{OPTION_NAMES.get(name, name.replace('_', ' '))} {value}" for name, _, value in options]
    return ", ".join(words).replace(", by ", " by ") or VARIANT_NAMES[item.variant]


def row_name(item: Summary | RunResult | Bought) -> str:
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


def audit_name(found: AuditResult, result: ComparisonResult) -> str:
    """Of a row: the budget, the checkpoint where it is not the last, and whether the recipe is one that ran here."""
    where = f", step {found.step}" if found.step != found.steps else ""
    whose = (
        "" if any(run.recipe_digest == found.recipe_digest for run in result.runs) else ", of a recipe that did not run here"
    )
    return f"ε = {'–' if found.budget is None else budget(found.budget)}{where}{whose}"


def audit_verdict(found: AuditResult) -> str:
    return "not contradicted" if found.ok else "CONTRADICTED"


def seen(check: AuditCheck) -> str:
    """What a plan states, what was seen, and whether the one holds beside the other."""
    low, high = check.seen.low, check.seen.high
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"stated {check.stated:.4g}, seen {check.seen.value:.4g}{interval}: {'holds' if check.ok else 'BROKEN'}"


def exposure_in_words(result: ComparisonResult) -> str:
    """The drawing of how the leak is spread, for who cannot see it."""
    told = [
        f"{row_name(item)}: {interval(item.exposure.striking)}, by chance {number(item.exposure.striking_by_chance, 4)}"
        for item in result.summary
        if item.exposure is not None
    ]
    return "Share of examples whose own TPR at 1% FPR lies above 10%. " + "; ".join(told) + "."


def find(summary: Summary, name: str) -> Measure | None:
    """A measure by its name: of an attack (``<attack>/<metric>``), or of what the model is worth."""
    every = (summary.utility, *summary.further_utility, *summary.measures)
    return next((measure for measure in every if measure.name == name), None)


def utility_names(result: ComparisonResult) -> list[str]:
    """The measures of what a model is worth, the headline first."""
    return list(dict.fromkeys(item.name for summary in result.summary for item in (summary.utility, *summary.further_utility)))


def unit_of_value(result: ComparisonResult) -> list[str]:
    """In which unit errors are, where a value is predicted."""
    value = result.data.get("value")
    return [f"What is predicted is {value['name']}; its errors are in {value['unit']}."] if value else []


def measure_names(result: ComparisonResult) -> list[str]:
    """Every ``<attack>/<metric>`` that occurs, in order of first sight."""
    return list(dict.fromkeys(measure.name for summary in result.summary for measure in summary.measures))


def measured_names(result: ComparisonResult) -> list[str]:
    """Those of :func:`measure_names` that can be drawn: shares with a value for at least one model."""
    found = {item.name for summary in result.summary for item in summary.measures if item.value is not None}
    return [name for name in measure_names(result) if name in found and is_rate(name)]


def headlines(result: ComparisonResult) -> dict[str, str]:
    """Attack to the ``<attack>/<metric>`` that it is judged by."""
    found: dict[str, str] = {}
    for run in result.runs:
        for attack in run.attacks:
            if attack.status == "ok":
                found.setdefault(attack.name, f"{attack.name}/{attack.metric}")
    return found


def attacks(result: ComparisonResult) -> list[str]:
    """Every attack that occurs, also where it failed."""
    return list(dict.fromkeys(attack.name for run in result.runs for attack in run.attacks))


def applicable(result: ComparisonResult) -> list[str]:
    """Every attack that ran on at least one model, also where it failed; :func:`broken` names the others."""
    ran = {attack.name for run in result.runs for attack in run.attacks if attack.status != "not_applicable"}
    return [name for name in attacks(result) if name in ran]


def chances(result: ComparisonResult) -> dict[str, float]:
    """``<attack>/<metric>`` to what an attack without any signal gets."""
    found: dict[str, float] = {}
    for attack in (attack for run in result.runs for attack in run.attacks if attack.status == "ok"):
        if attack.chance is not None:
            found[f"{attack.name}/{attack.metric}"] = attack.chance
        found |= {f"{attack.name}/{metric}": chance for metric, chance in attack.chance_metrics.items()}
    return found


def judges(result: ComparisonResult, attack: str) -> list[str]:
    """How accurate those are who judge an attack's pictures: the lowest and the highest over all runs."""
    found: dict[str, list[float]] = {}
    for item in (item for run in result.runs for item in run.attacks if item.name == attack):
        for judge in item.judges:
            found.setdefault(judge.name, []).append(judge.value or 0.0)
    return [f"{name.replace('_', ' ')} {min(values):.2f} to {max(values):.2f}" for name, values in found.items()]


def likeness_without_model(result: ComparisonResult, attack: str) -> dict[str, dict[str, Measure]]:
    """Who has no model, to the distances and similarities of what he has: no model has a part in them, so the first row's."""
    found: dict[str, dict[str, Measure]] = {}
    for measure in result.summary[0].beside if result.summary else ():
        name, _, rest = measure.name.partition("/")
        who, _, metric = rest.partition("/")
        if name == attack and metric:
            found.setdefault(who, {})[metric] = measure
    return found


def levels(result: ComparisonResult, name: str) -> dict[str, float]:
    """What those who have no model get, as one level for all rows (no model has a part in it), where that is a part of an
    attack's curve: of an attribute inference the prior, imputation and the ideal."""
    attack, _, metric = name.partition("/")
    curves = (headlines(result).get(attack), f"{attack}/guessed_held_out")  # they are of the people of the second
    if not attack.startswith("attribute.") or f"{attack}/{metric}" not in curves:
        return {}
    about_it = about(result, attack)
    names = [] if about_it is None else [item.name for item in about_it.baselines]
    known = {name: beside(result.summary[0], attack, name) for name in names}
    return {name.replace("_", " "): value for name, value in known.items() if value is not None}


def beside(summary: Summary, attack: str, name: str) -> float | None:
    """The mean over seeds of one of an attack's baselines or controls."""
    return next((item.value for item in summary.beside if item.name == f"{attack}/{name}"), None)


def broken(result: ComparisonResult) -> list[str]:
    """What failed or did not apply, one sentence each; the same reason on several models is one sentence."""
    lines = [f"FAILED: {failure}" for failure in result.failures]
    lines += [f"CONTRADICTED: {sentence}" for sentence in contradicted(result)]
    unfinished: dict[tuple[str, str, str], list[str]] = {}
    for run in result.runs:
        for attack in run.attacks:
            if attack.status != "ok":
                unfinished.setdefault((attack.status, attack.name, attack.reason), []).append(run.label)
    return lines + [
        f"{status.replace('_', ' ').upper()}: {name} on {_which(labels, len(result.runs))}: {reason}"
        for (status, name, reason), labels in sorted(unfinished.items(), key=lambda item: item[0][0])
    ]


def contradicted(result: ComparisonResult) -> list[str]:
    """Audits that refute a claim, one sentence each."""
    return [
        f"{audit_name(found, result)}: a {found.how} audit refutes the claim: {'; '.join(found.contradictions)}"
        for found in result.audits
        if not found.ok
    ]


def _which(labels: list[str], models: int) -> str:
    if len(labels) == models > 1:
        return f"all {models} models"
    return ", ".join(labels)


def verdict_words(result: ComparisonResult) -> dict[str, str]:
    """Every verdict that the views show, to what it means."""
    shown = {verdict for summary in result.summary for verdict in summary.verdicts.values()}
    shown |= {attack.verdict for run in result.runs for attack in run.attacks if attack.status == "ok"}
    shown |= {verdict for summary in result.summary for item in summary.guarded for verdict in item.verdicts.values()}
    shown = {part for verdict in shown for part in verdict.split("; ")}
    words = {verdict.split(" (")[0] for verdict in shown}
    found = {word: meaning for word, meaning in VERDICTS.items() if word in words}
    if any(verdict.endswith(" failed") for verdict in shown):
        found["failed"] = "the attack broke on so many of the models; figures are of the others, and say nothing of these"
    if any(verdict.endswith(" not applicable") for verdict in shown):
        found["not applicable"] = "the attack cannot be run on so many of the models; that does not make them safe"
    return found


def about(result: ComparisonResult, attack: str) -> AttackResult | None:
    """One result of this attack that is whole, for its paper, access and chance."""
    return next((item for run in result.runs for item in run.attacks if item.name == attack and item.status == "ok"), None)


def answer(result: ComparisonResult) -> list[str]:
    """The result in sentences: what each end of the budgets keeps, and what the strongest attack still gets."""
    non_private = next((item for item in result.summary if item.variant == "non_private"), None)
    private = sorted((item for item in result.summary if item.variant == "dp"), key=lambda item: -item.epsilon)
    sentences: list[str] = []
    if non_private is not None:
        right, how = _percent(non_private.utility), RIGHT.get(non_private.utility.name, "right")
        found = f"{_strongest(non_private)}{_drawn(non_private)}"
        sentences.append(f"Without privacy the model is {how} on {right} of held-out examples{found}.")
    ends = [private[0], private[-1]] if len(private) > 1 else private
    if not result.summary:
        return ["No model was trained; what failed is said below."]
    sentences += [
        f"At ε = {budget(item.epsilon)} it keeps {_percent(item.utility)}{_strongest(item)}{_drawn(item)}." for item in ends
    ]
    return sentences + _attributes(result) + _secrets(result) + _graph(result)


def _areas(summary: Summary, family: str) -> list[Measure]:
    return [item for item in summary.measures if item.name.startswith(family) and item.name.endswith("/auc")]


def _ends(result: ComparisonResult) -> list[Summary]:
    """The non-private row, and the private ones at both ends of the budgets."""
    private = [item for item in result.summary if item.variant == "dp"]
    shown = [item for item in result.summary if item.variant == "non_private"]
    return [*shown, *([private[0], private[-1]] if private[1:] else private)]


def _graph(result: ComparisonResult) -> list[str]:
    """What a graph adds to a model, and how well the attack that finds most edges tells them."""
    rows, sentences = _ends(result), list[str]()
    gained = [(item, found) for item in rows if (found := find(item, "accuracy_by_the_graph")) and found.value is not None]
    if gained:
        told = ", ".join(f"{100 * (found.value or 0.0):+.1f} points ({row_name(item)})" for item, found in gained)
        vain = [row_name(item) for item, found in gained if found.low is None or found.low <= 0]
        worth = f" It is not shown to be worth anything at {' and '.join(vain)}." if vain else ""
        sentences.append(f"Than a model that ignores all edges it is more accurate by {told}.{worth}")
    rated = [item for item in _areas(rows[0], "link.") if item.value is not None] if rows else []
    if rated:
        best = max(rated, key=lambda item: item.value or 0.0)
        attack = best.name.split("/")[0]
        each = [(item, find(item, best.name), item.verdicts.get(attack, "none")) for item in rows]
        told = ", ".join(
            f"{number(found.value)} ({row_name(item)}; {word})"
            for item, found, word in each
            if found and found.value is not None
        )
        features = beside(rows[0], attack, "features")
        alone = "" if features is None else f"; features alone, without a model, have {number(features)}"
        name = attack_name(attack)
        sentences.append(f"{name[0].upper()}{name[1:]}, tell linked nodes from others with an AUC of {told}{alone}.")
    return sentences


def _secrets(result: ComparisonResult) -> list[str]:
    """How far made-up secrets are narrowed down by the non-private model, and by the private ones at both ends."""
    label = "extraction.exposure/exposure"
    rated = [(item, found) for item in result.summary if (found := find(item, label)) is not None and found.value is not None]
    ends = _ends(result)
    shown = [pair for pair in rated if pair[0] in ends]
    if not shown:
        return []
    count = max((text.insertions for _, texts in secrets_said(result) for text in texts), default=0)
    verdicts = [item.verdicts.get("extraction.exposure", "none") for item, _ in shown]
    told = [
        f"{found.value:.1f} bits ({row_name(item)}; {verdict})" for (item, found), verdict in zip(shown, verdicts, strict=True)
    ]
    never = find(shown[0][0], f"{label}_never_inserted")
    beside = f"; of one that it was not trained on, {never.value:.1f}" if never is not None and never.value is not None else ""
    return [f"Of a made-up secret that stands in {count} examples the model gives away {', '.join(told)}{beside}."]


def secrets_said(result: ComparisonResult) -> list[tuple[str, tuple[TextSample, ...]]]:
    """What the first seed of every row says in the place of some made-up secrets, everything that attacks found of each
    together."""
    rows: list[tuple[str, tuple[TextSample, ...]]] = []
    for item in result.summary:
        first = next(run for run in result.runs if run.kind == item.kind)
        merged: dict[tuple[str, str], TextSample] = {}
        for text in (text for attack in first.attacks for text in attack.texts):
            known = merged.get((text.before, text.secret), text)
            exposure = text.exposure if known.exposure is None else known.exposure
            merged[text.before, text.secret] = dataclasses.replace(known, exposure=exposure, guess=known.guess or text.guess)
        if merged:
            rows.append((row_name(item), tuple(merged.values())))
    return rows


def insertions(text: TextSample) -> str:
    """Whether a secret was trained on, and how often."""
    return f"{text.insertions}×" if text.inserted else "never"


def visible(text: str) -> str:
    """A generated text on one line, with its line breaks to be seen."""
    return text.replace("\n", "⏎")


WHAT_IT_SAYS = (
    "Made-up secrets, nobody's, and what the model says in their place: the most probable character after each other. A secret "
    "is exposed by as many bits as the model narrows it down among all that it might be. The first ones of each number of "
    "insertions are shown, not the best; those never inserted are controls."
)


WHOSE = {
    "of the population": "the model gives away what holds of the population, and no more of its members that was shown",
    "leak": "the model gives away its own members",
    "within the plan": "the model gives away its own members, within what the plan permits",
    "above the plan": "the model gives away its own members, beyond what the plan permits",
    "nothing beyond public": "whoever has no model guesses as well",
}
"""What a verdict on an attribute inference says, in a sentence about the model."""


def _attributes(result: ComparisonResult) -> list[str]:
    """What follows from the attribute inference that guesses most: whose secret it is, and what a tree would give away."""
    means: dict[str, float] = {}
    for item in result.summary[:1]:
        for measure in item.measures:
            attack, _, metric = measure.name.partition("/")
            if attack.startswith("attribute.") and metric == "guessed" and measure.value is not None:
                means[attack] = measure.value
    if not means:
        return []
    attack, first = max(means, key=lambda name: means[name]), result.summary[0]
    held_out, imputation = find(first, f"{attack}/guessed_held_out"), beside(first, attack, "imputation")
    others = _percent(held_out) if held_out else "an unknown share"
    outcome = beside(first, attack, "imputation_with_outcome")
    with_it = "" if outcome is None else f", and with the true outcome {100 * outcome:.0f}%"
    imputed, whose = 100 * (imputation or 0.0), WHOSE.get(first.verdicts.get(attack, ""), "see below")
    said = (
        f"The hidden column is guessed for {100 * means[attack]:.0f}% of the members of the first row ({row_name(first)}) and "
        f"for {others} of people who were not trained on, where imputation without a model guesses {imputed:.0f}%{with_it}: "
        f"{whose}."
    )
    own, apart = (beside(first, attack, name) for name in ("grown_tree", "grown_tree_held_out"))
    if own is None or apart is None:
        return [said]
    shares = f"{100 * own:.0f}% of them against {100 * apart:.0f}% of others"
    return [said, f"A fully grown tree of the same members gives them away: {shares}."]


def _percent(measure: Measure) -> str:
    return "an unknown share" if measure.value is None else f"{100 * measure.value:.1f}%"


def _drawn(summary: Summary) -> str:
    """The class inversion of whose pictures most are recognised."""
    rated = [item for item in summary.measures if item.name.endswith("/identified_top1") and item.value is not None]
    if not rated:
        return ""
    best = max(rated, key=lambda item: item.value or 0.0)
    attack = best.name.split("/")[0]
    verdict = summary.verdicts.get(attack, "none")
    name = attack_name(attack)
    of = f", the best of {len(rated)} inversions," if len(rated) > 1 else ""
    return f"; of the classes as {name[0].lower()}{name[1:]}{of} draws them, a judge recognises {interval(best)} ({verdict})"


def _strongest(summary: Summary) -> str:
    """The membership attack with the largest AUC."""
    rated = [item for item in _areas(summary, "membership.") if item.value is not None]
    if not rated:
        return ""
    best = max(rated, key=lambda item: item.value or 0.0)
    attack = best.name.split("/")[0]
    allowed = summary.permitted.get(best.name)
    limit = f", of at most {allowed:.3f} that the plan permits" if allowed is not None else ""
    verdict = summary.verdicts.get(attack, "none")
    return (
        f", and the strongest membership attack ({attack_name(attack)}) reaches an AUC of {interval(best)}{limit} ({verdict})"
    )
