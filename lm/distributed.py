"""Training by several processes: how they find each other, agree and end together.

Every process runs the same program on its own devices. Process 0 writes the record, the metrics and the log. It tells the others what it
finds on disk, or why it refuses a run, so that all proceed alike. lm.peers watches that all are alive. JAX is imported when processes meet.
"""

import contextlib
import dataclasses
import errno
import inspect
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional, TypeVar

from lm import peers
from lm.errors import UserError, one_line

FLAGS = ("distributed", "coordinator", "num_processes", "process_id", "join_timeout", "peer_timeout")
BY_HAND = ("coordinator", "num_processes", "process_id")
METHODS = ("auto", "off", "slurm", "ompi", "mpi4py", "k8s", "tpu")
TPU = ("gketpu", "gcetpu")  # JAX's names of the two Cloud TPU environments
LISTEN = "JAX_COORDINATOR_BIND_ADDRESS"  # JAX's variable for the address at which process 0 listens
MTLS, SECURE = "JAX_MTLS_", "JAX_DISTRIBUTED_VERIFY_SECURE_CREDENTIALS"  # how those begin that name certificates, and that requires them
T = TypeVar("T")


class AgreedError(UserError):
    """An error that every process raises at the same point."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of several processes on a command line. `coordinator` ("host:port"), `processes` and `process` are given together."""

    method: str = "auto"
    coordinator: Optional[str] = None
    processes: Optional[int] = None
    process: Optional[int] = None
    join_timeout: int = 300  # seconds within which all processes must join
    peer_timeout: int = 60  # seconds of silence after which a process counts as lost


def settings(flags: Mapping[str, str]) -> Settings:
    """Returns the settings that flags give, by their names without dashes.

    Raises:
      UserError: a value is wrong, a flag is missing, or two contradict each other.
    """
    method, given = flags.get("distributed", "auto"), [name for name in BY_HAND if name in flags]
    if method not in METHODS:
        raise UserError(f"--distributed={method}: give one of {', '.join(METHODS)}")
    times: dict[str, Any] = {name: _integer(flags, name, 5) for name in ("join_timeout", "peer_timeout") if name in flags}
    if not given:
        return Settings(method, **times)
    if method != "auto":
        raise UserError(f"--distributed={method} and --{given[0]} contradict each other: leave one out")
    missing = [f"--{name}" for name in BY_HAND if name not in flags]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: --{', --'.join(BY_HAND)} are given together"
        )
    coordinator, processes, process = flags["coordinator"], _integer(flags, "num_processes", 1), _integer(flags, "process_id", 0)
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={coordinator}: give the host of process 0 and a free port on it, such as node01:12345")
    if process >= processes:
        raise UserError(f"--process_id={process} is out of range: {processes} processes have the ids 0 to {processes - 1}")
    return Settings(method, coordinator, processes, process, **times)


def _integer(flags: Mapping[str, str], name: str, least: int) -> int:
    if not flags[name].isdecimal() or int(flags[name]) < least:
        raise UserError(f"--{name}={flags[name]}: give a whole number, {least} or more")
    return int(flags[name])


def launcher(environment: Mapping[str, str]) -> Optional[str]:
    """Returns JAX's name of the launcher that started this process as one of several; None for a process on its own.

    A task of a SLURM job array, a batch script and an interactive shell are on their own: only a step of `srun` has several tasks.
    """

    def number(*names: str) -> int:
        text = next((environment[name] for name in names if name in environment), "")
        return int(text) if text.isdecimal() else 0

    if number("OMPI_COMM_WORLD_SIZE") > 1:
        return "ompi" if "OMPI_MCA_orte_hnp_uri" in environment else "mpi4py"  # Open MPI 5 does not say where its first process is
    is_step = all(f"SLURM_{name}" in environment for name in ("JOB_ID", "STEP_NODELIST", "PROCID", "LOCALID"))
    if is_step and number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") > 1:
        return "slurm"
    return None


@contextlib.contextmanager
def joined(how: Settings) -> Iterator[None]:
    """Joins the other processes, if there are any, and ends together with them. Nothing may use JAX before it.

    An error inside the block ends this process, and all others with a line that names this one.

    Raises:
      UserError: the other processes cannot be found, or this one has been started twice.
    """
    place = find_place(how)
    if place is None:
        yield
        return
    with only_one(place[0], place[2]):
        yield from _together(_meet(how, *place))


def _together(watch: peers.Watch) -> Iterator[None]:
    """Yields while this process is one of several, whose end is the end of all."""
    peers.current = watch
    try:
        yield
    except BaseException as error:
        agreed = isinstance(error, AgreedError) or watch.stopped is not None
        if not agreed or not isinstance(error, (UserError, SystemExit, KeyboardInterrupt)):
            watch.fail(error)  # does not return
        watch.leave()
        raise
    else:
        watch.leave()
    finally:
        peers.current = None


