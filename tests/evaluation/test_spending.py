"""What a ledger states is shown field by field, and of these data alone."""

from dptrain import PrivacyPlan
from dptrain.ledger import Account
from evaluation import spending

PLAN = PrivacyPlan(sampling_rate=0.1, expected_batch_size=10, steps=20, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0)


def test_the_account_of_these_data_and_no_other():
    for data in ("aa", "bb"):
        account = Account(data, "mine")
        run = account.open({"label": "a"})
        account.reserve(run, PLAN, 0, 20)
        account.close(run, "done")
    Account("bb").limit(8.0, 1e-5)
    (found,) = spending.shown("bb")
    stated = Account("bb").statement()
    assert (found.data, found.entries, found.runs, found.limit_epsilon) == ("bb", stated.entries, 1, 8.0)
    assert found.spent[0].epsilon == stated.spent[0].epsilon > 0
    assert found.spent[0].steps == 20
    assert spending.shown("cc") == ()
    assert spending.shown("") == ()


def test_of_a_selection_no_number_of_runs_is_passed_on():
    account = Account("dd", "mine")
    runs = []
    for _ in range(3):
        runs.append(run := account.open({"label": "a"}))
        account.reserve(run, PLAN, 0, 20)
        account.close(run, "done")
    account.select("chosen", runs, "geometric", 4.0, 2.5, delta=1e-5, chosen=runs[1])
    (found,) = spending.shown("dd")
    assert found.selected[0].epsilon == 2.5
    assert (found.entries, found.runs, found.spent) == (0, 0, ())
    assert [(line.runs, line.steps, line.epsilon) for line in found.only_selected] == [(0, 0, 2.5)]
    assert account.statement().runs == 3
