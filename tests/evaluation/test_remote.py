"""Attacks over HTTP meet what a client meets: the guard, the keys, the limits; and see what the same guard shows at home."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dptrain.errors import UserError
from dptrain.release.limits import Limits
from evaluation.access import Access, AccessError
from evaluation.completed import completed
from evaluation.membership import Knowledge, LabelledExamples
from evaluation.membership.ranks import ranks
from evaluation.membership.robustness import NoiseRobustness
from evaluation.remote import RemoteTarget, ServerError, _read
from evaluation.target import Target
from tests.dptrain.release import served

INPUTS = torch.rand(300, 8, 8, generator=torch.Generator().manual_seed(0))
GUARDS = (None, "label_only", "labels3", "top3", "rounded", "top6-rounded", "reject0.148-top5-rounded2", "noisy_max8")


@pytest.mark.parametrize("guard", GUARDS)
def test_what_is_seen_over_http_is_what_the_guard_shows_at_home(tmp_path: Path, guard: str | None):
    """Of a random network of ten classes, whose largest score is between .128 and .180: the last guard refuses some."""
    release = served.digits(tmp_path / "release")
    app = served.app_of(release, guard_text=guard)
    at_home = Target.open(release, Access.SCORES)
    at_home.guard = app.state.service.predictor.guard
    with served.serving(app) as address:
        target = RemoteTarget.connect(address)
        scores, labels = target.scores(INPUTS), target.labels(INPUTS)
    assert (target.classes, target.bounds, target.queries) == (10, (0.0, 1.0), 600)
    assert (target.guard is None) == (guard is None)
    if target.guard is not None:
        assert at_home.guard is not None
        assert target.guard.statement() == at_home.guard.statement()
        with pytest.raises(UserError, match="stands at the server"):
            target.guard.answers(INPUTS, np.zeros((len(INPUTS), 10)))
    np.testing.assert_allclose(scores, at_home.scores(INPUTS), atol=1e-9)
    if guard is not None:
        assert np.array_equal(ranks(scores), ranks(at_home.scores(INPUTS)))
    if guard is not None and guard.startswith("reject"):
        assert 0 < (labels == -1).sum() < len(labels)
    assert labels.tolist() == at_home.labels(INPUTS).tolist()


def test_an_attack_that_asks_a_server_scores_as_at_home(tmp_path: Path):
    release = served.digits(tmp_path / "release")
    examples = LabelledExamples(INPUTS[:40], torch.arange(40) % 10, np.arange(40))
    with served.serving(served.app_of(release, guard_text="top5-rounded")) as address:
        found = NoiseRobustness().run(RemoteTarget.connect(address).behind(Access.LABEL), examples, Knowledge())
    at_home = NoiseRobustness().run(Target.open(release, Access.LABEL), examples, Knowledge())
    assert found.tolist() == at_home.tolist()
    assert len(set(found.tolist())) > 1


def test_a_language_model_is_read_place_by_place(tmp_path: Path):
    release = served.text(tmp_path / "release")
    tokens = torch.randint(1, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    at_home = Target.open(release, Access.SCORES)
    with served.serving(served.app_of(release)) as address:
        target = RemoteTarget.connect(address)
        logs, state = target.read(tokens[:, :4])
        further, _ = target.read(tokens[:, 4:6], state)
        likelihoods = target.log_likelihoods(tokens[:, :-1], tokens[:, 1:])
        means, deviations = target.surprise(tokens[:, :3])
    first, state = at_home.read(tokens[:, :4])
    second, _ = at_home.read(tokens[:, 4:6], state)
    np.testing.assert_allclose(logs, first, atol=1e-6)
    np.testing.assert_allclose(further, second, atol=1e-6)
    np.testing.assert_allclose(likelihoods, at_home.log_likelihoods(tokens[:, :-1], tokens[:, 1:]), atol=1e-5)
    expected = at_home.surprise(tokens[:, :3])
    np.testing.assert_allclose(means, expected[0], atol=1e-5)
    np.testing.assert_allclose(deviations, expected[1], atol=1e-5)


def test_an_attacker_of_a_server_sees_scores_at_most(tmp_path: Path):
    target = RemoteTarget("http://127.0.0.1:9", classes=("a", "b"), bounds=(0.0, 1.0))
    for access in (Access.LOGITS, Access.GRADIENTS, Access.WEIGHTS):
        with pytest.raises(AccessError, match="attack the release instead"):
            target.behind(access)
    with pytest.raises(AccessError):
        target.logits(INPUTS)
    with pytest.raises(AccessError, match="sees label and asked for scores"):
        target.behind(Access.LABEL).scores(INPUTS)


def test_a_refusal_is_an_error_with_what_the_server_said(tmp_path: Path):
    app = served.app_of(served.digits(tmp_path / "release"), limits=Limits(queries=100))
    with served.serving(app) as address:
        target = RemoteTarget.connect(address, batch=60)
        with pytest.raises(ServerError, match="answered 429"):
            target.labels(INPUTS)
    with pytest.raises(ServerError, match="cannot be reached"):
        RemoteTarget.connect(address)
    with pytest.raises(UserError, match=r"give one such as http://127\.0\.0\.1:8000"):
        RemoteTarget.connect("127.0.0.1:8000")


def test_a_rate_is_waited_for(tmp_path: Path):
    app = served.app_of(served.digits(tmp_path / "release"), limits=Limits(rate=200.0, burst=100))
    with served.serving(app) as address:
        labels = RemoteTarget.connect(address, batch=50).labels(INPUTS[:150])
    assert labels.tolist() == Target.open(tmp_path / "release", Access.LABEL).labels(INPUTS[:150]).tolist()


def test_answers_are_read_as_they_are_shown():
    """Two classes shown of three with scores, one refused; then without scores."""
    number = {"a": 0, "b": 1, "c": 2}
    scored = {"label": "c", "top": [{"label": "c", "score": 0.7}, {"label": "a", "score": 0.2}], "refused": False}
    refused = {"label": None, "top": [], "refused": True}
    found = _read([scored, refused], number)
    np.testing.assert_allclose(completed(found), [[0.2, 0.1, 0.7], [1 / 3, 1 / 3, 1 / 3]])
    assert found.labels.tolist() == [2, -1]
    equal = {"label": "c", "top": [{"label": "a", "score": 0.4}, {"label": "c", "score": 0.4}], "refused": False}
    assert _read([equal], number).labels.tolist() == [2]
    named = {"label": "b", "top": [{"label": "b"}, {"label": "c"}], "refused": False}
    ranks = _read([named, refused], number)
    assert ranks.shows == "ranks"
    assert completed(ranks)[0].argsort().tolist() == [0, 2, 1]
    silent = _read([refused, refused], number)
    assert silent.labels.tolist() == [-1, -1]
    np.testing.assert_allclose(completed(silent), 1 / 3)
    label = _read([dict(named, top=named["top"][:1])], number)
    np.testing.assert_allclose(completed(label), [[0, 1, 0]])
    assert label.shows == "label"
