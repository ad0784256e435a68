"""What a ledger states is shown field by field, and of these data alone."""

from dptrain import PrivacyPlan
from dptrain.ledger import Account
from recipes import spending

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
