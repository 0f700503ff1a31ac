"""Workers that a scheduler starts: what is missing is submitted, what nobody needs is cancelled, and progress is shown meanwhile.

`apply` compares the cells that are left with the scheduler's queue and acts once; calling it again does what is missing and nothing twice.
`watch` calls it until every cell has ended.
"""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from launch import jobs, logs, snapshot
from launch.backend import Backend, Job, Kind, Request, UnansweredError
from launch.reconcile import Cancel, Decision, Submit, reconcile
from launch.view import View
from lm.errors import UserError, counted
from lm.study import directory, leases, records
from lm.study import status as status_lib

WORKERS = 8  # workers of a kind at once, where nobody says
POLL_SECONDS = 15.0  # between looks at the queue: schedulers ask to be spared
LAUNCHING = ("gates", "launch")
MAX_LOOKS, AGAIN_SECONDS = 10, 1.0  # at a queue whose jobs are cancelled
MAX_ROUNDS = 3  # submissions in a row that end without a result


def kind_of(cell: dict[str, Any], only: Sequence[str] = ()) -> Kind:
    """Returns the kind of workers that take a cell, of those that are asked for the cells `only` where it is given."""
    return Kind(cell["stage"], cell.get("devices", 1), directory.sha256(sorted(only))[:8] if only else "")


def left(state: status_lib.Status, only: Sequence[str] = ()) -> dict[Kind, list[dict[str, Any]]]:
    """Returns the unfinished cells of a study by kind, of those in `only` where it is given."""
    found: dict[Kind, list[dict[str, Any]]] = collections.defaultdict(list)
    for c in state.cells:
        if c.state not in records.FINISHED and (not only or c.cell["id"] in only):
            found[kind_of(c.cell, only)].append(c.cell)
    return dict(found)


def apply(
    root: pathlib.Path,
    backend: Backend,
    workers: int,
    say: Callable[[str], None],
    *,
    train: Optional[str] = None,
    only: Sequence[str] = (),
) -> Decision:
    """Submits the workers that are missing and cancels queued ones that nobody needs. One process at a time does so.

    Args:
        root: the study's directory
        backend: the scheduler
        workers: the most workers of a kind at once
        say: takes a line for each thing that is done
        train: the training function of the workers (default: theirs)
        only: ids of the cells to train (default: all)

    Returns: what was decided, and then done.

    Raises: UserError when the scheduler refuses, or while another process does the same.
    """
    backend.require(root)
    lease = leases.claim_folder(root.joinpath(*LAUNCHING))
    if lease is None:
        raise UserError(f"another process submits workers of {root} at this moment: try again in a minute")
    try:
        key = jobs.key(root)
        cells, queue = left(status_lib.read_status(root), only), backend.jobs(key)
        if (lost := jobs.claim_answers(root, backend.NAME, queue)) is not None:
            say(lost.waiting)
            return Decision(Cancel(()), (), waits=True)
        decision = reconcile({kind: len(members) for kind, members in cells.items()}, queue, workers)
        if decision.cancel.ids:
            backend.cancel(decision.cancel.ids)
            say(f"cancelled {len(decision.cancel.ids)} queued workers that no cell needs any more")
        now, later = _in_order(decision, backend)
        submitted: dict[Kind, tuple[str, ...]] = {}
        for wish in now:
            before = tuple(job for kind, ids in submitted.items() if kind.stage < wish.kind.stage for job in ids)
            seconds, flops = _of_one_worker(cells[wish.kind], workers)
            request = Request(
                root, key, jobs.next_number(root), wish.kind, wish.count, snapshot.take(root, train), seconds, flops,
                after=(*wish.after, *before), train=train, only=tuple(only),
            )  # fmt: skip
            if not lease.renew():
                raise UserError(f"the scheduler was so slow that another process may submit workers of {root} as well: look at the queue")
            ids = _submitted(request, backend)
            submitted[wish.kind] = tuple(ids)
            say(_done(wish, len(cells[wish.kind]), ids, backend.by_hand(root, request.number)))
        if later and now:
            say(f"stage {later[0].kind.stage} follows when these workers have ended: the same command submits it then")
        return dataclasses.replace(decision, submit=now)
    finally:
        lease.give_back()
        leases.tidy(lease)


def _submitted(request: Request, backend: Backend) -> list[str]:
    """Submits workers and returns the ids of their jobs. What was asked is written down before, and what came of it after."""
    submission = jobs.intend(request, backend)
    try:
        ids = backend.submit(request)
    except UnansweredError:
        raise
    except UserError:  # of several jobs that are submitted one by one the first may be there
        before = {job for one in jobs.read(request.root) for job in one.ids}
        there = [job.id for job in backend.jobs(request.key) if job.kind == request.kind and job.id not in before]
        jobs.answered(request.root, submission, there)
        raise
    jobs.answered(request.root, submission, ids)
    return ids


def _of_one_worker(cells: Sequence[dict[str, Any]], workers: int) -> tuple[float, float]:
    """Returns what one of several workers has to do, in seconds and in FLOPs: an even share, and the largest cell at least."""
    seconds, flops = [cell["seconds"] for cell in cells], [cell["flops"]["matmul_causal"] for cell in cells]
    at_once = min(len(cells), workers)
    return max(sum(seconds) / at_once, max(seconds)), max(sum(flops) / at_once, max(flops))


