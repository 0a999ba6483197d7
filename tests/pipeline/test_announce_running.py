"""A secondary's guest and its network, in a running pipeline: before the failover it is answered, after it announced.

The network is a Linux bridge, the hosts are namespaces; the pipelines are those of examples/.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from stages.device.netns import in_netns
from tests.namespaces import ip, namespace
from tests.packets import ether
from tests.pipeline.running import CONFIG, ROOT, Running, frame, until
from tests.stages.rewriter.talking import GUEST, GUEST_4, GUEST_6, OTHER, PEER_4, PEER_6, arp, solicitation

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
    reason="TAP devices and namespaces need root and /dev/net/tun",
)
EVERY_ROUND, WITH_IP = 10, 3  # of an announcement, as the config has it by default
PEERS_4 = [f"10.0.0.{n}" for n in (2, 3, 4)]
PEERS_6 = [f"2001:db8::{n}" for n in (2, 3, 4)]


def config(example: str, network: str, guest: str) -> str:
    """That example with other sides of its netdev, and links to the primary that nobody answers."""
    text = (ROOT / "examples" / example).read_text().replace("{", "{{").replace("}", "}}")
    text = text.replace(
        'name = "secondary"\n', 'name = "{name}"\nruntime_dir = "{folder}"\n[supervisor]\n{supervisor}\n[pipeline]\n'
    )
    head, _, rest = text.partition("[supervisor]")
    supervisor, _, rest = rest.partition("[pipeline]\n")
    ring_size, _, rest = rest.partition("\n")
    text = f"{head}{ring_size}\n[supervisor]{supervisor}{rest}"
    text = re.sub(r"host = .*\nport = (\d+)", r'path = "{folder}/red\1"', text)
    text = re.sub(r"network = .*", lambda _: f"network = {network}", text)
    return re.sub(r"guest = .*", lambda _: f"guest = {guest}", text)


def ipv6(netns: str, ifname: str) -> None:
    """Switch IPv6 on, without waiting for addresses to be found free."""
    for name, value in (("disable_ipv6", 0), ("accept_dad", 0)):
        setting = f"net.ipv6.conf.{ifname}.{name}={value}"
        subprocess.run(["ip", "netns", "exec", netns, "sysctl", "-qw", setting], check=True)


# --- after the failover ------------------------------------------------------------------------------------------
@contextmanager
def lan() -> Iterator[tuple[str, str]]:
    """A bridge with a client behind its port c0 and the primary's host behind p0: the namespaces of both."""
    with namespace() as bridge, namespace() as client:
        ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        ip("-n", bridge, "link", "add", "c0", "type", "veth", "peer", "name", "c1", "netns", client)
        ip("-n", bridge, "link", "add", "p0", "type", "veth", "peer", "name", "p1")
        for name in ("c0", "p0"):
            ip("-n", bridge, "link", "set", name, "master", "br0")
        for name in ("c0", "p0", "p1"):
            ip("-n", bridge, "link", "set", name, "up")
        ip("-n", client, "link", "set", "c1", "up")
        ipv6(client, "c1")
        ip("-n", client, "addr", "add", f"{PEER_4}/24", "dev", "c1")
        ip("-n", client, "addr", "add", f"{PEER_6}/64", "dev", "c1")
        yield bridge, client


def port_of(bridge: str, mac: bytes) -> str:
    """The port at which the bridge has seen a MAC address last."""
    said = subprocess.run(["bridge", "-n", bridge, "-j", "fdb", "show"], check=True, capture_output=True, text=True)
    return next((str(one["ifname"]) for one in json.loads(said.stdout) if one["mac"] == mac.hex(":")), "")


def neighbour(netns: str, address: str) -> dict[str, object]:
    """What a host knows of a neighbour."""
    found: list[dict[str, object]] = json.loads(ip("-n", netns, "-j", "neigh", "show", "to", address) or "[]")
    return found[0] if found else {}


def from_primary(bridge: str) -> None:
    """A frame of the primary's guest, which has the same MAC address."""
    with in_netns(bridge):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with closing(sock):
        sock.bind(("p1", 0))
        sock.send(ether(b"\0" * 46, 0x88B5, src=GUEST, dst=b"\xff" * 6))


