"""Workers of a scheduler: what is missing is submitted once, whoever asks and however often, and no cell is lost or counted twice."""

import dataclasses
import io
import itertools
import json
import pathlib
import random
import re
import types
from typing import ClassVar

import fake_train
import pytest
import small_study

from launch import backends, jobs, logs, scheduled, snapshot, table
from launch.backend import Job, Kind, UnansweredError
from launch.reconcile import reconcile
from launch.view import View
from lm.errors import UserError
from lm.study import directory, gate, leases, records, states, worker
from lm.study import status as status_lib
from lm.study.rows import read_rows


@dataclasses.dataclass
class Memory:
    """A scheduler in memory, with the interface of the real ones. It has no options."""

    NAME: ClassVar[str] = "memory"
    WORDS: ClassVar[str] = "a scheduler in memory"
    ORDERS: ClassVar[bool] = True

    def __post_init__(self):
        self.queue, self.requests, self.numbers = {}, [], itertools.count()

    def by_hand(self, root, number):
        return None

    def require(self, root):
        pass

    def jobs(self, key):
        return list(self.queue.values())

    def submit(self, request):
        self.requests.append(request)
        ids = [f"job{next(self.numbers)}" for _ in range(request.count)]
        self.queue.update({job: Job(job, request.kind, "queued") for job in ids})
        return ids

    def cancel(self, ids):
        for job in ids:
            self.queue.pop(job, None)

    def log(self, root, job):
        return None


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "take", lambda root, train=None: root / "code")
    small_study.planned(tmp_path / "s")
    return tmp_path / "s"


def _silent(line):
    del line


SMALL, LARGE, LATER, SOME = Kind(0, 1), Kind(0, 8), Kind(1, 1), Kind(0, 1, "abc123")


@pytest.mark.parametrize(
    ("left", "live", "submit", "cancel"),
    [
        ({SMALL: 30}, [], {SMALL: 4}, 0),
        ({SMALL: 3}, [], {SMALL: 3}, 0),
        ({SMALL: 30}, [(SMALL, "running"), (SMALL, "queued")], {SMALL: 2}, 0),
        ({SMALL: 1}, [(SMALL, "running"), (SMALL, "queued"), (SMALL, "queued")], {}, 2),
        ({SMALL: 30}, [(SMALL, "queued")] * 9, {}, 0),  # another process asked for more workers
        ({SOME: 1}, [(SMALL, "queued")] * 9, {SOME: 1}, 0),  # asked for some cells alone, the others' workers stay
        ({SMALL: 30}, [(SOME, "queued")], {SMALL: 4}, 0),
        ({}, [(SMALL, "running"), (LARGE, "queued")], {}, 1),  # what runs ends by itself
        ({SMALL: 2, LARGE: 1, LATER: 9}, [], {SMALL: 2, LARGE: 1, LATER: 4}, 0),
    ],
)
def test_what_is_missing_is_submitted_and_what_nobody_needs_cancelled(left, live, submit, cancel):
    queue = [Job(str(i), kind, state) for i, (kind, state) in enumerate(live)]
    made = reconcile(left, queue, 4)
    assert {wish.kind: wish.count for wish in made.submit} == submit
    assert len(made.cancel.ids) == cancel
    assert [wish.kind for wish in made.submit] == sorted(wish.kind for wish in made.submit)  # small cells first, stages in order
    assert not any(job.state == "running" for job in queue if job.id in made.cancel.ids)
    # after it is carried out there is nothing left to do
    queue = [job for job in queue if job.id not in made.cancel.ids]
    queue += [Job(f"new{wish.kind.text}{i}", wish.kind, "queued") for wish in made.submit for i in range(wish.count)]
    again = reconcile(left, queue, 4)
    assert not again.submit
    assert not again.cancel.ids


def test_a_later_stage_waits_for_the_jobs_before_it(root):
    scheduler = Memory()
    scheduled.apply(root, scheduler, 2, _silent)
    first, second = scheduler.requests
    assert (first.kind, second.kind) == (SMALL, LATER)
    assert (first.after, second.after) == ((), ("job0", "job1"))
    assert not scheduled.apply(root, scheduler, 2, _silent).submit
    assert f"--stage={first.kind.stage}" in first.command()


def test_kinds_are_read_back_from_the_names_of_jobs():
    for kind in (SMALL, LARGE, SOME):
        assert Kind.parse(kind.text) == kind
    assert all(Kind.parse(text) is None for text in ("s0", "s0.d", "s0.d1.x", "x0.d1"))


