"""The states of a cell and the events that lead from one to another (imports nothing).

Nobody stores a state: it follows from the cell's record, its claims and the scheduler's queue (lm.study.status). The table says which
changes are possible, and the tests walk through it at random.
"""

STATES = {
    "pending": "no run has begun, and no worker is on its way",
    "queued": "a scheduler holds or runs workers of its kind, which will come to it",
    "running": "a worker trains it",
    "preempted": "its run has begun and its worker is gone; the next one goes on from the newest checkpoint",
    "completed": "its run reached its end",
    "diverged": "loss or gradient were not finite in more steps than it may leave out, which is a result",
    "failed": "it ended with an error twice, ran out of memory, or lost its workers again and again with no step in between",
    "cancelled": "a user asked that it be left out",
}
EVENTS = {
    "submit": "workers of its kind are handed to a scheduler",
    "vanish": "the scheduler has none of them any more",
    "claim": "a worker takes it",
    "preempt": "its worker ends without a result: a signal, a time limit, a lost node",
    "error": "its run raises an error for the first time: it is tried once more",
    "fail": "its run raises an error again, has no memory, or lost its workers again and again in one place",
    "complete": "its run ends",
    "diverge": "its run is given up for its losses",
    "cancel": "a user cancels it",
    "retry": "a user asks for it again",
}
OPEN = ("pending", "queued", "running", "preempted")  # a worker may take it, or has it
FINISHED = ("completed", "diverged", "failed", "cancelled")  # no worker takes it, until a user asks again

# Each entry: (state, event) -> the states that may follow. What follows "vanish" and "preempt" depends on whether a run had begun, and on
# whether other workers of its kind are on their way.
TRANSITIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("pending", "submit"): ("queued",),
    ("preempted", "submit"): ("queued",),
    ("queued", "vanish"): ("pending", "preempted"),
    **dict.fromkeys([(state, "claim") for state in ("pending", "queued", "preempted")], ("running",)),
    ("running", "preempt"): ("pending", "preempted", "queued"),
    ("running", "error"): ("pending", "preempted", "queued"),
    ("running", "fail"): ("failed",),
    ("running", "complete"): ("completed",),
    ("running", "diverge"): ("diverged",),
    **dict.fromkeys([(state, "cancel") for state in OPEN], ("cancelled",)),
    **dict.fromkeys([(state, "retry") for state in ("failed", "cancelled", "diverged")], ("pending", "preempted", "queued")),
}
