"""netdev-packet: an interface that is there (veth, bridge port, NIC) through a packet socket, packet(7).

The socket always speaks with a virtio-net header: only that says where a frame's checksum is still to be made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Final

from ring import layout
from stages.device.device import Device
from stages.device.layout import memory, message, options, segmentation
from stages.device.netns import DeviceError, NotThere, check_ifname, in_netns, ip_in

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _STATISTICS, _AUXDATA, _VNET_HDR, _IGNORE_OUTGOING = 1, 6, 8, 15, 23  # linux/if_packet.h
_MR_PROMISC = 1
_SO_RCVBUFFORCE = 33
_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCGIFINDEX = (
    0x8910, 0x8913, 0x8915, 0x8921, 0x8927, 0x8933,
)  # fmt: skip
_IFF_UP, _ARPHRD_ETHER = 0x1, 1
_OVERHEAD: Final = 18  # Ethernet header and one VLAN tag
_BUFFER: Final = 8 << 20  # what a burst of the compare or a restart of a neighbour may take to pass
_LOOK_NS: Final = 100_000_000


def _ask(sock: socket.socket, request: int, ifname: str) -> bytes:
    """The union of struct ifreq, netdevice(7), after ``request``; the socket decides the network namespace."""
    return fcntl.ioctl(sock, request, struct.pack("16s24x", ifname.encode()))[16:]


def _number(sock: socket.socket, request: int, ifname: str) -> int:
    return int(struct.unpack_from("i", _ask(sock, request, ifname))[0])


def _is_up(sock: socket.socket, ifname: str) -> bool:
    return bool(struct.unpack_from("H", _ask(sock, _SIOCGIFFLAGS, ifname))[0] & _IFF_UP)


def open_interface(ifname: str, netns: str | None = None) -> tuple[socket.socket, int]:
    """A packet socket on interface ``ifname``, non-blocking, and the interface's index.

    Frames come and go with a virtio-net header of 10 bytes; those that leave through the interface do not come back.
    Raises `DeviceError`.
    """
    check_ifname(ifname)
    ip = f"{ip_in(netns)} link"
    where = f"interface {ifname}{f' in {netns}' if netns else ''}"
    with in_netns(netns):
        try:
            # Protocol 0: nothing is received before the bind below, so no frame of another interface slips in.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        except PermissionError:
            raise DeviceError(f"{where}: a packet socket is not permitted; run as root (CAP_NET_RAW)") from None
        try:
            try:
                index = _number(sock, _SIOCGIFINDEX, ifname)
            except OSError:
                known = ", ".join(name for _, name in socket.if_nameindex())
                mend = f"{ip} add {ifname} type veth peer name ..., or choose another"
                raise NotThere(f"{where}: there is none; there are: {known} ({mend})") from None
            _check(sock, ifname, where, ip)
            _set_up(sock, index, where)
            sock.bind((ifname, _ETH_P_ALL))
        except OSError as error:
            sock.close()
            raise DeviceError(f"{where}: {error.strerror}") from None
        except BaseException:
            sock.close()
            raise
    return sock, index


def _check(sock: socket.socket, ifname: str, where: str, ip: str) -> None:
    (kind,) = struct.unpack_from("H", _ask(sock, _SIOCGIFHWADDR, ifname))
    if kind != _ARPHRD_ETHER:
        raise DeviceError(f"{where}: no Ethernet interface (link type {kind}): choose a veth, a bridge port or a NIC")
    if not _is_up(sock, ifname):
        raise NotThere(f"{where}: it is down; {ip} set {ifname} up")


def _set_up(sock: socket.socket, index: int, where: str) -> None:
    sock.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    sock.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    try:
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    except OSError:
        raise DeviceError(f"{where}: needs Linux 4.20 or later (PACKET_IGNORE_OUTGOING)") from None
    # The guest's MAC address is not the interface's.  The membership ends with the socket.
    membership = struct.pack("iHH8x", index, _MR_PROMISC, 0)
    sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # needs CAP_NET_ADMIN; else net.core.rmem_max limits it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


class Interface(Device):
    """Frames of send leave through the interface; what arrives on it comes out of receive.

    Params besides those of `Device`: ``vnet_hdr``: frames keep the virtio-net header (10 bytes).  Without it, what a
    local sender left to the card is done here: checksums are made, and frames that were put together are cut.
    """

    _socket: socket.socket
    _index = 0
    _look_at = 0
    _drained = False
    _down = False

    def header(self) -> int:
        """Always the short one."""
        return message.VNET_HEADER

    def given(self) -> int:
        """Frames keep it with ``vnet_hdr``."""
        return message.VNET_HEADER if self.params["vnet_hdr"] else 0

    def options(self) -> dict[int, int]:
        """Those of a device, and that it is a packet socket."""
        return {**super().options(), options.SOCKET: 1}

    @property
    def _ifname(self) -> str:
        return str(self.params["ifname"])

    def open(self) -> int:
        """The interface, which must be there and up.  Raises `DeviceError`."""
        self._socket, self._index = open_interface(self._ifname, self.params["netns"])
        self._warned: set[str] = set()
        self._down = False
        w, base = self.w, int(self.u8.ctypes.data)
        m = self.memory + memory.MESSAGE
        w[m + message.BASE] = base
        w[m + message.PARTS], w[m + message.PARTS_N] = base + (m + message.HEAD) * 8, message.PARTS_USED
        w[m + message.CONTROL] = base + (m + message.AUXILIARY) * 8
        w[m + message.HEAD_LEN] = message.VNET_HEADER
        self._measure()
        try:
            _ask(self._socket, _SIOCGIFADDR, self._ifname)
        except OSError:
            pass  # EADDRNOTAVAIL: it has none, as it should
        else:
            self._warn(
                "the interface has an address: this kernel answers its packets, too",
                mend=f"ip addr flush dev {self._ifname}",
            )
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, with which the promiscuous mode ends."""
        self._socket.close()

    def _measure(self) -> int:
        mtu = _number(self._socket, _SIOCGIFMTU, self._ifname)
        self.w[options.LONGEST] = mtu + _OVERHEAD
        return mtu

    def _warn(self, event: str, **more: object) -> None:
        """Log a warning, once in this incarnation; counters have the numbers."""
        if event not in self._warned:
            self._warned.add(event)
            self.log.warning(event, interface=self.where, **more)

    def look(self, now: int) -> None:
        """Ten times a second: ask for the system's drops, explain what bursts met."""
        w, x = self.w, self.memory
        draining = bool(w[layout.CMD_DRAIN])
        if now < self._look_at and draining == self._drained:
            return
        self._look_at = now + _LOOK_NS
        if not self._drained:  # what comes after a drain is not ours to take, so it is no loss
            _, drops = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
            w[x + memory.LOST] += drops  # the socket forgets them when asked
        self._drained = draining
        if w[x + memory.REFUSAL] or w[x + memory.OVERSIZE] or w[x + memory.UNCUT]:
            self._explain(*(int(w[x + word]) for word in (memory.REFUSAL, memory.OVERSIZE, memory.UNCUT)))
            w[x + memory.REFUSAL] = w[x + memory.OVERSIZE] = w[x + memory.UNCUT] = 0
        if self._down and self._is_there() and _is_up(self._socket, self._ifname):
            self._down = False
            self.log.info("interface is up again", interface=self.where)

    def _explain(self, refusal: int, oversize: int, uncut: int) -> None:
        if not self._is_there():
            return
        mtu = self._measure()
        if oversize > mtu + _OVERHEAD and not self.given():
            self._warn(
                "frames are longer than the MTU, and not put together: not every receiver takes them",
                bytes=oversize, mtu=mtu, mend=f"the same MTU at the peer of {self._ifname}",
            )  # fmt: skip
        if uncut:
            self._warn(
                "frames that the system had put together cannot be cut here: dropped",
                reason=segmentation.WHY[uncut],
                mend=f"ethtool -K {self._ifname} gro off lro off tso off gso off, at its peer, too",
            )
        if refusal == errno.EMSGSIZE:
            self._warn("frames to send are longer than the MTU: refused", mtu=mtu, mend="a larger MTU")

    def _is_there(self) -> bool:
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFNAME, struct.pack("16si20x", b"", self._index))
        except OSError:
            return False
        return answer[:16].rstrip(b"\0") == self._ifname.encode()

    def failed(self, number: int) -> None:
        """An interface that is down may come up again, and one that is gone may be made again."""
        if number == errno.ENETDOWN and self._is_there():
            if not self._down:
                self._down = True
                self.log.warning("interface is down: what is sent is refused", interface=self.where)
            return
        self.lost(f"{os.strerror(number)}: somebody deleted, renamed or moved it")