def test_workers_that_end_again_and_again_end_the_watch(root, monkeypatch):
    """Also where each round is seen to live for a while; a scheduler that is busy once does not."""
    scheduler, asked = Memory(), []

    def poll(seconds):
        asked.append(seconds)
        if len(asked) % 2:
            scheduler.queue.clear()  # every job dies after one look

    monkeypatch.setattr(scheduled, "time", types.SimpleNamespace(sleep=poll))
    with pytest.raises(UserError, match="without a result"):
        scheduled.watch(root, scheduler, 1, View(io.StringIO()), _silent)
    assert len(scheduler.requests) <= 2 * (scheduled.MAX_ROUNDS + 1)

    said, busy = [], iter([False, True, False, False])

    def jobs_of(key):
        if next(busy):
            raise UserError("squeue did not answer")
        return []

    def train(seconds):
        worker.work(root, fake_train.train, log=_silent)
        gate.write_forecast(root, {}, [])

    monkeypatch.setattr(scheduled, "time", types.SimpleNamespace(sleep=train))
    monkeypatch.setattr(Memory, "jobs", lambda self, key: jobs_of(key))
    state = scheduled.watch(root, Memory(), 1, View(io.StringIO()), said.append)
    assert state.count("completed") == len(state.cells)
    assert any("did not answer" in line for line in said)


def test_two_processes_do_not_submit_at_once(root):
    assert leases.claim_folder(root.joinpath(*scheduled.LAUNCHING))
    with pytest.raises(UserError, match="another process"):
        scheduled.apply(root, Memory(), 2, _silent)


class _KilledError(BaseException):
    """The process that submits is killed."""


def _lost(scheduler, asked, how):
    """Lets the scheduler's answer to the first submission be lost: before or after it queues the jobs."""
    submit = scheduler.submit

    def once(request):
        scheduler.submit = submit
        if asked:
            submit(request)
        raise how

    scheduler.submit = once


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("how", [_KilledError(), UnansweredError("sbatch did not answer")])
def test_what_was_asked_and_not_answered_is_submitted_once(root, monkeypatch, asked, how):
    """Whether the scheduler has done it or not, and whoever is lost: this process, or the answer."""
    gate.write_forecast(root, {}, [])
    scheduler, said = Memory(), []
    _lost(scheduler, asked, how)
    with pytest.raises(type(how)):
        scheduled.apply(root, scheduler, 2, said.append)
    assert [one.asked for one in jobs.read(root)] == [2]
    for _ in range(2):
        again = scheduled.apply(root, scheduler, 2, said.append)
    assert again.waits != asked
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", -1.0)
    scheduled.apply(root, scheduler, 2, said.append)
    assert not scheduled.apply(root, scheduler, 2, said.append).submit
    assert sorted(scheduler.queue) == ["job0", "job1", "job2", "job3"]  # two of each stage
    written = [job for one in jobs.read(root) for job in one.ids]
    assert sorted(written) == sorted(scheduler.queue)


def test_what_is_refused_is_asked_again_at_once(root):
    scheduler = Memory()
    _lost(scheduler, False, UserError("Invalid account"))
    with pytest.raises(UserError, match="account"):
        scheduled.apply(root, scheduler, 2, _silent)
    assert not jobs.read(root)
    assert len(scheduled.apply(root, scheduler, 2, _silent).submit) == 2


def test_what_begins_while_it_is_cancelled_is_cancelled_too_and_not_submitted_again(root, monkeypatch):
    """A job that the scheduler queues again in the moment in which it is cancelled, and a `run` that watches meanwhile."""
    scheduler = Memory()
    monkeypatch.setattr(backends, "of", lambda name, options: scheduler)
    scheduled.apply(root, scheduler, 2, _silent)
    remove, again = scheduler.cancel, iter(["queued again", None])

    def cancel(ids):
        remove(ids)
        if next(again, None):
            scheduler.queue["again"] = Job("again", SMALL, "running")

    scheduler.cancel = cancel

    def poll(seconds):
        assert scheduled.cancel(root, 0.0) == 5

    monkeypatch.setattr(scheduled, "time", types.SimpleNamespace(sleep=lambda seconds: seconds and poll(seconds)))
    with pytest.raises(UserError, match="cancelled"):
        scheduled.watch(root, scheduler, 2, View(io.StringIO()), _silent)
    assert not scheduler.queue
    scheduler.cancel = lambda ids: None
    scheduled.apply(root, scheduler, 2, _silent)
    with pytest.raises(UserError, match="cannot be cancelled"):
        scheduled.cancel(root, 0.0)


