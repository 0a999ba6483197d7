"""chardev socket and netdev stream: chardev frames over one TCP or unix connection, server or client.

Cold code around `stages.socket.kernels`: it connects, watches and explains; the kernel receives and sends.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from fcntl import ioctl
from select import EPOLLET, EPOLLIN, EPOLLOUT
from typing import Any, Final

from ring import layout
from stages.base import Context, Stage, StageSpec
from stages.socket.diagnose import ENOUGH, diagnose, unread
from stages.socket.dial import Address, Client, Dialer, Server, tune
from stages.socket.layout import counters, memory, options, outcomes, ports

_LOOK_NS: Final = 5_000_000  # between two looks for a peer where nothing woke us
_PROVEN_NS: Final = 1_000_000_000  # a connection that lived so long resets the backoff whatever ended it
_FLUSH_S: Final = 1.0
_LINGER_S: Final = 0.2
_SIOCOUTQ: Final = 0x5411  # bytes that the peer has not acknowledged, tcp(7)
_WORK: Final = (1 << outcomes.SHIFT) - 1


class SocketStage(Stage):
    """An endpoint on a stream socket; ``params``: host and port, or path; server, wait, reconnect (s), vnet."""

    def __init__(self, spec: StageSpec, context: Context) -> None:
        self._sock: socket.socket | None = None
        self._dialer: Dialer | None = None
        self._look_at = 0
        self._flags = 0
        self._since = 0
        self._first = False
        self._unread = False
        self._start = 0
        self._complaint = ""
        self._moved_before = self._unread_before = 0
        super().__init__(spec, context)

    def options(self) -> dict[int, int]:
        """No socket yet."""
        return {options.FD: -1, options.GATED: int(self.params["gated"])}

    def on_start(self) -> None:
        """Listen, or begin to connect."""
        vnet = bool(self.params["vnet"])
        for name, at in self.rings.items():
            if bool(self.w[at + layout.VNET]) != vnet:
                raise ValueError(
                    f"{self.role_name}: ring {name} has VNET={int(self.w[at + layout.VNET])}, params say {vnet}"
                )
        self._change()
        make = Server if self.params["server"] else Client
        cap = float(self.params["reconnect"])
        self._dialer = make(Address.of(self.params), cap, self.context.watch, self.log, self._wake)
        if isinstance(self._dialer, Server):
            self._dialer.wanted = self._has_to_send
        self._dial(time.monotonic_ns())

    def ready(self) -> bool:
        """Listening (a client: at once) and, with ``wait``, connected: somebody is there, who may have said nothing."""
        if self._sock is not None or self._dialer is None:
            return self._sock is not None
        return self._dialer.offered if self.params["wait"] else self._dialer.listening

    def do_work(self, now: int) -> int:
        """One recv, one send, one commit."""
        if self._sock is None and (now >= self._look_at or (self.w[options.OFFERED] and self._has_to_send())):
            self._dial(now)
        result = int(self.kernel.link_cycle(self.u8, self.w, now))
        flags = result >> outcomes.SHIFT
        if flags != self._flags:
            self._react(flags, now)
        return result & _WORK

    def on_close(self) -> None:
        """Hand over what is left, within a second; close, and remove the unix socket's file."""
        deadline = time.monotonic() + _FLUSH_S
        send = self.rings.get("send")
        while self._sock is not None and send is not None and time.monotonic() < deadline:
            if self.w[send + layout.TAIL] == self.w[send + layout.HEAD]:
                break
            result = self.do_work(time.monotonic_ns())
            self.ring_bells(result >> 32)
            if not result and self._sock is not None:
                select.select([], [self._sock], [], 0.01)
        if self._sock is not None:
            self._linger(self._sock)
            self._forget()
        if self._dialer is not None:
            self._dialer.close()

    @staticmethod
    def _linger(sock: socket.socket) -> None:
        """See the last bytes off: a TCP socket closed over unread bytes resets the connection, and loses them."""
        if sock.family == socket.AF_UNIX:
            return
        deadline = time.monotonic() + _LINGER_S
        try:
            sock.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline:
                if select.select([sock], [], [], 0.005)[0] and not sock.recv(1 << 16):
                    return
                if not int.from_bytes(ioctl(sock.fileno(), _SIOCOUTQ, b"\0" * 4), "little"):
                    return
        except OSError:
            return

    # --- connecting ---------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._look_at = 0

    def _has_to_send(self) -> bool:
        """Whether frames wait for a peer."""
        at = self.rings.get("send")
        return at is not None and bool(self.w[at + layout.TAIL] != self.w[at + layout.HEAD])

    def _dial(self, now: int) -> None:
        self._look_at = now + _LOOK_NS
        if self._dialer is None:
            return
        sock = self._dialer.poll(now)
        if sock is None:
            if self._dialer.offered != bool(self.w[options.OFFERED]):
                self.w[options.OFFERED] = int(self._dialer.offered)
                self._change()
            return
        tune(sock)
        self._sock, self._since, self._first, self._flags = sock, now, "receive" in self.rings, 0
        self._unread = not self._first
        self._tally(counters.CONNECTS)
        self.w[options.FD] = sock.fileno()
        self.w[options.OFFERED] = 0
        self._change()
        self._start = int(self.w[options.FILLED])
        self.context.watch(sock.fileno(), EPOLLIN | EPOLLET, self._stir)
        self.log.info("connected", link=self.spec.id, peer=_peer(sock))

    def _stir(self, events: int) -> None:
        """A descriptor became ready: nothing to do, the duty cycle that follows looks by itself.

        Edges are enough for that reason, and a full ring does not make a busy loop of a readable socket.
        """

    def _lose(self, now: int, reason: str, *, bad: bool) -> None:
        """The connection is over: count, close, and let the dialer look for the next."""
        filled, sent = int(self.w[options.FILLED]), int(self.w[options.SENT])
        partial = resent = 0
        if "receive" in self.rings:
            partial = filled - int(self.w[self.rings["receive"] + layout.TAIL])
        if "send" in self.rings:
            resent = sent - int(self.w[self.rings["send"] + layout.HEAD])
        moved = self._moved()
        self._tally(counters.DISCONNECTS)
        self._tally(counters.PARTIAL_BYTES, partial)
        self._tally(counters.RESENT_BYTES, resent)
        if bad:
            self._tally(counters.BAD_FRAMES)
        else:
            self.log.warning("disconnected", link=self.spec.id, reason=reason, dropped_bytes=partial)
        if self._dialer is not None:
            self._dialer.again(now, punish=now - self._since < _PROVEN_NS and (bad or not moved))
        self._forget()
        self._look_at = 0

    def _moved(self) -> bool:
        """Whether this connection carried a whole frame."""
        return self._frames() != self._moved_before

    def _frames(self) -> int:
        return self.counter(ports.SEND) + self.counter(layout.PORTS + ports.RECEIVE)

    def _forget(self) -> None:
        if self._sock is None:
            return
        self.context.watch(self._sock.fileno(), 0, None)
        self.w[options.FD] = -1
        self._change()
        self._sock.close()
        self._sock = None

    def _tally(self, counter: int, n: int = 1) -> None:
        self.w[options.TALLY + counter - layout.OWN_COUNTERS] += n

    def _change(self) -> None:
        """Let the kernel count and turn the link words, and tell both neighbours."""
        self.kernel.link_change(self.u8, self.w, time.monotonic_ns())
        self._moved_before, self._unread_before = self._frames(), self.counter(counters.UNREAD_BYTES)
        self.ring_bells(("receive" in self.rings) | ("send" in self.rings) << 8)

    # --- what the kernel tells ----------------------------------------------------------------------------------

    def _react(self, flags: int, now: int) -> None:
        if self._sock is None:
            return
        if flags & outcomes.BAD:
            self._bad(now)
        elif flags & outcomes.ENDED:
            self._lose(now, "closed by the peer", bad=False)
        elif flags & outcomes.FAILED:
            number = int(self.w[options.ERRNO])
            self._lose(now, os.strerror(number) if number else errno.errorcode[errno.EIO], bad=False)
        else:
            if self._first and flags & outcomes.ARRIVED:
                self._look_at_first()
            if self._unread and flags & outcomes.UNREAD:
                self._tell_unread()
            if (flags ^ self._flags) & outcomes.SHORT:
                out = EPOLLOUT if flags & outcomes.SHORT else 0
                self.context.watch(self._sock.fileno(), EPOLLIN | EPOLLET | out, self._stir)
            self._flags = flags & outcomes.SHORT
            return
        self._flags = 0

    def _received(self, position: int, n: int) -> bytes:
        """``n`` received bytes from a position of the receive ring on, as far as they are there."""
        at = self.rings["receive"]
        n = min(n, int(self.w[options.FILLED]) - position)
        byte = at * 8 + layout.PAGE + (position & (int(self.w[at + layout.SIZE]) - 1))
        return bytes(self.arena.bytes[byte : byte + n])

    def _advice(self) -> str | None:
        """What `diagnose` says to the first bytes; a notify link carries text and is not asked."""
        if self.params["text"]:
            return None
        return diagnose(self._received(self._start, ENOUGH), bool(self.params["vnet"]))

    def _look_at_first(self) -> None:
        got = int(self.w[options.FILLED]) - self._start
        head = self._received(self._start, 4)
        if got < 4 or got < min(ENOUGH, 4 + int.from_bytes(head, "big")):
            return
        self._first = False
        advice = self._advice()
        if advice is not None and advice != self._complaint:
            self.log.warning("this cannot be the right peer", link=self.spec.id, hint=advice)
        self._complaint = advice or ""

    def _tell_unread(self) -> None:
        """Once a connection: its first bytes lie where the next ones will."""
        self._unread = False
        got = min(self.counter(counters.UNREAD_BYTES) - self._unread_before, ENOUGH)
        first = bytes(self.arena.bytes[memory.SCRATCH * 8 : memory.SCRATCH * 8 + got])
        hint = unread(first, self.params["writer"], self.params["readers"])
        if hint != self._complaint:
            self.log.warning("bytes arrive on a link that nothing here reads", link=self.spec.id, hint=hint)
        self._complaint = hint

    def _bad(self, now: int) -> None:
        position = int(self.w[self.rings["receive"] + layout.TAIL])
        more: dict[str, Any] = {}
        if self._first and (advice := self._advice()) is not None:
            more["hint"] = advice
        self.log.error(
            "impossible frame length, connection dropped",
            link=self.spec.id,
            length=int(self.w[options.BAD_LENGTH]),
            position=position - self._start,
            first_bytes=self._received(position, 16).hex(" "),
            **more,
        )
        self._lose(now, "impossible frame", bad=True)


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "gone"
    return name or "unix socket" if isinstance(name, str) else f"{name[0]}:{name[1]}"
