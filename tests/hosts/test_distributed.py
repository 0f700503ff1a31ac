"""Which processes belong together, by flags and by what launchers leave in the environment; which rows each builds."""

import contextlib
import itertools
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from lm import distributed, peers
from lm.distributed import Settings
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.sharding import RULES, make_mesh
from lm.train import feed

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}
OMPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
ORTE = {**OMPI, "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.1:34911"}
BY_HAND = {"coordinator": "n1:1234", "num_processes": "2", "process_id": "1"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        (SLURM, "slurm"),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),  # a task of a job array, or a shell
        ({**SLURM, "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, None),  # a batch script: no step
        (ORTE, "ompi"),
        (OMPI, "mpi4py"),
        ({**SLURM, **ORTE}, "ompi"),
        ({**ORTE, "OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # every pod has it
    ],
)
def test_a_launcher_of_several_processes_is_known_by_its_environment(environment, name):
    assert distributed.launcher(environment) == name


def test_slurm_says_where_the_first_process_is(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert distributed.find_place(Settings()) == (f"n1:{65535 - 4096 + 1 + 7}", 2, 1, [0])
    assert distributed.find_place(Settings("off")) is None


def test_flags():
    assert distributed.settings({}) == Settings()
    assert distributed.settings({**BY_HAND, "peer_timeout": "9"}) == Settings("auto", "n1:1234", 2, 1, peer_timeout=9)
    assert distributed.find_place(distributed.settings(BY_HAND)) == ("n1:1234", 2, 1, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process_id": "2"}, "process_id=2.*0 to 1"),
        ({"process_id": "-1"}, "process_id=-1"),
        ({"num_processes": None}, "--num_processes"),
        ({"coordinator": None}, "--coordinator"),
        ({"coordinator": "n1"}, "node01:12345"),
        ({"distributed": "slurm"}, "--distributed=slurm and --coordinator"),
        ({"distributed": "pbs"}, "--distributed=pbs.*auto, off"),
        ({"peer_timeout": "soon"}, "peer_timeout=soon"),
    ],
)
def test_flags_that_mean_nothing_are_refused_in_one_line(change, message):
    flags = {name: value for name, value in {**BY_HAND, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        distributed.settings(flags)


def test_a_launcher_that_did_not_start_this_process_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="slurm"), distributed.joined(Settings("slurm")):
        pass


class Part:
    """A sharding as one of several processes sees it."""

    def __init__(self, mesh, names, devices):
        self._sharding, self._devices = jax.NamedSharding(mesh, RULES.spec(names)), devices

    def addressable_devices_indices_map(self, shape):
        return {d: part for d, part in self._sharding.devices_indices_map(shape).items() if d in self._devices}


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("sizes", [{}, {"fsdp": 2, "tensor": 2}, {"context": 8}, {"data": 2, "tensor": 4}], ids=str)
def test_processes_build_the_rows_of_their_devices_and_together_all(monkeypatch, processes, sizes):
    mesh, batch_size = make_mesh(MeshConfig(**sizes)), 16
    devices, found = np.asarray(jax.devices()).reshape(processes, -1), []
    for own in devices:
        monkeypatch.setattr(feed, "NamedSharding", lambda mesh, spec, own=own: Part(mesh, ("act_batch",), list(own)))
        found.append(feed.local_rows(mesh, batch_size))
    assert np.array_equal(np.unique(np.concatenate(found)), np.arange(batch_size))
    ways = RULES.batch_ways(mesh)
    assert all(len(rows) == max(batch_size // processes, batch_size // ways) for rows in found)


def test_a_slice_whose_hosts_cannot_be_found_is_one_line(monkeypatch):
    from jax._src import cloud_tpu_init
    from jax._src.clusters import ClusterEnv

    class Unreachable:
        name = "gcetpu"
        is_env_present = staticmethod(lambda: True)

        @staticmethod
        def get_process_count():
            raise ValueError("<html>\n404</html>")

    monkeypatch.setattr(distributed.os.path, "exists", lambda path: True)
    monkeypatch.setattr(cloud_tpu_init, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(ClusterEnv, "_cluster_types", [Unreachable])
    with pytest.raises(UserError, match=r"TPU.*404.*--coordinator.*--distributed=off") as caught:
        distributed.find_place(Settings())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stream", ["None", "io.TextIOWrapper(io.BytesIO())"])
def test_a_process_ends_though_nobody_reads_what_it_says(stream):
    """Standard error is missing, as in a daemon, or closed."""
    program = f"import io, sys, threading, time; from lm import peers; sys.stderr = {stream}; sys.stderr and sys.stderr.close()"
    thread = "threading.Thread(target=peers.end, args=('error: gone', 75)).start(); time.sleep(60)"
    assert subprocess.run((sys.executable, "-c", f"{program}; {thread}"), timeout=50).returncode == 75


class Store:
    """The store of JAX's coordination service, with a process 0 that beats; it refuses what is not UTF-8."""

    def __init__(self):
        self.values, self.beats, self.fails = {}, itertools.count(), set()

    def key_value_set(self, key, value, allow_overwrite):
        value.encode()
        if key in self.fails:
            self.fails.remove(key)
            raise RuntimeError("UNAVAILABLE")
        self.values[key] = value

    def blocking_key_value_get(self, key, limit):
        return self.values[key]

    def key_value_increment(self, key, by):
        self.values[key] = str(int(self.values.get(key, 0)) + by)
        return int(self.values[key])

    def key_value_delete(self, key):
        self.values = {name: value for name, value in self.values.items() if name != key and not name.startswith(f"{key}/")}

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def key_value_try_get(self, key):
        return str(next(self.beats))


@pytest.mark.parametrize("error", [OSError(5, "cannot write", "\udcff.txt"), ValueError("a slip")])
def test_an_error_is_posted_before_it_is_said(monkeypatch, error):
    class Broken:
        def write(self, text):
            raise BrokenPipeError

    store, ends = Store(), []
    monkeypatch.setattr(peers, "on_abort", lambda line: None)
    watch = peers.Watch(store, 1, 2, "here:1", 600)
    monkeypatch.setattr(peers, "end", lambda line, status: ends.append(status))
    monkeypatch.setattr(peers.sys, "stderr", Broken())
    with pytest.raises(BrokenPipeError):
        watch.fail(error)
    assert ends == [2 if isinstance(error, OSError) else 1]
    assert "process 1 of 2" in store.values["lm/notes/failed/1"]


@pytest.mark.parametrize(("states", "stops"), [((False, False), "at once"), ((False, True), "at the next call")])
@pytest.mark.parametrize("asked", [(1,), (0, 1)], ids=str)
@pytest.mark.parametrize("fails", [(), ("lm/calls/0", "lm/notes/stop_at"), ("lm/calls/1", "lm/notes/stop")], ids=str)
def test_processes_with_nothing_to_save_end_at_once_in_a_later_run_too(monkeypatch, states, stops, fails, asked):
    """A worker's second cell, say: they have asked before, and do again once their programs are compiled. Its claim is given back.

    A call of the store that fails once is made again.
    """
    store, ends, acts = Store(), [], []
    store.fails = set(fails)
    for name in ("_beat", "_clock", "_linger"):
        monkeypatch.setattr(peers.Watch, name, lambda self: None)
    monkeypatch.setattr(peers, "on_abort", lambda line: None)
    monkeypatch.setattr(peers, "end", lambda line, status: ends.append(status))
    monkeypatch.setattr(peers, "last_acts", [lambda: acts.append("given back")])
    watches = [peers.Watch(store, index, 2, "here:1", 600) for index in range(2)]
    for watch in watches:
        watch.stop_due()
    for index in asked:
        watches[index].ask_to_stop(signal.SIGTERM)
    for _ in range(7):
        for watch, has_state in zip(watches, states, strict=True):
            monkeypatch.setattr(peers, "has_state", has_state)
            with contextlib.suppress(RuntimeError):  # as _beat does
                if len(ends) < 2:
                    watch._agree_to_stop(watch._all("lm/notes/"))
    if stops == "at once":
        assert (ends, acts) == ([143, 143], ["given back"] * 2)
    else:
        assert (ends, [watch.stop_due() for watch in watches]) == ([], [signal.SIGTERM] * 2)


def test_what_all_have_read_is_removed_from_the_store(monkeypatch):
    """A worker of several processes asks every third of a second whether a cell is free, for days."""
    store = Store()
    for name in ("_beat", "_clock"):
        monkeypatch.setattr(peers.Watch, name, lambda self: None)
    monkeypatch.setattr(peers, "on_abort", lambda line: None)
    watches = [peers.Watch(store, index, 3, "here:1", 600) for index in range(3)]
    before = set(store.values)
    for call in range(3):
        for watch in watches:
            monkeypatch.setattr(peers, "current", watch)
            with distributed.counted_apart(f"call {call}"):
                assert distributed.first(lambda call=call: call) == call
    assert set(store.values) == before


def _resolved(monkeypatch, *addresses):
    kinds = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in addresses]
    places = [(each, 0, 0, 0) if ":" in each else (each, 0) for each in addresses]
    found = [(kind, socket.SOCK_STREAM, 6, "", place) for kind, place in zip(kinds, places, strict=True)]
    monkeypatch.setattr(distributed.socket, "getaddrinfo", lambda host, port, type: found)


@pytest.mark.parametrize(
    ("coordinator", "addresses", "listens"),
    [
        ("127.0.0.1:2000", ["127.0.0.1"], True),
        ("[::1]:2000", ["::1"], True),
        ("localhost:2000", ["127.0.0.1"], True),
        ("node01:2000", ["127.0.1.1"], False),  # a hosts file that names this machine so: others call elsewhere
        ("service:2000", ["198.51.100.7"], False),  # of another machine, which passes calls on
        ("node01:2000", ["127.0.0.1", "198.51.100.7"], False),
    ],
)
def test_process_0_listens_where_it_is_called(monkeypatch, coordinator, addresses, listens):
    monkeypatch.delenv(distributed.LISTEN, raising=False)
    _resolved(monkeypatch, *addresses)
    assert distributed.listening_at(coordinator) == (coordinator if listens else None)
    monkeypatch.setenv(distributed.LISTEN, "[::]:2000")
    assert distributed.listening_at(coordinator) is None


@pytest.mark.parametrize("name", ["JAX_MTLS_CERT_FILE", "JAX_MTLS_PEER_URI_PREFIX", "JAX_DISTRIBUTED_VERIFY_SECURE_CREDENTIALS"])
def test_certificates_that_jax_would_take_no_notice_of_are_refused(name):
    def without(coordinator_address=None):
        del coordinator_address

    def with_mtls(coordinator_address=None, mtls_cert_file=None):
        del coordinator_address, mtls_cert_file

    distributed.require_mtls(without, {"JAX_PLATFORMS": "cpu"})
    distributed.require_mtls(with_mtls, {name: "x"})
    with pytest.raises(UserError, match=name):
        distributed.require_mtls(without, {name: "x"})


def test_a_name_that_nobody_knows_leaves_the_choice_to_jax(monkeypatch):
    def unknown(host, port, type):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(distributed.socket, "getaddrinfo", unknown)
    assert distributed.listening_at("nowhere:1") is None


def test_an_address_of_this_machine_that_others_know(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: which address would be used
        except OSError:
            pytest.skip("this machine has no network")
        address = probe.getsockname()[0]
    monkeypatch.delenv(distributed.LISTEN, raising=False)
    _resolved(monkeypatch, address)
    assert distributed.listening_at("node01:2000") == "node01:2000"


def test_a_process_that_was_started_twice_is_told_so():
    one, two, other = [distributed.only_one(*place) for place in (("node01:2000", 1), ("node01:2000", 2), ("node01:2001", 1))]
    again = distributed.only_one("node01:2000", 1)
    with one, two, other, pytest.raises(UserError, match=r"process 1 .*node01:2000"), again:
        pass
    with distributed.only_one("node01:2000", 1):
        pass
