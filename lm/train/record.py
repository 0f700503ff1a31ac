"""The record of a run, `run.json`: its configuration, what it consumed and what it measured (imports no jax).

    schema, id, status ("running", "completed", "diverged", "failed", or "imported": weights from elsewhere and no step), reason
    experiment, execution     the two parts of the configuration
    data                      fingerprint and counts of the data set; corpora: name, version of the recipe, fingerprint of each
    parameters                by group: embedding, position, head, blocks, norms, total, non_embedding, matmul
    likelihood                class of the held-out losses: "text" (whole documents) or "pairs" (the objective's targets)
    tokens                    document (D), decoder_stream and encoder_stream (with padding); loss, without bad
                              steps; bytes: UTF-8 bytes of the documents read
    flops                     of the whole training run by convention: 6nd, matmul_full, matmul_causal, and 6nd_naive of an encoder-decoder;
                              xla: XLA's own count, or null
    steps                     number of updates made
    final                     on the held-out documents: nats_per_token, nats_per_byte, bits_per_byte; on held-out pairs: nats_per_token,
                              and where there are labels label_nats and label_accuracy; or null
    curve                     points with step, tokens, flops (matmul_causal), nats_per_byte (of pairs: nats_per_token), lr_ratio, decayed
    environment               versions (lm: of this project), devices, attention; of a pipeline also pipeline_bubble, the share of ticks in
                              which stages idle
    resumes (step, changes of execution)
    bad_steps                 if there were any: count, listed (the first, with reasons), rewinds (where it went back, and the next batch)
    integrity                 if it was checked for silent corruption: to which step (`to`), how often and how (docs/reliability.md)
    imported                  if imported: the directory that the first weights are from, their SHA-256, family and ids of special tokens
    init_from                 if it begins with another run's weights: that run's directory, id and step; family and ids if that has them
    seconds                   train, evaluate, checkpoint; total, which is their sum; compile, which runs of one shape share

Files are replaced as a whole, so that a reader never sees half of one.
"""

import dataclasses
import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

from lm import config as config_lib
from lm import distributed, files
from lm.errors import UserError, require_local
from lm.train import made_by
from lm.train.config import RunConfig

SCHEMA = 1
FILE = "run.json"
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of a run that the caller knows before its first step.

    `data` holds the fingerprint and counts; `parameters` counts by group; `flops_per_token` is the training FLOPs per token of text by
    convention ("6nd", "matmul_full", "matmul_causal"); `bytes_per_token` is UTF-8 bytes per document token of the training text;
    `pipeline_bubble` the share of ticks in which a pipeline's stages have nothing to do, None where there is none.
    """

    id: str
    data: dict[str, Any]
    parameters: dict[str, int]
    flops_per_token: dict[str, float]
    bytes_per_token: float
    pipeline_bubble: Optional[float] = None


class Source(NamedTuple):
    """The run whose weights another begins with, as `init_from` of the latter's record has it."""

    recorded: dict[str, Any]

    @property
    def workdir(self) -> Path:
        return Path(self.recorded["from"])


def first_weights(before: Optional[Record], source: Optional[Source]) -> dict[str, str]:
    """Returns what tells the first weights of a run apart, as part of its id; nothing for random ones, which follow from the seed.

    Args:
      before: the record that is in its work directory.
      source: the run whose weights it begins with.
    """
    if source is not None:
        return {"init_from": f"{source.recorded['run']}@{source.recorded['step']}"}
    return {"weights": before["imported"]["weights"]} if before and "imported" in before else {}


def origin(saved: Record) -> dict[str, Any]:
    """Returns what the record keeps of the model that its weights came from, if any: `ids` of special tokens (lm.hf.ids) and `family`."""
    return saved.get("imported") or saved.get("init_from") or {}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a read-only directory into a UserError of one line."""
    with files.writing(path, "free space or choose another --workdir, then run the same command again"):
        yield


def write(workdir: Path, record: Record) -> None:
    """Replaces run.json, as the first of several processes; UserError when the directory cannot be written."""
    if distributed.is_first():
        write_json(workdir / FILE, record)


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by the JSON of `jsonable(value)`; UserError when it cannot be written."""
    with writing(path):
        files.write_json(path, jsonable(value))


def jsonable(value: Any) -> Any:
    """Returns a value with numpy's numbers as Python's, and with null for NaN and infinity, which JSON has no words for."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(workdir: Path) -> Optional[Record]:
    """Reads the record in a work directory; None without one, and UserError when the file is no record of this schema."""
    require_local(workdir)
    path = workdir / FILE
    try:
        record = json.loads(files.reading(path, lambda: path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or choose another --workdir") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{path} is no run record of schema {SCHEMA}: choose another --workdir")
    if not {"experiment", "execution", "data"} <= record.keys():  # what a worker writes of a run that failed before it began
        said = f"{path} says only that its run is {record.get('status')} ({record.get('reason')})"
        raise UserError(f"{said}: the verb retry of python -m experiments trains it again")
    return record


def new(config: RunConfig, facts: Facts, environment: dict[str, Any]) -> Record:
    """Returns the record of a run that has made no step."""
    return {
        "schema": SCHEMA,
        "id": facts.id,
        "status": "running",
        "reason": None,
        "experiment": config_lib.experiment_part(config),
        "execution": config_lib.execution_part(config),
        "data": facts.data,
        "parameters": facts.parameters,
        "likelihood": config.likelihood,
        "tokens": {"document": 0, "decoder_stream": 0, "encoder_stream": 0, "loss": 0.0, "bytes": 0.0},
        "flops": {**dict.fromkeys(facts.flops_per_token, 0.0), "xla": None},
        "steps": 0,
        "final": None,
        "curve": [],
        "environment": environment | ({} if facts.pipeline_bubble is None else {"pipeline_bubble": facts.pipeline_bubble}),
        "seconds": dict.fromkeys(("total", "train", "evaluate", "compile", "checkpoint"), 0.0),
        "resumes": [],
    }


def reopened(before: Record) -> Record:
    """Returns the record of a run that has diverged as that of one that goes on."""
    return before | {"status": "running", "reason": None}


def check_same(old: Record, new: Record, workdir: Path) -> list[str]:
    """Compares two records of one run and lists the changes of execution.

    Imported weights (lm.hf) have only the fields of model and tokenizer to agree on.

    Raises:
      UserError: the records are of different experiments; it names the fields.
    """
    then = config_lib.from_parts(RunConfig, old["experiment"], old["execution"])  # fields newer than the record: defaults
    changed = config_lib.differences(config_lib.experiment_part(then), new["experiment"])
    if old["status"] == "imported":  # weights and a tokenizer; how they are trained on is decided now
        changed = [change for change in changed if change.startswith(("model.", "data.tokenizer."))]
    if changed:
        more = f", and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise UserError(f"{workdir} holds another run ({'; '.join(changed[:4])}{more}): choose another --workdir, or undo the change")
    if old["status"] != "imported" and old["data"].get("fingerprint") != new["data"].get("fingerprint"):
        raise UserError(f"{workdir} holds another run: {made_by.other_data(old, new['data'])} in another --workdir")
    return config_lib.differences(config_lib.execution_part(then), new["execution"])


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks the work directory for this process; UserError while another trains in it. The lock of a killed process ends with it."""
    path = workdir / ".lock"
    with writing(path):
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}: wait for it, or choose another --workdir") from None
        except OSError:  # a file system without locks
            pass
        yield
