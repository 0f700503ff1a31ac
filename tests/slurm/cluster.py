"""A SLURM of two virtual nodes on this machine, for tests: `with Cluster(folder) as cluster`, as root, with Debian's slurm-wlm and munge.

Everything is in one folder: keys, configuration, state, logs. No service is installed, no systemd is needed, and nothing stays: the daemons
end with the block, also on an error, on Ctrl-C and on SIGTERM. Meanwhile /etc/hosts has a line with the nodes' names.
`python -m tests.slurm.cluster FOLDER` starts one by hand and ends with Enter.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Optional

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2")
HOSTS = pathlib.Path("/etc/hosts")
HOSTS_LINE = "127.0.0.1 n1 n2  # a test cluster of SLURM: processes of two nodes meet at the first one's name\n"
CONFIGURATION = """\
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=3
MinJobAge=600
SlurmctldTimeout=10
SlurmdTimeout=5
MessageTimeout=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=4000 State=UNKNOWN
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=patient Nodes={nodes[0]},{nodes[1]} MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes={nodes[0]},{nodes[1]} MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> Optional[str]:
    """Returns why no cluster can be started here; None where it can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if absent := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        return f"{absent[0]} is not installed (Debian: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "the daemons of a test cluster need root"


@dataclasses.dataclass
class Cluster:
    """A running SLURM. `environment` is what its commands need."""

    folder: pathlib.Path
    cpus: int = 1  # of each node
    daemons: dict[str, subprocess.Popen] = dataclasses.field(default_factory=dict)
    handler: Any = signal.SIG_DFL  # of SIGTERM, before the block

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def __enter__(self) -> "Cluster":
        self.folder = self.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "munge"):
            (self.folder / name).mkdir(exist_ok=True)
        os.chmod(self.folder, 0o755)
        host, ports = socket.gethostname().split(".")[0], _free_ports(3)
        text = CONFIGURATION.format(host=host, ports=ports, nodes=NODES, folder=self.folder, cpus=self.cpus)
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        self.handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
        HOSTS.write_text(HOSTS.read_text() + HOSTS_LINE)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        key, munge = self.folder / "munge" / "key", self.folder / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge.chmod(0o700)
        places = [f"--key-file={key}", f"--socket={self.folder}/munge.socket", f"--pid-file={munge}/pid", f"--log-file={munge}/log"]
        self._daemon("munged", "--foreground", "--force", *places, f"--seed-file={munge}/seed")
        _wait(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-c", "-f", str(self.folder / "slurm.conf"))
        for node in NODES:
            self.start_node(node)
        _wait(lambda: self.states() == dict.fromkeys(NODES, "idle"), "the nodes", 30)

    def start_node(self, node: str) -> None:
        """Starts a node's daemon."""
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._daemon(node, "-D", "-N", node, "-f", str(self.folder / "slurm.conf"), program="slurmd")

    def kill_node(self, node: str) -> None:
        """Ends a node as a loss of power does: its daemon and everything that it started."""
        daemon = self.daemons.pop(node)
        for pid in [*_descendants(daemon.pid), *_step_daemons(node, self.environment["SLURM_CONF"]), daemon.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def _daemon(self, name: str, *flags: str, program: Optional[str] = None) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            command = [shutil.which(program or name, path=self.environment["PATH"]) or name, *flags]
            self.daemons[name] = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | self.environment
            )

    def run(self, *command: str, **more: object) -> str:
        """Returns the output of a SLURM command; raises CalledProcessError with what it said."""
        return subprocess.run(
            command, env=os.environ | self.environment, check=True, capture_output=True, text=True, timeout=60, **more
        ).stdout  # type: ignore[call-overload]

    def states(self) -> dict[str, str]:
        """Returns the state of each node."""
        with contextlib.suppress(subprocess.CalledProcessError):
            return dict(line.split() for line in self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines())
        return {}

    def _stop(self) -> None:
        HOSTS.write_text(HOSTS.read_text().replace(HOSTS_LINE, "", 1))  # another cluster's line stays
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root", "--signal=KILL", "--full")
        for node in NODES:
            if node in self.daemons:
                self.kill_node(node)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        signal.signal(signal.SIGTERM, self.handler)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        with contextlib.suppress(OSError):
            children = pathlib.Path(f"/proc/{waiting.pop()}/task").glob("*/children")
            waiting += (born := [int(child) for path in children for child in path.read_text().split()])
            found += born
    return found


def _step_daemons(node: str, configuration: str) -> list[int]:
    """Returns the processes of a node's steps: their daemons leave the node's process tree.

    Another cluster on this machine, even a real one, may have a node of the same name: only this one has this configuration file.
    """
    wanted = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={configuration}".encode()}
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"slurmstepd:") or b"slurmstepd" in words[0]:
                found += [pid for pid in (int(path.parent.name),) if set(_descendants(pid)) & set(found)]
    return found


def _wait(condition, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> int:
    with Cluster(pathlib.Path(sys.argv[1])) as cluster:
        print("export", *(f"{name}={value}" for name, value in cluster.environment.items()))
        print(cluster.run("sinfo"), end="")
        input("Enter ends it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