@contextlib.contextmanager
def only_one(coordinator: str, process: int) -> Iterator[None]:
    """Holds the name of this process on its machine: JAX ends a run when a second process meets it under the number of a living one.

    The name is that of a socket, which the system frees when the process ends, however it ends.

    Raises:
      UserError: another process of this machine has that name.
    """
    if not sys.platform.startswith("linux"):  # other systems have no names of sockets without files
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        try:
            held.bind(f"\0lm/{process}/{coordinator}".encode()[:107])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"process {process} of the run at {coordinator} runs on this machine already: wait for its end, or give another port"
                ) from error
        yield


def find_place(how: Settings) -> Optional[tuple[str, int, int, Any]]:
    """Returns (coordinator, number of processes, number of this one, its devices or None for all); None for a single process.

    Raises:
      UserError: the launcher that was asked for or found does not say where the others are.
    """
    if how.coordinator is not None:
        assert how.processes is not None
        assert how.process is not None
        return (how.coordinator, how.processes, how.process, None) if how.processes > 1 else None
    name = (launcher(os.environ) or _tpu()) if how.method == "auto" else how.method
    if name in (None, "off"):
        return None
    from jax._src.clusters import ClusterEnv

    wanted = TPU if name == "tpu" else (name,)
    try:
        present = next((kind for kind in ClusterEnv._cluster_types if kind.name in wanted and kind.is_env_present()), None)
        if present is None:
            raise UserError(f"{_absent(name)}, or {_by_hand()}")
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, present.name, how.join_timeout)
    except UserError:
        raise
    except Exception as error:  # the environment fails in many ways: a missing variable, a service that does not answer
        raise UserError(f"--distributed={name}: {one_line(error)}; or give --{', --'.join(BY_HAND)}") from error
    coordinator, processes, process, devices = found
    assert coordinator is not None
    assert processes is not None
    assert process is not None
    return (coordinator, processes, process, devices) if processes > 1 else None


def _by_hand() -> str:
    return f"give --{', --'.join(BY_HAND)}, or --distributed=off"


def _absent(name: Optional[str]) -> str:
    """Returns why JAX does not see the launcher that was asked for or found."""
    if name == "mpi4py":
        return "Open MPI 5 needs the package mpi4py, which is not installed: install it"
    if name == "k8s" and "KUBERNETES_SERVICE_HOST" in os.environ:
        return "--distributed=k8s needs the package kubernetes: pip install 'jax[k8s]'"
    return f"this process was not started by {name}: start it with {name}"


def _tpu() -> Optional[str]:
    """Returns the Cloud TPU environment of this host if its slice has several hosts: there JAX waits for all of them."""
    if not os.path.exists("/dev/vfio/0") and not os.path.exists("/dev/accel0"):
        return None  # no TPU: JAX need not be asked
    from jax._src import cloud_tpu_init
    from jax._src.clusters import ClusterEnv

    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return None
    kinds = (kind for kind in ClusterEnv._cluster_types if kind.name in TPU and kind.is_env_present())
    try:
        return next((kind.name for kind in kinds if kind.get_process_count() > 1), None)
    except Exception as error:  # the metadata server fails in many ways
        raise UserError(f"the other hosts of this TPU cannot be found ({one_line(error)[:200]}): {_by_hand()}") from error


def _meet(how: Settings, coordinator: str, processes: int, process: int, devices: Any) -> peers.Watch:
    import jax
    from jax._src.distributed import global_state

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM and ignores Ctrl-C: see lm.peers
    require_mtls(jax.distributed.initialize, os.environ)
    failed = f"process {process} of {processes} did not meet the others at {coordinator} within {how.join_timeout} s"
    remedy = f"start all of them, and check that the address is that of process 0 and its port is free (if it has several, see {LISTEN})"
    peers.on_abort(f"error: {failed}: {remedy}", status=2)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            devices,
            cluster_detection_method="deactivate",
            initialization_timeout=how.join_timeout,
            heartbeat_timeout_seconds=2 * how.peer_timeout + 60,  # longer than that of lm.peers, whose message is clearer
            shutdown_timeout_seconds=how.peer_timeout,
            coordinator_bind_address=listening_at(coordinator) if process == 0 else None,
        )
    except Exception as error:  # JAX raises several types: for a wrong address, a time-out, a service that refuses
        raise UserError(f"{failed} ({one_line(error)[:200]}): {remedy}") from error
    return peers.Watch(global_state.client, process, processes, coordinator, how.peer_timeout)


