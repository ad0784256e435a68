"""Verdicts that hold for one model as for the mean over several: a word of ``evaluation.result.VERDICTS``, and why."""

from evaluation.result import Measure, Verdict


def of_attribute(beyond: Measure, imputation: Measure, leaked: Measure, permitted: float | None = None) -> tuple[Verdict, str]:
    """Of an attribute inference.

    Args:
        beyond: by how much more often it guesses the hidden value of people who were not trained on than imputation does,
            which has no model, of the same people.
        imputation: the share that imputation guesses.
        leaked: how much more often members are guessed.
        permitted: the most that the plan permits ``leaked`` to be; None without a guarantee.
    """
    if leaked.low is not None and permitted is not None and leaked.low > permitted:
        return "above the plan", f"members are guessed more often by {leaked.value:.3f}, and the plan permits {permitted:.3f}"
    if leaked.low is not None and leaked.low > 0:
        return ("leak" if permitted is None else "within the plan"), "members are guessed more often than held-out people"
    if beyond.low is not None and beyond.low > 0:
        return "of the population", "as often on held-out people, beyond imputation: what the model learned of everyone"
    return "nothing beyond public", f"imputation, without the model, guesses {imputation.value or 0.0:.2f}"