def test_status_and_logs_name_the_last_words_of_workers_that_died_at_their_start(root, monkeypatch):
    scheduler, log = Memory(), root / "job.log"
    monkeypatch.setattr(backends, "of", lambda name, options: scheduler)
    monkeypatch.setitem(backends.BACKENDS, "memory", "")
    scheduler.log = lambda root, job: log
    scheduled.apply(root, scheduler, 2, _silent)
    log.write_text("Traceback ...\nModuleNotFoundError: No module named 'jax'\nthe worker ended with status 1\n")
    state, cell = status_lib.read_status(root), directory.open_study(root)["cells"][0]["id"]
    assert "ModuleNotFoundError" not in table.render(state, root, "retry", list(scheduler.queue.values()))
    scheduler.queue.clear()
    assert re.search(r"job3.*ModuleNotFoundError.*job\.log", table.render(state, root, "retry"))
    with pytest.raises(UserError, match=r"job3.*ModuleNotFoundError.*job\.log"):
        logs.of_cell(root, cell)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", "no output"),
        ("the job begins\nthe worker ended with status 137\n", "the worker ended with status 137"),
        ("cell c begins\nslurmstepd-n1: error: *** JOB 1 ON n1 CANCELLED AT ... ***\nsrun: got SIGCONT\nTerminated\n", "cell c begins"),
        (
            "cell c begins\nslurmstepd: error: Detected 1 oom_kill event in StepId=1.0.\n",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.",
        ),
    ],
)
def test_the_last_line_of_a_log_is_the_worker_s_unless_slurm_says_why_it_ended(tmp_path, text, last):
    (tmp_path / "log").write_text(text)
    assert logs.last_line(tmp_path / "log") == last


def test_what_is_submitted_is_written_down_and_names_the_study(tmp_path):
    small_study.planned(tmp_path / "s")
    assert not scheduled.live(tmp_path / "s")
    key = jobs.key(tmp_path / "s")
    assert key.startswith("lm-small-")
    assert jobs.key(tmp_path / "s") == key
    small_study.planned(tmp_path / "t")
    assert jobs.key(tmp_path / "t") != key  # the same plan in another directory has jobs of its own
    assert jobs.next_number(tmp_path / "s") == 1
    (tmp_path / "s" / "jobs" / "000001.json").write_text('{"torn')
    with pytest.raises(UserError, match="000001"):
        jobs.read(tmp_path / "s")
    assert jobs.next_number(tmp_path / "s") == 2


def test_a_snapshot_is_taken_once_for_each_content(tmp_path):
    taken = snapshot.take(tmp_path)
    assert snapshot.take(tmp_path) == taken
    assert (taken / "lm" / "study" / "worker.py").read_bytes() == pathlib.Path(worker.__file__).read_bytes()


