"""The Text tab: what was found, how to read each tab, what verdicts mean, and what not to conclude."""

from evaluation.report import wording
from evaluation.report.board import trials
from evaluation.result import ComparisonResult, TextSample

MOST_RUNS, COLOURS = 40, 7
"""More runs than this TensorBoard switches off at first; and it has as many colours."""
NOT_TO_CONCLUDE = (
    "*found nothing* is no proof of safety: another attack, more shadow models or more examples may find something. What "
    "holds for every attack on membership is what the plan permits.",
    "An attack that stays far below what the plan permits is no better guarantee. It may be a weak attack.",
    "Lines between two budgets are drawn, not measured. Where bands overlap, no difference is shown; a band over few seeds is "
    "wide because little is known.",
    "An AUC near 0.5 can hide a few examples that leak: look at the true positive rates at low false positive rates, on the "
    "logarithmic ROC, and at the share of examples that leak by themselves.",
    "An audit's bound below the claimed ε does not make ε smaller. It says what this game could show, and its ceiling says "
    "what it could have shown at most.",
    "Choosing the best row of HParams is itself a look at the private data, which no single run's ε covers.",
    "A reconstruction that looks like its class shows the class. Only what goes beyond public examples, and beyond examples "
    "that were not trained on, is a leak of training.",
)


def found(result: ComparisonResult) -> str:
    """The result in sentences, and what is broken."""
    lines = [result.title, *wording.answer(result), *wording.broken(result)]
    command = result.command.replace("`", "'")
    return "\n\n".join(_safe(line) for line in lines) + (f"\n\n`{command}`" if command else "")


def how_to_read(result: ComparisonResult) -> dict[str, str]:
    """Each tab, each verdict, and what not to conclude: cards of their own, as TensorBoard cuts long ones off."""
    no_dp = f"{trials.no_privacy(result):g}"
    blocks = [
        "**Images**, and the first groups of **Time Series**: click a picture to enlarge it. *Over ε*: what the model is worth "
        "and each attack, smaller ε at the left, without privacy behind the break at the right. *Closer*: ROC of all budgets, "
        "axes logarithmic, so that few members found with hardly any false alarm can be seen; bars are 95% intervals at the "
        "rates that were measured, dotted lines the most that each plan permits. Reconstructions: the same classes under each "
        "ε side by side, beside what members look like and what is public. The dot with an i, in "
        "**Images**, has the picture in words.",
        "**Custom Scalars**: one chart a measure. The axis is TensorBoard's step, here 1000·ε: 1k is ε = 1, 8k is ε = 8. The "
        "band is the 95% interval over seeds; untick *Ignore outliers in chart scaling* to see all of a wide one. Without "
        "privacy there is no ε, so that figure stands in the title. A second chart has the same line in a band that reaches "
        "from chance to the most that the plan permits. *Audits*: the claimed ε as a line, in a band from the lower bound that "
        "was shown to the most that the game could have shown. *Guards*: what the strongest attack gets through each.",
        "**Scalars** and **Time Series** draw the group *tradeoff* on the same axis of 1000·ε, smoothed at first: set "
        "smoothing to 0, or read Custom Scalars. The other groups are models over training steps.",
        f"**HParams**: one row a model. Without privacy, ε is shown as {no_dp}, as every axis says. In *scatter plot matrix "
        "view* put epsilon against a metric, logarithmic if you like.",
        "**PR curves**: these are ROC curves. Read *recall* as the false positive rate and *precision* as the true positive "
        "rate. A chart *permitted* shows the largest ROC that each privacy plan allows. Axes are linear; the logarithmic ones "
        "are on Images.",
    ]
    cards = {"1 the tabs": "\n\n".join([*blocks, *_crowded(result)])}
    if words := wording.verdict_words(result):
        cards["2 verdicts"] = "\n".join(f"* *{word}*: {meaning}" for word, meaning in words.items())
    cards["3 what not to conclude"] = "\n".join(f"* {line}" for line in NOT_TO_CONCLUDE)
    not_covered = [*map(_safe, result.not_covered), wording.COMPUTED_FROM_MEMBERS]
    return cards | {"4 what ε does not cover": "\n".join(f"* {line}" for line in not_covered)}


def _crowded(result: ComparisonResult) -> list[str]:
    """What TensorBoard does where there are many runs."""
    said = []
    kinds = len({run.kind for run in result.runs})
    if len(result.runs) + 1 > MOST_RUNS:
        said.append(
            f"**{len(result.runs) + 1} runs**: beyond {MOST_RUNS}, TensorBoard switches all off at first, and charts are "
            f"empty. Type `tradeoff|seed={result.runs[0].seed}$` into *Write a regex to filter runs* (in Time Series, *Filter "
            "runs*) and they are drawn."
        )
    if kinds > COLOURS:
        said.append(
            f"**Colours** repeat after {COLOURS} runs, and {kinds} budgets and baselines are drawn over each other on the PR "
            "tab: point at a line to read whose it is, or look at the pictures, whose lines also differ in kind."
        )
    return said


def said(texts: tuple[TextSample, ...]) -> str:
    """Made-up secrets and what the model says in their place, as a table."""
    lines = ["| before it | the secret | the model says | trained on | exposure, bits |", "|---|---|---|---|---|"]
    for text in texts:
        shown = wording.visible(text.said).replace("`", "'").replace("|", "¦")
        known = f"{wording.insertions(text)} | {wording.number(text.exposure, 1)}"
        lines.append(f"| {text.before} | `{text.secret}` | `{shown}` | {known} |")
    return wording.WHAT_IT_SAYS + "\n\n" + "\n".join(lines)


def _safe(line: str) -> str:
    """A title or an error's text, which may hold what Markdown would obey."""
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|" else letter for letter in line)
