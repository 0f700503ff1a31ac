"""The one decision of launching: from the cells that are left and the jobs in the queue to what has to be submitted or cancelled.

It is a pure function, so it may be asked again at any time, from any host: what was submitted is in the queue and counts.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from launch.backend import Job, Kind


@dataclasses.dataclass(frozen=True)
class Submit:
    """Submit `count` workers of a kind, which start when the jobs `after` have ended."""

    kind: Kind
    count: int
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cancel:
    """Cancel jobs that nobody needs."""

    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Everything that has to be done; nothing when both are empty. Cancelling comes first.

    `waits` says that nothing could be decided yet, because a scheduler has not answered.
    """

    cancel: Cancel
    submit: tuple[Submit, ...]
    waits: bool = False


def reconcile(left: Mapping[Kind, int], jobs: Sequence[Job], workers: int) -> Decision:
    """Decides what to submit and cancel.

    Of each kind there are as many workers as cells are left, and at most `workers`. Cancelled are queued workers beyond the number of
    cells, and no running ones: they end when no cell is left. Smaller cells are submitted first, so that a broken recipe shows early; a
    later stage waits for the jobs of those before. Workers that were asked for other cells (`Kind.only`) are left alone.

    Args:
        left: the number of unfinished cells of each kind
        jobs: the live jobs of the study
        workers: the most workers of a kind at once
    """
    wanted, only = {kind: min(count, workers) for kind, count in left.items()}, {kind.only for kind in left} or {""}
    spare: list[str] = []
    live: dict[Kind, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (job.state != "running", job.id)):
        there = live.setdefault(job.kind, [])
        if job.state == "queued" and job.kind.only in only and len(there) >= left.get(job.kind, 0):
            spare.append(job.id)
        else:
            there.append(job)
    submit = []
    for kind in sorted(wanted):
        missing = wanted[kind] - len(live.get(kind, []))
        before = tuple(job.id for other in live if other.stage < kind.stage for job in live[other])
        if missing > 0:
            submit.append(Submit(kind, missing, before))
    return Decision(Cancel(tuple(spare)), tuple(submit))
