"""The three hosts: a network namespace each, with one TAP device; the replicas share one address and one MAC."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ring.segment import process_start
from tools.lab import host, state

REPOSITORY = Path(__file__).resolve().parents[2]

CLIENT, PRIMARY, SECONDARY = "client", "primary", "secondary"
ROLES = (CLIENT, PRIMARY, SECONDARY)
REPLICAS = (PRIMARY, SECONDARY)
TAP = "colo0"
WIRE_TAP = "colo1"  # the pipeline's end of a wire (tools.lab.impair); the host's end is TAP then
SERVER_ADDRESS = "10.77.0.2"
ADDRESS = MappingProxyType({CLIENT: "10.77.0.1", PRIMARY: SERVER_ADDRESS, SECONDARY: SERVER_ADDRESS})
MAC = MappingProxyType({CLIENT: "52:54:00:77:00:01", PRIMARY: "52:54:00:77:00:02", SECONDARY: "52:54:00:77:00:02"})

SYSCTLS = {
    # Linux from 6.15 on drops the ACK of a handshake whose TSecr it never sent: with timestamps on, the secondary
    # establishes a connection only because the rewriter translates them.
    "net.ipv4.tcp_timestamps": "1",
    # The client sees the primary's receive window only and may send past the secondary's where nginx reads more slowly
    # there; Linux drops that, and as the primary's ACKs wait for the secondary's, the transfer stands until the
    # compare's timeout.  Replicas of one VM have the same buffers; ours are large enough that neither window closes.
    "net.ipv4.tcp_rmem": "4096 16777216 16777216",
    "net.ipv6.conf.all.disable_ipv6": "1",  # no neighbour discovery, no router solicitations: only our packets
    "net.ipv6.conf.default.disable_ipv6": "1",
}

# Packets that a TAP holds for its reader: more than a TCP window (6 MB in segments of 1,460), so that a busy
# machine delays packets but does not lose them.
TAP_QUEUE = 8192


class Scene:
    """Namespaces, TAPs, a temporary directory, and processes in them, each written down before it is made."""

    def __init__(self, book: state.State, signals: host.Signals) -> None:
        self.book = book
        self._signals = signals
        self.directory = Path()

    def namespace(self, role: str) -> str:
        """The network namespace of a role."""
        return f"{self.book.prefix}-{role}"

    def build(self) -> None:
        """Make everything but the processes."""
        with self._signals.hold():
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.book.prefix}-"))
            self.book.directories.append(str(self.directory))
            self.book.save()
        self.directory.chmod(0o711)  # nginx's workers are nobody and must pass through
        for role in ROLES:
            self._build_host(role)

    def _build_host(self, role: str) -> None:
        name = self.namespace(role)
        if (state.NAMESPACES / name).exists():
            raise host.LabError(f"namespace {name} exists already, from a lab that died: python -m tools.lab --remove")
        with self._signals.hold():
            self.book.namespaces.append(name)
            self.book.save()
            host.run("ip", "netns", "add", name)
        settings = " && ".join(f"echo '{v}' > /proc/sys/{k.replace('.', '/')}" for k, v in SYSCTLS.items())
        host.run(*self.inside(role, "sh", "-c", settings))
        ip = ("ip", "-n", name)
        host.run(*ip, "link", "set", "lo", "up")
        host.run(*ip, "tuntap", "add", "dev", TAP, "mode", "tap")
        host.run(*ip, "link", "set", TAP, "address", MAC[role], "txqueuelen", str(TAP_QUEUE))
        host.run(*ip, "address", "add", f"{ADDRESS[role]}/24", "dev", TAP)
        host.run(*ip, "link", "set", TAP, "up")
        if role != CLIENT:
            # The client resolves the server by real ARP through the proxy.  A replica does not ask: the secondary's
            # question would be dropped at the compare, as all its own output is, and never be answered.
            client = (ADDRESS[CLIENT], "lladdr", MAC[CLIENT], "dev", TAP, "nud", "permanent")
            host.run(*ip, "neighbour", "add", *client)

    def inside(self, role: str, *command: str) -> list[str]:
        """The command line that runs ``command`` in a role's namespace; ip execs it, so the pid is the command's."""
        return ["ip", "netns", "exec", self.namespace(role), *command]

    def call(self, role: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a role's namespace to its end; a signal ends it, too.

        subprocess.run would lose a process that a signal's exception hits between its start and the next line.
        """
        with contextlib.ExitStack() as ending:
            with self._signals.hold():
                process = subprocess.Popen(
                    self.inside(role, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                ending.enter_context(process)
                ending.callback(process.kill)  # before the wait of the line above; without effect on one that has ended
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def spawn(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process of its own session (Ctrl-C is ours to pass on) whose output goes to a file."""
        with self._signals.hold(), output.open("ab") as log:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **(env or {})}, **options)
            self.book.processes.append((process.pid, process_start(process.pid)))
            self.book.save()
        return process