def _in_order(decision: Decision, backend: Backend) -> tuple[tuple[Submit, ...], tuple[Submit, ...]]:
    """Returns what to submit now and later: where jobs cannot wait for others, a stage is submitted when the earlier one's have ended."""
    if backend.ORDERS:
        return decision.submit, ()
    first = min((wish.kind.stage for wish in decision.submit), default=0)
    now = tuple(wish for wish in decision.submit if wish.kind.stage == first and not wish.after)
    return now, tuple(wish for wish in decision.submit if wish not in now)


def _done(wish: Submit, cells: int, ids: Sequence[str], command: Optional[str]) -> str:
    """Returns the line of a submission, with the command of those that a user starts."""
    done, then = ("submitted", "") if command is None else ("wrote", f"; start them: {command}")
    return f"{done} {_described(wish.kind, wish.count, cells)}: {_listed(ids)}{then}"


def _described(kind: Kind, count: int, cells: int) -> str:
    return f"{counted(count, 'worker')} of {counted(kind.devices, 'device')} for {counted(cells, 'cell')} of stage {kind.stage}"


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:4]) + (f", and {len(ids) - 4} more" if len(ids) > 4 else "")


def live(root: pathlib.Path) -> list[tuple[Backend, Job]]:
    """Returns the live jobs of a study with their backends: every backend is asked that it was ever submitted to."""
    from launch import backends

    asked = {submission.backend: backends.of(submission.backend, submission.options) for submission in jobs.read(root)}
    return [(backend, job) for backend in asked.values() for job in backend.jobs(jobs.key(root))]


def watch(
    root: pathlib.Path,
    backend: Backend,
    workers: int,
    view: View,
    say: Callable[[str], None],
    *,
    train: Optional[str] = None,
    only: Sequence[str] = (),
    poll: float = POLL_SECONDS,
) -> status_lib.Status:
    """Keeps workers in the queue until every cell has ended, and shows the progress. Jobs stay when this process ends.

    Raises: UserError when workers end again and again without a result, with the last line of the last one's log, and when a user cancels
        the study's jobs.
    """
    mark = jobs.cancelled(root)
    study, known = directory.open_study(root), dict[str, status_lib.CellStatus]()
    state = status_lib.read_status(root, study, known)
    view.start(state)
    rounds, best, is_first = 0, (state.finished, state.flops_done), True
    try:
        while left(state, only):
            if (state.finished, state.flops_done) > best:
                rounds, best = 0, (state.finished, state.flops_done)
            if jobs.cancelled(root) != mark:
                raise UserError(f"the jobs of {root} were cancelled meanwhile; the same command submits what is missing")
            try:
                decision = apply(root, backend, workers, say, train=train, only=only)
                rounds += bool(decision.submit)
            except UserError as error:
                if is_first:
                    raise
                say(f"not asked this time: {error}")  # a scheduler that is busy, or another process that submits, may be over soon
            is_first = False
            if rounds > MAX_ROUNDS:
                words = logs.last_words(root) or "their logs are with the scheduler"
                raise UserError(f"workers ended {MAX_ROUNDS} times without a result: {words}")
            time.sleep(poll)
            state = status_lib.read_status(root, study, known)
            view.update(state)
    finally:
        view.close()
    return state


def cancel(root: pathlib.Path, again: float = AGAIN_SECONDS) -> int:
    """Ends every job of a study in a scheduler's queue, and returns how many there were.

    The queue is looked at again until it is empty: a job that begins, or is queued again, at the moment when it is cancelled may escape.

    Args:
        root: the study's directory
        again: seconds between two looks

    Raises: UserError when jobs are still there after `MAX_LOOKS` looks.
    """
    jobs.mark_cancelled(root)
    seen: set[str] = set()
    for _ in range(MAX_LOOKS):
        found = live(root)
        seen |= {job.id for _, job in found}
        if not found:
            return len(seen)
        for backend in {backend.NAME: backend for backend, _ in found}.values():
            backend.cancel([job.id for other, job in found if other.NAME == backend.NAME])
        time.sleep(again)
    raise UserError(f"{counted(len(found), 'job')} of {root} cannot be cancelled, such as {found[0][1].id}: ask the scheduler why")


def queue_words(queue: Sequence[Job]) -> str:
    """Returns a line for each kind of workers in a queue: how many run and wait, and why."""
    lines = []
    for kind in sorted({job.kind for job in queue}):
        of_kind = [job for job in queue if job.kind == kind]
        waiting = [job for job in of_kind if job.state == "queued"]
        reasons = ", ".join(sorted({job.reason for job in waiting if job.reason}))
        said = f"{len(of_kind) - len(waiting)} running, {len(waiting)} queued" + (f" ({reasons})" if reasons else "")
        some = " for some cells alone" if kind.only else ""
        lines.append(f"workers of stage {kind.stage} on {counted(kind.devices, 'device')}{some}: {said}")
    return "\n".join(lines)
