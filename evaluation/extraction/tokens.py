"""The same of a model of tokens: secrets are characters, and a text can be cut into tokens in several ways.

    scores = scored(target, tokenizer, "The PIN of Odo Fenn is ", ["483920", "000000"])
    tries = generate(target, tokenizer, "The PIN of Odo Fenn is ", PATTERNS["pin"], generator)

**Scores.** A candidate's score is log P of the tokens in which the tokenizer writes the whole line: what stands before it, the
candidate, the line break. It is a lower bound of the text's log-probability, which is a sum over all ways to cut it (Cao and
Rimell 2021, "You Should Evaluate Your Language Model on Marginal Likelihood over Tokenisations"), and it is what training
raised. Candidates that are written in more tokens tend to score lower whatever was learned; that makes the attack weaker and
not the measurement wrong: a secret that was never inserted is drawn like every candidate, so its rank is uniform by any score.

There is no state that so many candidates share, so no rank among all of them is found: exposure is by sampling and by
extrapolation, from ``CANDIDATES`` that are drawn.

**Generation.** The model is given what stands before the secret without the space at its end, which most tokenizers write
together with what follows, and its answer must begin with that space. Searches are over tokens, of any length and by any way
to cut the text; the restricted one leaves out every token that does not fit what each place may hold, and takes the most
probable of what a beam keeps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from dptrain.data.secrets import Pattern
from dptrain.data.tokens import Tokenizer
from evaluation.extraction.generation import (
    RESTRICTED_WIDTH,
    SAMPLES,
    TEMPERATURE,
    TOP_K,
    WIDTH,
    Tries,
    first_with_check_digit,
)
from evaluation.extraction.space import Found, rows
from evaluation.target import Reading, Target

CANDIDATES = 1_000
"""That are drawn for an exposure: each is a pass of its own over the line."""
TOGETHER = 64
"""Texts that are drawn at once."""

Allowed = Callable[[str], Bool[np.ndarray, " tokens"]]
"""Which tokens may follow a text."""


def scored(target: Target, tokenizer: Tokenizer, before: str, candidates: Sequence[str]) -> Float[np.ndarray, " candidates"]:
    """The score of each candidate."""
    lines = {candidate: tokenizer.encode(f"{before}{candidate}\n") for candidate in candidates}
    longest = max(map(len, lines.values()))
    targets = torch.full((len(lines), longest), tokenizer.start)
    for row, line in zip(targets, lines.values(), strict=True):
        row[: len(line)] = line
    inputs = torch.cat([torch.full_like(targets[:, :1], tokenizer.start), targets[:, :-1]], 1)
    found = target.log_likelihoods(inputs, targets)  # what fills a row comes after its line, and is not seen from there
    scores = {candidate: float(row[: len(line)].sum()) for (candidate, line), row in zip(lines.items(), found, strict=True)}
    return np.array([scores[candidate] for candidate in candidates])


def generate(target: Target, tokenizer: Tokenizer, before: str, pattern: Pattern, generator: np.random.Generator) -> Tries:
    """Texts as long as the pattern, by every method."""
    length = len(pattern.places)
    return {
        "restricted": (restricted(target, tokenizer, before, pattern),),
        "greedy": (greedy(target, tokenizer, before, length),),
        "beam": (beam(target, tokenizer, before, length, WIDTH)[0].text,),
        "sampled": _after_space(before, length, sample(target, tokenizer, before, length + 1, SAMPLES, generator)),
    }


def restricted(target: Target, tokenizer: Tokenizer, before: str, pattern: Pattern) -> str:
    """The most probable candidate that a beam search keeps."""
    _, space = _given(before)
    fitting = _Fitting(tokenizer, (*space, *pattern.places))
    found = _search(target, tokenizer, before, len(pattern.places), RESTRICTED_WIDTH, fitting)
    return first_with_check_digit(found, pattern)


def greedy(target: Target, tokenizer: Tokenizer, before: str, length: int) -> str:
    """The most probable token after each other, to so many characters."""
    return beam(target, tokenizer, before, length, 1)[0].text


def beam(target: Target, tokenizer: Tokenizer, before: str, length: int, width: int) -> list[Found]:
    """Up to ``width`` continuations of so many characters by beam search among all tokens, the most probable first; shorter
    where tokens did not write as many."""
    every = np.ones(len(tokenizer.labels), dtype=bool)
    every[tokenizer.start] = False
    return _search(target, tokenizer, before, length, width, lambda text: every)


def sample(
    target: Target,
    tokenizer: Tokenizer,
    before: str,
    tokens: int,
    count: int,
    generator: np.random.Generator,
    temperature: float = TEMPERATURE,
    top_k: int = TOP_K,
) -> tuple[str, ...]:
    """Texts of so many tokens that the model draws, each from the k most probable ones of its place."""
    texts: list[str] = []
    while len(texts) < count:
        together = min(TOGETHER, count - len(texts))
        log_probabilities, state = _read(target, tokenizer, _given(before)[0])
        every = torch.zeros(together, dtype=torch.int64)
        log_probabilities, state = log_probabilities[every], rows(state, every)
        drawn = torch.empty(together, tokens, dtype=torch.int64)
        for place in range(tokens):
            log_probabilities[:, tokenizer.start] = -torch.inf
            likely = (log_probabilities / temperature).topk(min(top_k, log_probabilities.shape[1] - 1))
            noisy = likely.values.numpy() + generator.gumbel(size=tuple(likely.values.shape))
            drawn[:, place] = likely.indices[torch.arange(together), torch.from_numpy(noisy.argmax(1))]
            if place + 1 < tokens:
                log_probabilities, state = target.read(drawn[:, place : place + 1], state)
        texts += [tokenizer.decode(row) for row in drawn]
    return tuple(texts)


def _given(before: str) -> tuple[str, str]:
    """What the model is given, and the space that its answer begins with."""
    given = before.rstrip(" ")
    return given, before[len(given) :]


def _after_space(before: str, length: int, texts: Sequence[str]) -> tuple[str, ...]:
    _, space = _given(before)
    return tuple(text.removeprefix(space)[:length] for text in texts)


def _read(target: Target, tokenizer: Tokenizer, given: str) -> tuple[torch.Tensor, Reading]:
    return target.read(torch.cat([torch.tensor([tokenizer.start]), tokenizer.encode(given)])[None])


class _Fitting:
    """Which tokens go on with a text of these places, without a character too many."""

    def __init__(self, tokenizer: Tokenizer, places: Sequence[str]):
        self._pieces, self._places = tokenizer.pieces, places
        self._known: dict[int, Bool[np.ndarray, " tokens"]] = {}

    def __call__(self, text: str) -> Bool[np.ndarray, " tokens"]:
        at = len(text)
        if at not in self._known:
            rest = self._places[at:]
            self._known[at] = np.array([self._fits(piece, rest) for piece in self._pieces])
        return self._known[at]

    @staticmethod
    def _fits(piece: str, rest: Sequence[str]) -> bool:
        return 0 < len(piece) <= len(rest) and all(letter in place for letter, place in zip(piece, rest, strict=False))


def _search(target: Target, tokenizer: Tokenizer, before: str, length: int, width: int, allowed: Allowed) -> list[Found]:
    """Beam search for texts of so many characters behind the space, the most probable first."""
    given, space = _given(before)
    wanted = len(space) + length
    log_probabilities, state = _read(target, tokenizer, given)
    said, texts, total = torch.empty(1, 0, dtype=torch.int64), [""], np.zeros(1)
    done: list[Found] = []
    for _ in range(wanted):
        totals = total[:, None] + log_probabilities.numpy()
        totals[~np.stack([allowed(text) for text in texts])] = -np.inf
        best = torch.from_numpy(totals).flatten().topk(min(width, totals.size))
        chosen, total = best.indices[best.values > -torch.inf], best.values[best.values > -torch.inf].numpy()
        row, token = chosen // totals.shape[1], chosen % totals.shape[1]
        said = torch.cat([said[row], token[:, None]], 1)
        texts = [tokenizer.decode(tokens) for tokens in said]
        whole = np.array([len(text) >= wanted for text in texts], dtype=bool)
        done += [Found(texts[at], float(total[at])) for at in np.flatnonzero(whole)]
        going = np.flatnonzero(~whole)
        if not len(going) or len([one for one in done if one.score >= total[going].max()]) >= width:
            break  # a text that goes on can only become less probable
        kept = torch.from_numpy(going)
        said, texts, total, row, token = said[kept], [texts[at] for at in going], total[going], row[kept], token[kept]
        log_probabilities, state = target.read(token[:, None], rows(state, row))
    else:
        done += [Found(text, float(score)) for text, score in zip(texts, total, strict=True)]
    ordered = sorted(done, key=lambda one: -one.score)[:width]
    cut = _after_space(before, length, [one.text for one in ordered])
    return [Found(text, one.score) for text, one in zip(cut, ordered, strict=True)]