def require_mtls(initialize: Callable[..., Any], environment: Mapping[str, str]) -> None:
    """Raises UserError where the environment asks for certificates of the processes, and this JAX has none and would take no notice.

    Later releases read these variables themselves, in `jax.distributed.initialize`.

    Args:
      initialize: JAX's function.
      environment: the process's.
    """
    asked = next((name for name in sorted(environment) if name.startswith(MTLS) or name == SECURE), None)
    if asked is not None and "mtls_cert_file" not in inspect.signature(initialize).parameters:
        raise UserError(
            f"{asked} is set, and this release of JAX has no mutual TLS: whoever reaches the port could speak; take a later one"
        )


def listening_at(coordinator: str) -> Optional[str]:
    """Returns the address at which process 0 listens: that by which the others know it; None leaves the choice to JAX.

    Whoever can speak to JAX's service can end a run, so that it is offered to no more networks than need be. A name that means another
    machine's address, such as a cluster's service, or this machine's loopback, as in many a hosts file, says nothing of where others call.
    """
    host, _, port = coordinator.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, kind, _, _, address in found:
            with socket.socket(family, kind) as probe:
                probe.bind((address[0], 0, *address[2:]))
    except OSError:
        return None
    if os.environ.get(LISTEN) or (host != "localhost" and not _is_address(host) and any(_is_loopback(each[4][0]) for each in found)):
        return None
    return coordinator


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()


def _is_loopback(address: Any) -> bool:
    return str(address).startswith("127.") or str(address) == "::1"


# ---- agreement: all processes call these functions in the same order -------------------------------------------------------

_calls = threading.local()


@contextlib.contextmanager
def counted_apart(name: str) -> Iterator[None]:
    """Counts the calls of this thread by themselves. So a thread of every process may call in its own order, beside the others."""
    before = vars(_calls).copy()
    _calls.name, _calls.numbers = name, itertools.count()
    try:
        yield
    finally:
        vars(_calls).clear()
        vars(_calls).update(before)


def _number() -> str:
    """Returns the name of this call, the same on every process."""
    name = getattr(_calls, "name", None)
    return f"{next(_numbers)}" if name is None else f"{name}/{next(_calls.numbers)}"


_numbers = itertools.count()


def index() -> int:
    """Returns the number of this process; 0 for a single process."""
    return peers.current.index if peers.current else 0


def count() -> int:
    """Returns how many processes train together."""
    return peers.current.count if peers.current else 1


def is_first() -> bool:
    """Returns whether this process is process 0, which writes the record, the metrics and the log."""
    return index() == 0


def first(action: Callable[[], T]) -> T:
    """Runs `action` on process 0 and returns its result (a JSON value) on every process.

    Raises:
      AgreedError: `action` raised a UserError or an OSError; every process raises it.
    """
    watch = peers.current
    if watch is None:
        return action()
    key = f"lm/first/{_number()}"
    if watch.index == 0:
        answer = json.dumps(_tried(action))
        watch.post(key, answer)
    else:
        answer = watch.read_by_all(key, watch.count - 1)
    answer = json.loads(answer)
    if "error" in answer:
        raise AgreedError(answer["error"])
    return answer["value"]


def each(action: Callable[[], Any]) -> None:
    """Runs `action` on every process.

    Raises:
      AgreedError: `action` raised a UserError or an OSError on some process; every process raises the first of these.
    """
    combined(lambda: action() and None, lambda _: None)


def combined(action: Callable[[], Any], combine: Callable[[list[Any]], T]) -> T:
    """Runs `action` on every process, and returns on every process what `combine` makes of all results (JSON values, in order).

    Raises:
      AgreedError: `action` raised a UserError or an OSError on some process; every process raises the first of these.
    """
    watch = peers.current
    if watch is None:
        return combine([action()])
    key = f"lm/each/{_number()}"
    watch.post(f"{key}/{watch.index}", json.dumps(_tried(action)))

    def all_of_them() -> T:
        answers = [json.loads(watch.read(f"{key}/{process}")) for process in range(watch.count)]
        error = next((answer["error"] for answer in answers if "error" in answer), None)
        if error is not None:
            raise UserError(error)
        return combine([answer["value"] for answer in answers])

    try:
        return first(all_of_them)
    finally:
        watch.forget(f"{key}/{watch.index}")  # process 0 has read it


def may_be_of_another(error: BaseException) -> bool:
    """Returns whether an error may be due to the end of another process: then collectives with it fail."""
    return peers.current is not None and peers.is_of_connection(error)


def _tried(action: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": action()}
    except (UserError, OSError) as error:
        return {"error": one_line(error)}
