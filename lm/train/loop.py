"""The training loop: it dispatches steps, and evaluates, saves and records on the way. lm.train.program has the step.

The loop is cut at the steps after which something happens on the host (evaluation, checkpoint, profile). Between cuts it dispatches up to
`steps_per_dispatch` steps at a time, and reads the metrics of a dispatch only after the next one is under way.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm import distributed
from lm.errors import UserError, one_line
from lm.optim.schedules import is_decayed, rate_ratio
from lm.train import bundle, checkpoint, environment, pretrained, record, sealed
from lm.train.bad_steps import BadSteps, Diverged, Rewind, reason_of
from lm.train.config import MEASURE, FallBack, RunConfig
from lm.train.derived import hyper_of, row_of, shape_of, tokens_per_step, total_steps
from lm.train.eval_steps import evaluation_steps
from lm.train.feed import Stream, put, to_device, wait_on_virtual_devices
from lm.train.integrity import Integrity
from lm.train.metrics import Silence, StepMetrics, open_log
from lm.train.profiler import Profiler
from lm.train.program import Program
from lm.train.progress import Log, Progress, warn
from lm.train.record import Facts, Record, Source
from lm.train.saving import Saver
from lm.train.signals import Stop, Stopping, stopping
from lm.train.watchdog import Watchdog, alive
from lm.types import Batch, Hyper, Params, TrainState

Evaluate = Callable[[Params, str], dict[str, float]]  # (parameters, "curve" or "final") -> numbers, MEASURE[config.likelihood] among them


def train(
    config: RunConfig,
    workdir: Path,
    stream: Stream,
    program: Program,
    *,
    facts: Facts,
    source: Optional[Source] = None,
    evaluate: Optional[Evaluate] = None,
    frozen: Any = None,
    attention_backend: str = "xla",
    log: Optional[Log] = None,
    profile: Optional[tuple[int, int]] = None,
    fall_back: Optional[FallBack] = None,
) -> Record:
    """Trains `config` to its end in `workdir`, from the newest checkpoint there. A completed or diverged run is not trained again.

    Args:
      config: the run's configuration.
      workdir: the directory of its record, metrics and checkpoints.
      stream: the batches, by step.
      program: the compiled functions of the configuration's shape.
      facts: what the record says of the run beside what training measures.
      source: the run whose weights it begins with; None: its own random or imported ones.
      evaluate: measures held-out likelihood; None measures none.
      frozen: arrays that the loss gets beside the parameters and no gradient is taken of; pre-training has none.
      attention_backend: the name of the attention kernel, for the record.
      log: prints a line (default: silent).
      profile: the steps [a, b) of which a profiler trace is written.
      fall_back: what to do where the newest checkpoint is not sound (lm.train.checkpoint.restore); None refuses.

    Returns:
      The record, which is also in run.json.

    Raises:
      UserError: a work directory of another experiment, or one that another process trains in; a full disk or a read-only directory.
      KeyboardInterrupt, SystemExit: Ctrl-C, another signal or the time is over (lm.train.signals); the state is saved first. Other errors
        are recorded as "failed" and raised.
    """
    assert shape_of(program.config) == shape_of(config), "this program was compiled for another shape of run"
    workdir = Path(workdir)
    if jax.process_count() != distributed.count():  # each would write the same record, and none would notice the end of another
        raise UserError(f"this is one of {jax.process_count()} processes that do not know each other: use lm.distributed.joined")
    profiler = Profiler(workdir, profile, total_steps(config))
    with contextlib.ExitStack() as held, stopping() as stop:
        distributed.first(lambda: held.enter_context(record.locked(workdir)))
        before, checkpoints = distributed.first(lambda: (record.read(workdir), checkpoint.steps(workdir)))
        devices = list(program.mesh.devices.flat)
        now = record.new(config, facts, environment.environment(attention_backend=attention_backend, devices=devices))
        changes = record.check_same(before, now, workdir) if before else []
        if before is None and checkpoints:  # they are of an unknown run, and a later resume would take them
            raise UserError(f"{workdir} holds checkpoints and no {record.FILE}: restore it, or delete {workdir / sealed.FOLDER}")
        if before and before["status"] in ("completed", "diverged"):
            return before
        run = Run(config, workdir, stream, program, facts, source, evaluate, frozen, now, log, profiler, fall_back)
        with contextlib.closing(run):
            run.begin(before, changes)
            with stop.with_state(), run.end_recorded(), Watchdog(60 * config.checkpoint.hang_minutes):
                try:
                    run.train(stop)
                except Stopping:  # in an evaluation, which is made anew
                    run.save_and_leave(stop)
        if stop.requested is not None:  # too late to stop this run, but the caller has to end
            stop.leave()
        return run.record


@dataclasses.dataclass(eq=False)
class Run:
    """A run in progress: the state on the devices, and the host's values that change from step to step."""

    config: RunConfig
    workdir: Path
    stream: Stream
    program: Program
    facts: Facts
    source: Optional[Source]
    evaluate: Optional[Evaluate]
    frozen: Any
    record: Record
    log: Optional[Log]
    profiler: Profiler
    fall_back: Optional[FallBack] = None
    step: int = 0  # steps dispatched
    counted: tuple[int, int] = (0, 0)  # steps whose document tokens are counted, and these tokens

    # set by begin()
    state: TrainState = dataclasses.field(init=False)
    device_hyper: Hyper = dataclasses.field(init=False)
    before: Optional[Record] = dataclasses.field(init=False)
    file: Any = dataclasses.field(init=False)  # the log of metrics
    metrics: StepMetrics = dataclasses.field(init=False)
    progress: Progress = dataclasses.field(init=False)
    saver: Saver = dataclasses.field(init=False)
    integrity: Integrity = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.total = total_steps(self.config)
        self.hyper = hyper_of(self.config)
        self.measure = MEASURE[self.config.likelihood]
        self.closing = contextlib.ExitStack()
        self.in_flight: collections.deque = collections.deque()  # (first step, batches, device results) not yet read
        self.bad_steps = BadSteps(self.config.bad_steps)
        rewinds = self.config.bad_steps.policy == "rewind"
        self.rewind_every = self.config.bad_steps.rewind_every if rewinds else None

    def begin(self, before: Optional[Record], changes: list[str]) -> None:
        """Restores the newest checkpoint, or makes the initial state."""
        self.device_hyper = jax.tree.map(self.on_device, self.hyper)
        self.record["seconds"]["compile"] = self.program.compile_seconds
        self.record |= pretrained.provenance(before, self.source)
        self.before = before
        restored = self.restored(before) if before is not None else None
        host = self.start_from(restored)
        if restored is not None:
            self.record["seconds"] = host["seconds"]
            self.record["resumes"] = [*(before or {}).get("resumes", []), {"step": self.step, "execution": changes}]
            self.bad_steps = BadSteps(self.config.bad_steps, host.get("bad_steps", {}))
        self.closing.callback(lambda: self.file.close())
        self.progress = Progress(self.total, tokens_per_step(self.config), self.step, self.log)
        self.closing.callback(self.progress.close)
        how = self.config.checkpoint
        newest = None if restored is None else self.step
        self.saver = Saver(self.workdir, how.keep, newest, 60 * how.patience_minutes, self.alarm, self.rewind_every)
        self.closing.callback(self.saver.leave)
        checked = (before or {}).get("integrity", {}) if restored is not None else {}
        self.integrity = Integrity(self.config, self.program, self.total, self.device_hyper, self.frozen, self.alarm, checked)
        if restored is not None:
            self.progress.say(f"continuing {self.workdir} from step {self.step:,}" + "".join(f"; {change}" for change in changes))
        self.write_record()

    def start_from(self, restored: Optional[checkpoint.Restored]) -> dict[str, Any]:
        """Places the state of a checkpoint, or the initial one, and the lines of metrics up to it; returns the host's values beside it."""
        if restored is None:
            initial = wait_on_virtual_devices(self.program.mesh, self.program.init(self.device_hyper.seed))
            self.state = pretrained.first_state(initial, self.program.layers, self.before, self.source, self.workdir)
            self.step, host = 0, {}
        else:
            self.state, host = self.program.layers.read(restored.state), restored.host
            self.step = int(jax.device_get(self.state.step))
        self.record["curve"] = host.get("curve", [])
        self.file = open_log(self.workdir, self.step, self.config, self.record["id"], self.alarm)
        every, per_step = self.config.log.every_steps, tokens_per_step(self.config)
        self.metrics = StepMetrics(self.file, self.program.scalars, every, self.total, per_step, **host.get("metrics", {}))
        return host

    def alarm(self, line: str) -> None:
        """Prints a line that a silent run shows too."""
        (self.progress.say if self.log else warn)(line)

    def restored(self, before: Record) -> Optional[checkpoint.Restored]:
        """Restores the newest checkpoint of this run; imported weights, which are that of step 0, are no state of it."""
        stored, first = self.program.layers.stored, 1 if "imported" in before else 0
        return checkpoint.restore(self.workdir, stored, self.log or warn, fall_back=self.fall_back, first=first)

    @contextlib.contextmanager
    def end_recorded(self) -> Iterator[None]:
        """Records how the training in its body ended: completed, diverged or failed."""
        try:
            yield
            self.finish("completed", None)
        except Diverged as error:
            self.step = error.step
            self.finish("diverged", f"step {error.step}: {error}")
        except (UserError, OSError):
            raise  # the environment is at fault: the run can continue when it is mended
        except Exception as error:  # recorded, so that a rule can exclude the run, and raised again
            if not distributed.may_be_of_another(error):
                self.finish("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            raise

    def finish(self, status: str, reason: Optional[str]) -> None:
        self.metrics.flush()
        self.record |= {"status": status, "reason": reason}
        self.write_record()

    def close(self) -> None:
        with Watchdog(60 * self.config.checkpoint.hang_minutes):  # a save under way may hang
            self.profiler.close()
            self.closing.close()

    def train(self, stop: Stop) -> None:
        """Trains from self.step to the end, and again from an earlier step where the policy says so."""
        while True:
            try:
                return self.train_on(stop)
            except Rewind as bad:
                step = bad.step
            self.go_back(step)  # here: the error's traceback holds the state on the devices

    def train_on(self, stop: Stop) -> None:
        """Trains from self.step to the end: dispatches steps up to the next cut, then does what is due there."""
        evaluations = set(self.curve_steps())
        saves = {
            step for every in (self.config.checkpoint.every_steps, self.rewind_every) if every for step in range(every, self.total, every)
        }
        checks = self.integrity.cuts(self.step, saves)
        cuts = sorted(evaluations | saves | checks | set(self.profiler.cuts) | {self.total})
        batches = self.batches()
        self.check()
        self.profiler.at(self.step, self.state)
        if self.step in evaluations:  # it was given up when the run had to end
            self.evaluate_curve()
        for cut in (cut for cut in cuts if self.step < cut <= self.total):
            self.advance(batches, cut, stop)
            self.profiler.at(self.step, self.state)
            if self.step == cut:
                self.check()
            if self.step == cut < self.total and cut in evaluations:
                self.evaluate_curve()
            if self.step == cut and cut in saves:
                self.save()
            if stop.check():
                self.save_and_leave(stop)
        self.save()  # before the last evaluation, whose failure must not cost the training
        self.evaluate_curve()
        self.evaluate_final()
        self.require_saved()

    def check(self) -> None:
        """Looks for silent corruption where that is due after this step; UserError where there is some."""

        def batches(first: int, last: int) -> list[Batch]:
            return [batch for turn in self.bad_steps.batches(first, last) for batch in self.stream.iterate(*turn)]

        states = [self.state]
        del self.state
        with self.timed("train"):
            self.state = self.integrity.at(self.step, states, batches)

    def batches(self) -> Iterator[Batch]:
        """Returns the batches of the steps from here on."""
        first = self.bad_steps.batch_of(self.step)
        try:
            return iter(self.stream.iterate(first, first + self.total - self.step))
        except UserError as error:
            if first == self.step:
                raise
            raise UserError(f"the run went back and passed over {first - self.step:,} batches, and so needs more text: {error}") from error

    def advance(self, batches: Iterator[Batch], cut: int, stop: Stop) -> None:
        """Dispatches the steps up to `cut`, or up to a signal, and reads their metrics."""
        most = self.config.execution.steps_per_dispatch
        with self.timed("train"), jax.transfer_guard("disallow"):
            while self.step < cut and not stop.check():
                count = min(most, cut - self.step)
                taken = list(itertools.islice(batches, count))
                block = to_device(taken, most, self.program.batch_shardings, self.config.batch_size)
                dispatched = self.program.run(self.state, self.frozen, block, self.device_hyper, self.on_device(np.int32(count)))
                self.state, *results = wait_on_virtual_devices(self.program.mesh, dispatched)
                self.in_flight.append((self.step, taken, results))
                self.step += count
                self.read_metrics(leave=1)
                self.look_at_saves()
            self.read_metrics(leave=0)

    def read_metrics(self, leave: int) -> None:
        """Fetches all but the newest `leave` dispatches; raises Diverged or Rewind where a bad step ends the run or sends it back."""
        while len(self.in_flight) > leave:
            first, batches, results = self.in_flight.popleft()
            scalars, vectors = jax.device_get(results)
            names = self.program.scalars
            for i in np.flatnonzero(scalars[: len(batches), names.index("skipped")]).tolist():
                try:
                    self.bad_step(first + i + 1, batches[i], dict(zip(names, scalars[i].tolist(), strict=True)))
                except (Diverged, Rewind):
                    self.metrics.add(first, i, scalars, vectors)
                    raise
            loss = self.metrics.add(first, len(batches), scalars, vectors)
            self.progress.update(first + len(batches), loss)
            alive()

    def bad_step(self, step: int, batch: Batch, scalars: dict[str, float]) -> None:
        """Counts a step that was left out, keeps what reproduces it, and says so; raises Diverged or Rewind as its policy says."""
        reason = reason_of(scalars["loss"], scalars["grad_norm"])
        self.bad_steps.add(step, reason)
        said = {"step": step, "batch": self.bad_steps.batch_of(step - 1), "seed": self.config.seed, "reason": reason, "id": self.facts.id}
        said |= {name: str(np.float32(scalars[name])) for name in ("loss", "grad_norm")}  # nan and inf are no JSON
        self.saver.wait()  # a checkpoint on its way is of a step before this one
        newest = 0 if self.saver.newest is None and self.before and "imported" in self.before else self.saver.newest
        self.record |= self.bad_steps.recorded()
        try:
            kept = bundle.write(self.workdir, said, batch, self.record, newest)
        except (UserError, OSError) as error:
            self.alarm(f"what reproduces step {step:,} could not be kept: {one_line(error)}")
        else:
            if kept and distributed.is_first():
                self.alarm(f"ALARM: step {step:,} changes no weights, because its {reason}; `python -m lm.replay {kept}` repeats it")
        self.bad_steps.judge(reason)

    def go_back(self, step: int) -> None:
        """Goes back from a bad step to an earlier state, from which other batches are taken. What was done since is forgotten.

        Raises:
          UserError: the checkpoint of that state is not there or not sound, and no flag allows another. Nothing has been changed then.
        """
        assert self.rewind_every is not None
        self.in_flight.clear()
        del self.state  # before there is another: two may not fit
        restored = self.state_before(step)
        self.profiler.close()
        self.file.close()
        self.file = Silence()  # closed once, also where no other can be opened
        self.start_from(restored)
        self.saver.go_back(self.step, is_planned=self.step == self.bad_steps.back_from(step))
        self.bad_steps.go_back(step, self.step)
        self.counted = (0, 0)
        if distributed.is_first():
            self.alarm(f"going back to step {self.step:,}, and on with batch {self.bad_steps.batch_of(self.step):,}")
        self.write_record()

    def state_before(self, step: int) -> Optional[checkpoint.Restored]:
        """Restores the state that the policy rewind goes back to from a bad step; None means the initial one. Raises as go_back does."""
        wanted, every = self.bad_steps.back_from(step), self.rewind_every
        assert every is not None
        points = distributed.first(lambda: [at for at in checkpoint.steps(self.workdir) if at and at < step and at % every == 0])
        if wanted not in (0, *points):
            earlier = f"--fall_back=older to go back to step {points[-1]}" if points else "--fall_back=nothing to train from the start"
            if self.fall_back is None or (self.fall_back == "older" and not points):
                raise UserError(
                    f"step {step} is bad, and there is no checkpoint of step {wanted} to go back to: restore it, or add {earlier}"
                )
        return checkpoint.restore(self.workdir, self.program.layers.stored, self.alarm, fall_back=self.fall_back, among=points)

    def on_device(self, value: Any) -> jax.Array:
        """Puts a value of the host on every device."""
        return put(value, NamedSharding(self.program.mesh, PartitionSpec()))

    def save_and_leave(self, stop: Stop) -> None:
        """Saves the state and ends the process as the signal asks."""
        self.require_saved()
        self.record["reason"] = f"interrupted at step {self.step}"
        self.write_record()
        self.progress.say(f"stopped at step {self.step:,} of {self.total:,}; the same command continues from there")
        stop.leave()

    def curve_steps(self) -> tuple[int, ...]:
        """Returns the steps at which the loss curve has points."""
        if self.evaluate is None:
            return ()
        points = self.config.evaluation.points_per_decade
        return evaluation_steps(self.total, points, self.config.optim.schedule, int(self.hyper.warmup_steps))

    def evaluate_curve(self) -> None:
        """Adds a point to the loss curve. All points of a run, the last included, are on one set of documents."""
        if self.evaluate is None or any(point["step"] == self.step for point in self.record["curve"]):
            return
        found, schedule = self.evaluate_on("curve"), self.config.optim.schedule
        tokens = self.step * tokens_per_step(self.config)
        ratio = rate_ratio(schedule, self.step, self.hyper.warmup_steps, self.hyper.total_steps)
        self.record["curve"].append(
            {
                "step": self.step,
                "tokens": tokens,
                "flops": tokens * self.facts.flops_per_token["matmul_causal"],
                self.measure: found[self.measure],
                "lr_ratio": float(ratio),
                "decayed": is_decayed(schedule, self.step, self.total),
            }
        )

    def evaluate_final(self) -> None:
        """Records the final evaluation."""
        if self.evaluate is not None:
            self.record["final"] = self.evaluate_on("final")

    def evaluate_on(self, which: str) -> dict[str, float]:
        """Measures held-out likelihood on the documents of the "curve" or of the "final" evaluation; Diverged if it is not finite."""
        assert self.evaluate is not None
        with self.timed("evaluate"):
            found = self.evaluate(self.state.params, which)
        if not math.isfinite(found[self.measure]):
            raise Diverged(self.step, f"held-out loss is {found[self.measure]}")
        return found

    def save(self) -> None:
        """Begins to write a checkpoint of this step, with the host's values that an exact resume needs, and run.json after it."""
        if self.step in (0, self.saver.step):  # what has made no step begins anew the same
            return
        self.integrity.compare(self.step, self.state)  # what is corrupt is not saved
        with self.timed("checkpoint"):
            try:
                distributed.first(self.metrics.flush)  # a run that goes on from here does not write their lines again
            except (UserError, OSError) as error:
                self.saver.failed(self.step, error)
            else:
                host = {"metrics": self.metrics.carried(), "curve": self.record["curve"], "seconds": self.record["seconds"]}
                host |= {"bad_steps": self.bad_steps.carried()} if self.bad_steps.count else {}
                self.count()
                self.saver.begin(self.step, self.program.layers.write(self.state), host, self.record)
        self.look_at_saves()

    def require_saved(self) -> None:
        """Writes a checkpoint of this step, unless there is one, and waits for it; UserError if it cannot be written."""
        self.save()
        with self.timed("checkpoint"):
            self.saver.wait()
        self.save()  # again, if that failed
        if self.step:
            self.saver.require(self.step)

    def look_at_saves(self) -> None:
        """Says in the metrics whether checkpoints are written."""
        self.saver.poll()
        failing: dict[str, float] = {"checkpoint_failures": self.saver.failures, "checkpoint_age_seconds": round(self.saver.age)}
        self.metrics.alarms = failing if self.saver.failures else {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the seconds that its body takes to the record."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.record["seconds"][name] += spent
            self.record["seconds"]["total"] += spent

    def write_record(self) -> None:
        """Brings the counts up to this step and replaces run.json."""
        self.saver.wait()  # which replaces it too
        self.count()
        record.write(self.workdir, self.record)

    def count(self) -> None:
        """Brings the counts of the record up to this step."""
        text_tokens, rows, row = self.step * tokens_per_step(self.config), self.step * self.config.batch_size, row_of(self.config)
        before, document = self.counted  # packed rows have to be read to be counted, so each is counted once
        document += sum(self.stream.document_tokens(first, last) for first, last in self.bad_steps.batches(before, self.step))
        self.counted = (self.step, document)
        xla = self.program.flops_per_step
        self.record |= (
            self.bad_steps.recorded()
            | self.integrity.recorded()
            | {
                "steps": self.step,
                "tokens": {
                    "document": document,
                    "decoder_stream": rows * row.length if self.config.model.architecture != "encoder" else 0,
                    "encoder_stream": rows * (row.length if self.config.model.architecture == "encoder" else row.encoder_length),
                    "loss": self.metrics.loss_tokens,
                    "bytes": document * self.facts.bytes_per_token,
                },
                "flops": {
                    **{name: per_token * text_tokens for name, per_token in self.facts.flops_per_token.items()},
                    "xla": None if xla is None else xla * self.program.mesh.size * self.step,
                },
            }
        )