@pytest.mark.parametrize("example", ["secondary.toml", "secondary-stream.toml"])
def test_the_network_learns_at_once_where_the_guest_is(tmp_path: Path, example: str) -> None:
    """A guest that only listens: the bridge sends its packets to its new port, and the client's caches are right."""
    with lan() as (bridge, client):
        network = f'{{{{ backend = "tap", ifname = "s0", netns = "{bridge}", bridge = "br0" }}}}'
        guest = '{{ backend = "stream", path = "{folder}/guest", server = true }}'
        with Running(tmp_path, config=config(example, network, guest)) as it:
            it.running()
            from_primary(bridge)
            until(lambda: port_of(bridge, GUEST) == "p0", "the bridge knows where the primary's guest is")
            with it.connect("guest") as sock:
                sock.sendall(frame(arp(1, GUEST, GUEST_4, PEER_4)) + frame(solicitation(GUEST, GUEST_6, PEER_6)))
                until(lambda: it.status()["counters"]["rew0"]["addresses"] >= 3, "its addresses are known")
                refused = it.ask("announce")
                assert not refused["ok"]
                assert refused["error"] == (
                    "rew0: no announce before failover: nothing of a secondary's guest goes to the network before it"
                )
                assert port_of(bridge, GUEST) == "p0"
                for address in (GUEST_4, GUEST_6):
                    ip("-n", client, "neigh", "replace", address, "lladdr", OTHER.hex(":"), "dev", "c1", "nud", "stale")
                assert it.ask("failover")["ok"]
                until(lambda: port_of(bridge, GUEST) == "s0", "the bridge knows where it is now")
                for address in (GUEST_4, GUEST_6):
                    until(lambda a=address: neighbour(client, a).get("lladdr") == GUEST.hex(":"), f"{address} is right")
                everything = EVERY_ROUND + 2 * WITH_IP
                until(lambda: it.status()["counters"]["rew0"]["announced"] == everything, "all rounds were sent")
                from_primary(bridge)
                until(lambda: port_of(bridge, GUEST) == "p0", "somebody has the bridge believe otherwise")
                assert it.ask("announce")["text"] == "announce: told rew0"
                until(lambda: port_of(bridge, GUEST) == "s0", "it has learnt again")
        lines = [line for line in it.events() if line["event"] == "guest announced to the network"]
        assert [(line["macs"], line["addresses"], line["again"]) for line in lines] == [(1, 2, 9)] * 2
        assert "adds up" in it.out


def test_announce_is_for_a_secondary(tmp_path: Path) -> None:
    """Elsewhere the refusal says who does it."""
    with Running(tmp_path, config=CONFIG) as it:
        it.running()
        refused = it.ask("announce")
    assert not refused["ok"]
    assert refused["error"] == (
        "no stage here announces a guest; filter-rewriter does: it stands in the chain of a secondary's netdev"
    )


# --- before it ---------------------------------------------------------------------------------------------------
def test_a_guests_neighbours_stay_reachable_before_the_failover(tmp_path: Path) -> None:
    """Linux as the guest: all it asks for resolves, and stays so by its probes; what nobody has spoken of does not."""
    with namespace() as netns:
        guest = f'{{{{ backend = "tap", ifname = "g0", netns = "{netns}" }}}}'
        text = config("secondary.toml", '{{ backend = "stream", path = "{folder}/net", server = true }}', guest)
        with Running(tmp_path, config=text) as it, closing(socket.socket(socket.AF_UNIX)) as primary:
            primary.bind(f"{tmp_path}/red9003")
            primary.listen()
            it.running()
            ipv6(netns, "g0")
            for version in ("ipv4", "ipv6"):
                setting = f"net.{version}.neigh.g0.delay_first_probe_time=1"
                subprocess.run(["ip", "netns", "exec", netns, "sysctl", "-qw", setting], check=True)
            ip("-n", netns, "addr", "add", f"{GUEST_4}/24", "dev", "g0")
            ip("-n", netns, "addr", "add", f"{GUEST_6}/64", "dev", "g0")
            link, _ = primary.accept()
            with link:
                for n, (four, six) in enumerate(zip(PEERS_4, PEERS_6, strict=True)):
                    mac = b"\x02\0\0\0\1" + bytes([n])
                    link.sendall(frame(arp(1, mac, four, "10.0.0.99")) + frame(solicitation(mac, six, GUEST_6)))
                until(lambda: it.status()["counters"]["rew0"]["addresses_learnt"] >= 6, "the neighbours have spoken")
                with in_netns(netns):
                    talk = {4: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
                            6: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)}  # fmt: skip

                def answered(address: str) -> int:
                    counters = it.status()["counters"]["rew0"]
                    return int(counters["answered_nd" if ":" in address else "answered_arp"])

                def say(address: str) -> None:
                    talk[6 if ":" in address else 4].sendto(b"x", (address, 9))

                with talk[4], talk[6]:
                    for address in (*PEERS_4, *PEERS_6):
                        say(address)
                        until(
                            lambda a=address: neighbour(netns, a).get("state") == ["REACHABLE"], f"{address} is there"
                        )
                        # What it says to one that is stale makes it ask that one alone.
                        before, mac = answered(address), str(neighbour(netns, address)["lladdr"])
                        ip("-n", netns, "neigh", "change", address, "lladdr", mac, "dev", "g0", "nud", "stale")
                        say(address)
                        until(lambda a=address, n=before: answered(a) > n, f"{address} was asked for again")
                        until(
                            lambda a=address: neighbour(netns, a).get("state") == ["REACHABLE"], f"{address} is there"
                        )
                    assert answered(PEER_4) >= 2 * len(PEERS_4)
                    assert answered(PEER_6) >= 2 * len(PEERS_6)
                    for address in ("10.0.0.88", "2001:db8::88"):
                        say(address)
                        until(lambda a=address: neighbour(netns, a).get("state") == ["FAILED"], f"{address} is unknown")
            os.unlink(f"{tmp_path}/red9003")
            assert it.status()["counters"]["hn0.network"]["dropped_before_failover"] > 0
        assert "adds up" in it.out
