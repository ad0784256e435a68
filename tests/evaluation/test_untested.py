"""What was not tested is computed from the registry and the result."""

import dataclasses
from pathlib import Path

import pytest

from evaluation.plan import ATTACKS
from evaluation.report import wording
from evaluation.result import Untested
from evaluation.untested import untested
from tests.evaluation.report_fixture import INVERSION, LIRA, audited, synthetic


def of(root: Path, data: dict | None = None, evaluation: dict | None = None, recipe: dict | None = None, **given) -> Untested:
    result = synthetic(root, **{"budgets": (8.0,), "seeds": (0,), "broken": False, **given})
    facts = {**result.data, **(data or {})}
    return untested(result.runs, result.summary, facts, evaluation or {}, recipe or {}, result.audits)


def test_every_registered_attack_that_fits_and_did_not_run_is_named(tmp_path: Path):
    found = of(tmp_path, attacks=(LIRA, INVERSION))
    ran_or_other = {LIRA, INVERSION, "membership.answers", "membership.ranks"}
    for name in ATTACKS.names():
        other = name.startswith(("link.", "node.", "extraction.", "attribute.")) or ATTACKS.about()[name].startswith("text: ")
        assert (name in found.attacks) == (not other and name not in ran_or_other), name


@pytest.mark.parametrize(
    ("data", "evaluation", "named", "absent"),
    [
        ({"kind": "graph"}, {}, "link.influence", "inversion.class"),
        ({"kind": "table"}, {"hidden": "age"}, "attribute.map", "membership.zlib"),
        ({"kind": "table"}, {}, "inversion.informed", "attribute.map"),
        ({"kind": "text"}, {}, "membership.rmia", "extraction.exposure"),
    ],
)
def test_the_kind_of_data_decides(tmp_path: Path, data: dict, evaluation: dict, named: str, absent: str):
    found = of(tmp_path, data, evaluation)
    assert named in found.attacks
    assert absent not in found.attacks


def test_an_attack_of_somebody_elses_is_named_too(tmp_path: Path):
    name = "membership.of_a_test_of_untested"
    ATTACKS.register(name, "made up")(object)
    try:
        assert of(tmp_path).attacks[name] == "made up"
    finally:
        del ATTACKS._added[name]


def test_a_split_without_coins_has_no_membership_attacks_to_miss(tmp_path: Path):
    found = of(tmp_path, recipe={"data": {"split": {"per_class": 7, "members_are": "drawn"}}})
    assert not any(name.startswith("membership.") for name in found.attacks)


def test_access_shadows_seeds_twins_and_audits(tmp_path: Path):
    found = of(tmp_path, attacks=(LIRA,), variants=())
    assert found.access == ("label", "top-k", "logits", "gradients", "weights")
    assert found.shadow_models is None
    assert found.seeds == 1
    assert found.rows_without_twin == ("eps=08.00/seed=0",)
    assert found.budgets_without_audit == (8.0,)
    result = audited(synthetic(tmp_path, budgets=(4.0, 2.0), seeds=(0,), broken=False))
    assert result.untested is not None
    assert result.untested.budgets_without_audit == (2.0,)
    assert result.untested.unfinished == ("extraction.secrets",)
    assert result.untested.unresolved == ("membership.threshold/tpr_at_fpr_0.01",)


def test_the_words_name_what_to_type(tmp_path: Path):
    said = " ".join(wording.left_out(synthetic(tmp_path, budgets=(8.0,), seeds=(0,), broken=False)))
    assert "`dptrain evaluate RUN --attacks NAME`" in said
    assert "No audit tried to refute what is claimed at ε = 8; `dptrain audit RECIPE` plays one." in said
    assert "Some rows were trained once" in said
    assert wording.left_out(dataclasses.replace(synthetic(tmp_path, budgets=(), seeds=(0,)), untested=None)) == []
