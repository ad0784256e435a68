"""Release with care: what a prediction may show, and to whom.

* ``parts.py``: the text that says a guard, such as ``top5-rounded``
* ``guard.py``: :class:`Guard`, what stands between a model's outputs and whoever asks; :func:`fitted`
* ``queries.py``: what a query is known by, and what is drawn for it
* ``shown.py``: label only, the best classes, rounding, temperature, rejection
* ``hamp.py``: scores that belong to random inputs
* ``memguard.py``: scores that are disguised against membership attacks
* ``noisy_max.py``: a label by report noisy max, with its account of ε
* ``teachers.py``: an ensemble of models of disjoint parts of the data
* ``wrapped.py``: :class:`Guarded`, any PyTorch classifier behind a guard
* ``loading.py``: a release as it is served, checked
* ``predictor.py``: a served model behind its guard; ``reading.py``: what strangers send it
* ``keys.py``, ``limits.py``: who may ask, and how much
* ``version.py``: what is served at one time, whole; ``places.py``: requests under way
* ``service.py``: what the server does; ``server.py``: over HTTP; ``schema.py``: in OpenAPI; ``page.py``: in a browser
* ``listening.py``: connections
* ``monitor/``: who is probing
* ``policy.py``: what a model must keep to before it is published; ``checks.py``: whether it does
* ``names.py``: what of a card's names can be published, and how they are shown
* ``words.py``: ε in words; ``model_card.py``: what is published beside the weights; ``model_card_page.py``: in Markdown

Names are imported when they are first used, since a recipe checks its guard without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dptrain.release.guard import Answers as Answers
    from dptrain.release.guard import Guard as Guard
    from dptrain.release.guard import Owner as Owner
    from dptrain.release.guard import fitted as fitted
    from dptrain.release.wrapped import Guarded as Guarded

__all__ = ["Answers", "Guard", "Guarded", "Owner", "fitted"]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'dptrain.release' has no attribute {name!r}")
    if name == "Guarded":
        from dptrain.release.wrapped import Guarded

        return Guarded
    from dptrain.release import guard

    return getattr(guard, name)
