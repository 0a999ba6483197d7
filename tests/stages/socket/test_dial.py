"""Links as clients, unix socket files, backoff."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from contextlib import closing

import pytest
import structlog

from stages import catalog
from stages.socket.backoff import Backoff
from stages.socket.dial import remove_stale
from tests.peers import collect, join, listener, server, turn, until, up, wire
from tests.rig import Rig

# --- client -----------------------------------------------------------------------------------------------------


def test_a_client_may_start_before_its_server_and_outlives_it(tmp_path):
    path = tmp_path / "s"
    with Rig("netdev-stream", {"path": str(path), "reconnect": 0.05}) as rig:
        assert rig.stage.ready()
        for i in range(2):
            turn(rig)
            with listener(path) as sock:
                until(rig, lambda i=i: rig.counters()["connects"] == i + 1)
                with closing(sock.accept()[0]) as peer:
                    peer.sendall(wire(bytes([i])))
                    assert collect(rig, 1) == [bytes([i])]
            until(rig, lambda i=i: rig.counters()["disconnects"] == i + 1)


def test_client_and_server_stages_meet_over_tcp():
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with (
        Rig("chardev-socket", {"host": "localhost", "port": port, "reconnect": 0.05}) as client,
        Rig("chardev-socket", {"host": "127.0.0.1", "port": port, "server": True, "wait": True}) as server_,
    ):
        until(server_, lambda: turn(client) or (up(client) and server_.stage.ready()))
        assert not up(server_)
        server_.feed("send", b"to the client")
        until(server_, lambda: up(server_))
        for rig in (client, server_):
            assert rig.stage._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert rig.stage._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            # A host without power is noticed as soon with data on the way as without.
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle, pause, probes = (rig.stage._sock.getsockopt(socket.IPPROTO_TCP, option) for option in options)
            silent = rig.stage._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert silent == (idle + pause * probes) * 1000 == 30_000
        client.feed("send", b"to the server")
        client.run()
        assert collect(server_, 1) == [b"to the server"]
        assert collect(client, 1) == [b"to the client"]


def test_a_tcp_reset_is_one_lost_connection():
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        address = {"host": "127.0.0.1", "port": sock.getsockname()[1]}
        with Rig("chardev-socket", {**address, "reconnect": 0.05}) as rig:
            until(rig, lambda: up(rig))
            peer = sock.accept()[0]
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            until(rig, lambda: rig.counters()["connects"] == 2)
            assert rig.counters()["disconnects"] == 1
            sock.accept()[0].close()


def test_a_name_that_does_not_exist_stops_nothing(monkeypatch):
    look = socket.getaddrinfo

    def nobody(host, *args, flags=0, **more):  # a resolver without a network may take minutes to say so
        if flags:
            return look(host, *args, flags=flags, **more)
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    params = {"host": "no-such-host.invalid", "port": 9, "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        rig.feed("send", b"waits")
        until(rig, lambda: logs)
        assert rig.rings["send"].used == 9
    assert logs[0]["event"] == "cannot connect, trying again"


@pytest.mark.parametrize("server_", [False, True])
def test_a_host_that_is_no_name_ends_no_stage(server_):
    """getaddrinfo answers it with UnicodeError, which is no OSError."""
    params = {"host": "exa..mple", "port": 9, "server": server_, "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        tries: set[int] = set()
        until(rig, lambda: tries.add(rig.stage._dialer._not_before) or len(tries) == 3)
    assert len(logs) == 1
    assert logs[0]["event"] == f"cannot {'listen' if server_ else 'connect'}, trying again"
    assert "idna" in logs[0]["reason"]


def test_a_look_up_that_fails_over_the_name_itself_is_not_pending_for_ever(monkeypatch):
    def refuse(*_args, flags=0, **_more):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        raise UnicodeError("no name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    params = {"host": "name", "port": 9, "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        until(rig, lambda: logs)
        assert rig.stage._dialer._names is None
    assert logs[0]["reason"] == "no name"


def test_a_client_tries_every_address_of_a_name(monkeypatch):
    """One after the other; each reason is told once, not with each change between them."""
    with socket.socket() as closed, closing(socket.create_server(("127.0.0.1", 0))) as sock:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused
        entries = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", where)
            for where in (closed.getsockname(), ("255.255.255.255", 9), sock.getsockname())
        ]
        present = entries[:2]

        def look_up(*_args, flags=0, **_more):
            if flags:
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return list(present)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        params = {"host": "name", "port": 9, "reconnect": 0.05}
        with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
            until(rig, lambda: rig.stage._dialer._failures == 5)
            assert len(logs) == 2
            present.append(entries[2])
            until(rig, lambda: up(rig))
            assert rig.stage._dialer._failures == 0
            sock.accept()[0].close()


def test_a_failure_that_repeats_is_told_once(tmp_path):
    params = {"path": str(tmp_path / "s"), "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        tries: set[int] = set()
        until(rig, lambda: tries.add(rig.stage._dialer._not_before) or len(tries) == 4)
        with listener(tmp_path / "s"):
            until(rig, lambda: up(rig))
    assert [line["event"] for line in logs] == ["cannot connect, trying again", "connected"]


def test_backoff_doubles_up_to_its_cap():
    backoff = Backoff(0.3)
    assert [backoff.delay() // 10**6 for _ in range(5)] == [50, 100, 200, 300, 300]
    backoff.reset()
    assert backoff.delay() == 50_000_000


# --- socket files -----------------------------------------------------------------------------------------------


def test_a_stale_socket_file_is_replaced_and_removed_at_the_end(tmp_path):
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with server(path) as (_rig, connect):
        connect()
    assert not path.exists()


def test_a_server_whose_file_was_removed_listens_anew(tmp_path, monkeypatch):
    """Else it would wait for ever where nobody can find it.  What another server has put there is left alone."""
    monkeypatch.setattr("stages.socket.dial._FILE_NS", 0)
    path = tmp_path / "s"
    params = {"path": str(path), "server": True, "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        path.unlink()
        until(rig, path.exists)
        with closing(socket.socket(socket.AF_UNIX)) as peer:
            peer.connect(str(path))
            join(rig, peer)
            path.unlink()
        until(rig, lambda: not up(rig) and path.exists())
        path.unlink()
        with listener(path):
            until(rig, lambda: not rig.stage.ready())
            until(rig, lambda: logs[-1]["event"] == "cannot listen, trying again")
            assert path.exists()
        until(rig, rig.stage.ready)
    assert [line["event"] for line in logs].count("socket file is gone, listening again") == 3
    assert not path.exists()


def test_the_file_of_another_server_stays_though_it_has_our_old_inode_number(tmp_path, monkeypatch):
    """Ext4 gives a number that became free to the next file; other file systems may not."""
    monkeypatch.setattr("stages.socket.dial._FILE_NS", 0)
    folder = tmp_path / "run"
    folder.mkdir()
    with Rig("chardev-socket", {"path": str(folder / "s"), "server": True, "reconnect": 0.05}) as rig:
        shutil.rmtree(folder)
        until(rig, lambda: not rig.stage.ready())
        folder.mkdir()
        with listener(folder / "s"):
            rig.stage.on_close()
            assert (folder / "s").exists()


def test_a_server_without_its_folder_says_which_and_listens_when_it_is_made(tmp_path):
    folder = tmp_path / "run" / "a vm"
    params = {"path": str(folder / "s"), "server": True, "reconnect": 0.05}
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        tries: set[int] = set()
        until(rig, lambda: tries.add(rig.stage._dialer._not_before) or len(tries) == 3)
        (line,) = logs
        assert line["event"] == "cannot listen, trying again"
        assert line["reason"] == f"no folder {folder}"
        assert line["hint"] == f"mkdir -p '{folder}'"
        subprocess.run(line["hint"], shell=True, check=True)
        until(rig, rig.stage.ready)


def test_the_socket_of_a_living_server_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with listener(path):
        params = {"path": str(path), "server": True}
        with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
            turn(rig)
            assert not rig.stage.ready()
        assert logs[0]["reason"] == os.strerror(98)
        assert path.exists()


def test_a_living_server_does_not_notice_who_asks_whether_it_lives(tmp_path):
    """Not as a peer either, that would come and go with every try; and between bind and listen it lives already."""
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)) as living:
        living.bind(path)
        with pytest.raises(OSError, match="in use"):
            remove_stale(path)
        living.listen(1)
        for _ in range(5):
            with pytest.raises(OSError, match="in use"):
                remove_stale(path)
        with pytest.raises(BlockingIOError):
            living.accept()
    remove_stale(path)
    assert not os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        remove_stale(str(path))
    assert path.read_text() == "precious"


# --- what the user can do ---------------------------------------------------------------------------------------


def hint(**params: object) -> str:
    """Of the first complaint of a link that cannot be made."""
    with structlog.testing.capture_logs() as logs, Rig("chardev-socket", params) as rig:
        until(rig, lambda: [line for line in logs if line["log_level"] == "warning"])
    return str(next(line for line in logs if line["log_level"] == "warning")["hint"])


def test_a_client_that_nobody_hears_is_told_which_end_listens(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    said = "nobody listens there yet: one end of a link has server = true, the other has not"
    assert hint(host="127.0.0.1", port=port).startswith(f"{said}; 127.0.0.1 is this machine itself")
    assert hint(path=str(tmp_path / "none")) == said


def test_a_server_without_its_address_is_told_why():
    assert hint(host="203.0.113.9", port=9, server=True).startswith("this machine has no address 203.0.113.9")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert hint(host="127.0.0.1", port=port, server=True).startswith(f"ss -ltnp 'sport = :{port}' says who")


def test_the_address_of_a_server_says_who_can_reach_it():
    address = catalog.kind("chardev-socket").address
    for host, server_, said in (
        ("127.0.0.1", True, "listens at 127.0.0.1:9, for this machine alone"),
        ("0.0.0.0", True, "listens at 0.0.0.0:9"),
        ("127.0.0.1", False, "connects to 127.0.0.1:9"),
    ):
        assert address({"host": host, "port": 9, "path": None, "server": server_}) == said
