"""filter-rewriter before a guest that is this machine's Linux: what its TCP takes, and what it refuses."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from ring import layout
from stages.device.tap import open_tap
from tests.namespaces import inside, ip, namespace
from tests.packets import ACK, MOD, SYN, Packet, icmp_error, opt_mss, read, tcp_frame
from tests.rig import Rig

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
    reason="TAP devices and namespaces need root and /dev/net/tun",
)

V4, V6 = ("10.9.0.1", "10.9.0.2", "10.9.0.3"), ("2001:db8::1", "2001:db8::2", "2001:db8::3")  # guest, peer, router
SERVER = """
import socket
s = socket.create_server(("{}", 80), family=socket.{})
print("bound", flush=True)
c = s.accept()[0]
c.sendall(b"x" * 1300)
c.recv(1)
"""

CLIENT = """
import errno, socket
s = socket.socket(socket.{}, socket.SOCK_STREAM)
s.settimeout(20)
print(errno.errorcode[s.connect_ex(("{}", 80))])
"""


class Guest:
    """The namespace's end of a TAP device behind the rewriter."""

    def __init__(self, rig: Rig, netns: str, addresses: tuple[str, str, str]) -> None:
        self._rig, self.fd = rig, open_tap("t0", netns)
        size = 24
        if ":" in addresses[0]:
            size = 64
            on = ["sysctl", "-qw", "net.ipv6.conf.t0.disable_ipv6=0"]
            subprocess.run(["ip", "netns", "exec", netns, *on], check=True)
        nodad = ["nodad"] if size == 64 else []
        ip("-n", netns, "addr", "add", f"{addresses[0]}/{size}", "dev", "t0", *nodad)
        for address in addresses[1:]:
            ip("-n", netns, "neigh", "add", address, "lladdr", "02:00:00:00:00:99", "dev", "t0")
        text = ip("-n", netns, "-o", "link", "show", "t0")
        self._mac = bytes.fromhex(text.split("link/ether ")[1].split()[0].replace(":", ""))

    def close(self) -> None:
        """The device goes with its descriptor."""
        os.close(self.fd)

    def give(self, frame: bytes) -> None:
        """A frame from outside."""
        self._rig.feed("tx_in", frame)
        self._rig.run()
        for out in self._rig.take("tx_out"):
            os.write(self.fd, self._mac + out[6:])

    def say(self, wanted: Callable[[Packet], object]) -> tuple[Packet, bytes]:
        """The next segment of the guest that is wanted, and as it is seen outside."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 1)[0]:
                frame = os.read(self.fd, 1 << 16)
                self._rig.feed("rx_in", frame)
                self._rig.run()
                (out,) = self._rig.take("rx_out")
                if read(frame).proto == 6 and wanted(read(frame)):
                    return read(frame), out
        raise AssertionError("the guest never said it")


@pytest.mark.parametrize(("ends", "kind", "mtu"), [(V4, (3, 4), 600), (V6, (2, 0), 1280)], ids=["IPv4", "IPv6"])
def test_a_guest_learns_the_path_mtu_after_a_failover(
    ends: tuple[str, str, str], kind: tuple[int, int], mtu: int
) -> None:
    """ "Too big" quotes the primary's number.  Unless it is moved the guest sends the same segment for ever."""
    guest, peer, router = ends
    with (
        namespace() as netns,
        Rig("filter-rewriter", {"max_connections": 8}) as rig,
        closing(Guest(rig, netns, ends)) as device,
        inside(netns, SERVER.format(guest, "AF_INET6" if ":" in guest else "AF_INET")) as server,
    ):
        assert server.stdout is not None
        server.stdout.readline()
        device.give(tcp_frame(peer, guest, 4000, 80, seq=999, flags=SYN, options=opt_mss()))
        answer, _ = device.say(lambda p: p.flags & SYN)
        primary = (answer.seq + 123_456_789) % MOD
        device.give(tcp_frame(peer, guest, 4000, 80, seq=1000, ack=primary + 1))
        rig.command(layout.CMD_FAILOVER, 1)
        _, seen = device.say(lambda p: len(p.payload) == 1300)
        assert read(seen).seq == (primary + 1) % MOD
        device.give(icmp_error(router, seen, kind, quote=len(seen) - 14 - 1200, rest=mtu))
        again, seen = device.say(lambda p: 0 < len(p.payload) <= mtu - 40)
        assert read(seen).seq == (primary + 1) % MOD
        assert again.payload == b"x" * len(again.payload)
        device.give(tcp_frame(peer, guest, 4000, 80, seq=1000, ack=primary + 1301, payload=b"."))
        device.say(lambda p: p.flags & ACK and p.ack == 1001)


@pytest.mark.parametrize(("ends", "kind"), [(V4, (3, 1)), (V6, (1, 3))], ids=["IPv4", "IPv6"])
def test_a_guests_attempt_ends_with_the_error_that_the_primary_gets(
    ends: tuple[str, str, str], kind: tuple[int, int]
) -> None:
    """No route to host: connect() fails on the primary at once, so it must not go on for minutes here."""
    guest, peer, router = ends
    with namespace() as netns, Rig("filter-rewriter", {"max_connections": 8}) as rig:
        with (
            closing(Guest(rig, netns, ends)) as device,
            inside(netns, CLIENT.format("AF_INET6" if ":" in guest else "AF_INET", peer)) as client,
        ):
            asked, _ = device.say(lambda p: p.flags & SYN)
            ports = (asked.sport, asked.dport)
            primarys = tcp_frame(guest, peer, *ports, seq=asked.seq + 123_456_789, flags=SYN, options=opt_mss())
            device.give(icmp_error(router, primarys, kind))
            assert client.stdout is not None
            assert client.stdout.readline() == "EHOSTUNREACH\n"
        assert rig.counters()["rewritten_errors"] == 1