def test_a_training_function_of_the_user_is_in_the_snapshot_with_what_it_imports(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    (mine / "parts").mkdir(parents=True)
    (mine / "my_train.py").write_text("import json, numpy, my_help\nfrom parts.one import x\nfrom lm import files\ndef train(c, w): ...\n")
    (mine / "my_help.py").write_text("")
    (mine / "parts" / "__init__.py").write_text("")
    (mine / "parts" / "one.py").write_text("x = 1\n")
    (mine / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(mine)
    taken = snapshot.take(tmp_path / "s", "my_train:train")
    own = {str(path.relative_to(taken)) for path in taken.rglob("*.py") if path.relative_to(taken).parts[0] not in snapshot.PACKAGES}
    assert own == {"my_train.py", "my_help.py", "parts/__init__.py", "parts/one.py"}
    (mine / "my_help.py").write_text("y = 2\n")
    assert snapshot.take(tmp_path / "s", "my_train:train") != taken  # edited meanwhile
    inside = snapshot.take(tmp_path / "s", "lm.runner:train_cell")
    assert inside == snapshot.take(tmp_path / "s")
    (mine / "parts" / "one.py").write_text("x = \n")
    for name, named in (("nowhere:train", "nowhere"), ("my_train:train", "one.py")):
        with pytest.raises(UserError, match=named):
            snapshot.take(tmp_path / "s", name)


def _raise(config, folder):
    raise ValueError("asked to raise")


@dataclasses.dataclass
class _Walk:
    """Does random things to a study, one by one. This process stands for all workers."""

    root: pathlib.Path
    rng: random.Random
    scheduler: Memory = dataclasses.field(default_factory=Memory)
    held: dict[str, leases.Lease] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.study = directory.open_study(self.root)
        self.cells = {cell["id"]: cell for cell in self.study["cells"]}

    def states(self):
        queue = {(job.kind.stage, job.kind.devices) for job in self.scheduler.queue.values()}
        return {c.cell["id"]: c.state for c in status_lib.read_status(self.root, self.study, on_their_way=queue).cells}

    def step(self):
        """Does one thing; what needs a running cell does nothing without one."""
        name = self.rng.choice([self.submit, self.vanish, self.claim, self.claim, self.claim, self.cancel, self.retry])
        with_one = self.rng.choice([self.preempt, self.kill, self.complete, self.error])
        if self.held and self.rng.random() < 0.5:
            with_one(sorted(self.held)[0])
        else:
            name()
        self.held = {cell_id: lease for cell_id, lease in self.held.items() if lease.renew()}

    def submit(self):
        scheduled.apply(self.root, self.scheduler, 2, _silent)

    def vanish(self):
        self.scheduler.queue.clear()

    def claim(self):
        lease = leases.claim(self.root, self.rng.choice(sorted(self.cells.keys() - self.held.keys())))
        if lease is not None:
            lease.begin()
            self.held[lease.cell.name] = lease

    def cancel(self):
        if self.rng.random() < 0.2:
            leases.cancel(self.root, self.cells[self.rng.choice(sorted(self.cells))])

    def retry(self):
        leases.retry(self.root, [self.rng.choice(sorted(self.cells))], from_start=False, states=("failed", "cancelled"))

    def preempt(self, cell_id):
        self.held.pop(cell_id).give_back()

    def kill(self, cell_id):
        """The worker's process is gone, and says nothing."""
        lease = self.held.pop(cell_id)
        lease.claim.write_text(json.dumps(json.loads(lease.claim.read_text()) | {"born": "0"}))
        leases._held.discard(lease)

    def complete(self, cell_id, train=fake_train.train):
        self.held.pop(cell_id).give_back()
        lease = leases.claim(self.root, cell_id)
        if lease is not None:
            worker.run_cell(self.root, self.study, self.cells[cell_id], lease, train, _silent)

    def error(self, cell_id):
        self.complete(cell_id, _raise)


def test_at_random_no_cell_takes_a_way_that_the_table_lacks(root):
    gate.write_forecast(root, {}, [])
    allowed = {(state, state) for state in states.STATES} | {(a, b) for (a, _), after in states.TRANSITIONS.items() for b in after}
    allowed |= {(a, c) for a, b in allowed for b2, c in allowed if b == b2 == "running"}  # taken and given back, or ended, in one step
    walk, seen = _Walk(root, random.Random(0)), set()
    before = walk.states()
    for _ in range(300):
        walk.step()
        after = walk.states()
        seen |= {(state, after[cell_id]) for cell_id, state in before.items()}
        before = after
    assert seen <= allowed
    assert {state for pair in seen for state in pair} >= set(states.STATES) - {"diverged"}
    for lease in walk.held.values():
        lease.give_back()
    ids = list(walk.cells)
    leases.retry(root, ids, from_start=False, states=("failed", "cancelled"))
    worker.work(root, fake_train.train, log=_silent)
    rows = read_rows(root)
    assert [row.id for row in rows] == ids
    assert all(row.completed for row in rows)


def test_the_table_names_every_state_and_event():
    assert {state for state, _ in states.TRANSITIONS} | set(states.FINISHED) == set(states.STATES)
    assert {event for _, event in states.TRANSITIONS} == set(states.EVENTS)
    assert {state for after in states.TRANSITIONS.values() for state in after} == set(states.STATES)
    assert set(states.OPEN) | set(states.FINISHED) == set(states.STATES)
    assert records.FINISHED == states.FINISHED


def test_the_page_has_the_table_of_states():
    page = (pathlib.Path(__file__).parent.parent / "docs" / "clusters.md").read_text(encoding="utf-8")
    rows = dict(line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ") and line.count("|") == 3)
    assert {state: rows.get(state) for state in states.STATES} == states.STATES
