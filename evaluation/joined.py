"""Several comparisons together: those on the same data share charts and one account, those on other data stand side by side.

    found = joined([("runs/plain", first), ("runs/regularized", second)])
    found.groups[0].splits              # whether models of one seed have the same members in all of them

Two comparisons are on the same data where the fingerprint of the content is the same, wherever they lie and whatever they are
called. Their figures then compare, but only where also each seed dealt out the same members and test examples a difference is
one of the models: where splits differ, part of it is one of the examples. No difference between comparisons is computed here:
each figure keeps the interval that it has, and none of a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.result import ComparisonResult, Headline, LedgerShown, RunResult, Summary

SCHEMA = "dptrain.joined/1"
Splits = Literal["the same", "not the same", "no seed in common"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One comparison, and where it lies."""

    folder: str
    name: str
    """By which it is told from the others: its title, or its folder where several share one."""
    result: ComparisonResult


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparisons on the same data."""

    data: str
    """Name of the data set."""
    fingerprint: str
    members: tuple[Member, ...]
    splits: Splits
    ledger: tuple[LedgerShown, ...]
    """The account of these data, once."""
    family: str
    """Of the attacks in the shared chart: that of the first comparison's front which most have; empty where none has one."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """All groups, in the order in which their first comparison was given."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a joined document says of one comparison."""

    folder: str
    title: str
    data: str
    fingerprint: str
    splits: Splits
    headline: Headline | None
    summary: tuple[Summary, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """All of it as one record, for :func:`evaluation.result.to_json`."""

    comparisons: tuple[Entry, ...]
    ledger: tuple[LedgerShown, ...]
    not_read: tuple[str, ...] = ()
    """Why folders that were named are not among them, a sentence each."""
    schema: str = SCHEMA


def joined(results: Sequence[tuple[str, ComparisonResult]]) -> Joined:
    """The comparisons by their data.

    Args:
        results: folder and result of each.
    """
    groups: dict[str, list[tuple[str, ComparisonResult]]] = {}
    for folder, result in results:
        groups.setdefault(str(result.data.get("fingerprint") or folder), []).append((folder, result))
    titles = [result.title for _, result in results]
    return Joined(groups=tuple(_group(fingerprint, found, titles) for fingerprint, found in groups.items()))


def _group(fingerprint: str, found: list[tuple[str, ComparisonResult]], titles: list[str]) -> Group:
    members = tuple(
        Member(folder=folder, name=result.title if titles.count(result.title) == 1 else folder, result=result)
        for folder, result in found
    )
    families = [front.family for member in members for front in member.result.fronts]
    return Group(
        data=str(found[0][1].data.get("name", found[0][1].name)),
        fingerprint=fingerprint,
        members=members,
        splits=splits_of([member.result for member in members]),
        ledger=max((member.result.ledger for member in members), key=lambda one: sum(item.entries for item in one)),
        family=max(dict.fromkeys(families), key=families.count, default=""),
    )


def splits_of(results: Sequence[ComparisonResult]) -> Splits:
    """Whether each seed that several comparisons have dealt out the same members in all of them."""
    by_seed: dict[int, list[set[str]]] = {}
    for result in results:
        own: dict[int, set[str]] = {}
        for run in result.runs:
            own.setdefault(run.seed, set()).add(_split(run))
        for seed, digests in own.items():
            by_seed.setdefault(seed, []).append(digests)
    shared = [each for each in by_seed.values() if len(each) > 1]
    if not shared:
        return "the same" if len(results) == 1 else "no seed in common"
    return "the same" if all(len(set.union(*each)) == 1 for each in shared) else "not the same"


def _split(run: RunResult) -> str:
    return run.split_digest or f"unknown, of {run.label}"


def document(found: Joined, not_read: Sequence[str] = ()) -> Document:
    """The answers and rows of all comparisons, without their single runs."""
    return Document(
        comparisons=tuple(
            Entry(
                folder=member.folder,
                title=member.result.title,
                data=group.data,
                fingerprint=group.fingerprint,
                splits=group.splits,
                headline=member.result.headline,
                summary=member.result.summary,
            )
            for group in found.groups
            for member in group.members
        ),
        ledger=tuple(account for group in found.groups for account in group.ledger),
        not_read=tuple(not_read),
    )
