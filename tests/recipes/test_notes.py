"""A command's warnings are sentences, each kind once; others' warnings, and filters, are left alone."""

import warnings

import pytest

from recipes.notes import as_sentences


def test_a_warning_is_one_sentence_however_many_models_say_it(capsys: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with as_sentences():
            for drawn in (212, 203.5):
                warnings.warn(f"{drawn} examples are drawn on average", stacklevel=1)
            warnings.warn("delta is large", stacklevel=1)
    assert capsys.readouterr().err == "dptrain: 212 examples are drawn on average\ndptrain: delta is large\n"


def test_other_warnings_and_filters_stay_as_they_are():
    with pytest.warns(DeprecationWarning, match="old"), as_sentences():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    with warnings.catch_warnings(), as_sentences():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="delta"):
            warnings.warn("delta is large", stacklevel=1)
    shown = warnings.showwarning
    with as_sentences():
        assert warnings.showwarning is not shown
    assert warnings.showwarning is shown
