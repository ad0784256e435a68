"""The result as one HTML page that stands alone: no network, figures as SVG, pictures inline, one small script that sorts.

    write(result, Path("runs/digits"), Path("runs/digits/report.html"))
    write(result, Path("runs/digits"), Path("runs/digits/shared.html"), shared="without per-example leaks")

The answer comes first, then the curve, who is worth more and gives away less, all attacks under all budgets, what each row
buys, controls, ROC, pictures, the plan and its assumptions, what the data have spent, what was not tested, and how to get it
again. The same result gives the same page, byte for byte. It stays under 2 MB: drawings and pictures have a share each, and
what does not fit is left out and said (:mod:`evaluation.report.sections`).

*Shared.* The page is made from members. ``report.html`` shows what an attacker and whoever holds the data see together: means
of a class's members beside reconstructions, shares of examples that leak, the fingerprint of the content. A page that leaves
the house is made with ``shared``, and leaves these out. Members' own examples are on neither, whatever is asked for: rows of
single members are left out of pictures (:func:`evaluation.report.sections.is_of_no_member`), and those that leak stand on the
page of :mod:`evaluation.report.private`, so that no flag forgotten or given by mistake can send them.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from dptrain.files import write_file
from dptrain.rounding import down, up
from evaluation.report import bought, figures, guards, sections, wording
from evaluation.result import ComparisonResult

PAGE = Path(__file__).with_name("page")
PRIVATE = Path("private") / "vulnerable.html"
"""Of the page with members' examples, in the comparison's folder; ``evaluation.report.private`` writes it."""
Shared = Literal["no", "without per-example leaks", "with per-example leaks"]
WITHHELD = (
    "This copy is for others: pictures (among them averages of members){leaks} and fingerprints are left out. They stand in "
    "report.html, beside the data."
)


def write(result: ComparisonResult, root: Path, path: Path, shared: Shared = "no") -> None:
    """Writes the page so that a reader sees the old one or this one, never a part.

    Args:
        root: the comparison's folder, where pictures of attacks are found.
        shared: whether the page will leave the house; see the module.
    """
    write_file(path, render(result, root, shared).encode())


def render(result: ComparisonResult, root: Path, shared: Shared = "no") -> str:
    leaks = "" if shared == "with per-example leaks" else ", which share of examples leaks by itself"
    pictures, pictures_left_out = ([], "") if shared != "no" else sections.pictures(result, root)
    place = wording.WHERE_EXAMPLES_ARE if (root / PRIVATE).exists() else wording.NO_EXAMPLES_KEPT
    drawings = sections.Drawings(result)
    return fill(
        "report.html.jinja",
        result=result,
        shared=shared,
        withheld="" if shared == "no" else WITHHELD.format(leaks=leaks),
        answer=wording.answer(result),
        choice=wording.choice(result),
        alarms=sections.alarms(result),
        findings=wording.findings(result),
        through_guards=guards.answer(result),
        tradeoffs=drawings.tradeoffs(),
        fronts=drawings.fronts(),
        rocs=drawings.rocs(),
        compact=sections.compact(result),
        verdict_of=sections.verdict_of,
        worth=sections.worth(result),
        bought=bought,
        exchanges=result.exchanges,
        tables=[sections.table(result, attack) for attack in sections.strongest_first(result)],
        guards=guards,
        guarded=guards.compared(result),
        controls=sections.beside(result),
        exposed=None if shared == "without per-example leaks" else sections.exposed(result, place),
        pictures=pictures,
        pictures_left_out=pictures_left_out,
        said=wording.secrets_said(result),
        audits=sections.audits(result),
        guarantees=sections.guarantees(result),
        plans=sections.plans(result),
        spending=wording.spending(result),
        left_out=wording.left_out(result),
        verdicts=wording.verdict_words(result),
        broken=[*wording.broken(result), *guards.failures(result)],
        notes=sorted({f"{run.label}: {note}" for run in result.runs for note in run.notes}),
    )


def fill(template: str, **given: Any) -> str:
    """A page from its template: the style and script that all pages share, and no text that is taken for markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": wording.interval,
        "number": wording.number,
        "budget": wording.budget,
        "up": up,
        "down": down,
    }
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    shared = {
        "wording": wording,
        "style": Markup((PAGE / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_digest": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "contents": contents,
    }
    return environment.get_template(template).render(**shared, **given) + "\n"


def contents(body: str) -> list[tuple[str, Markup]]:
    """Place and title of each part of a page, as they stand in it."""
    return [(place, Markup(title)) for place, title in re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body)]


def as_markup(figure: Any, name: str) -> Markup:
    """A drawing to stand in a page; ids in it begin with ``name``."""
    return Markup(figures.as_svg(figure, name))
