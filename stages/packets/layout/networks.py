"""Which network a packet belongs to: what stands in a key's words above the IP version and above the protocol.

The same addresses and ports in two networks are two connections.  What is inside of a tunnel has the key of the packet
inside, the tunnel's kind and id, and in ``VIA`` a digest of where the tunnel runs, as far as its id does not say it.
"""

from __future__ import annotations

from typing import Final

from ring.fields import Values

# In the key's word `parsed.VLAN`: two VLAN tags, IP version, kind of encapsulation, its id (24 bits).
VERSION_AT: Final = 32
VERSION: Final = 15  # mask, at VERSION_AT
KIND_AT: Final = 36
KIND: Final = 7  # mask, at KIND_AT
ID_AT: Final = 39
ID: Final = 0xFFFFFF  # mask, at ID_AT
# In the key's word `parsed.PORTS`, above protocol and marks of the compare: 20 bits, the same in both directions.
VIA_AT: Final = 42
VIA: Final = 0xFFFFF << VIA_AT

_KIND = Values()
PLAIN: Final = _KIND.value("")  # at most two VLAN tags
TAGS: Final = _KIND.value("tags")  # id: third tag << 12 | fourth tag
PPPOE: Final = _KIND.value("pppoe")  # id: the session (RFC 2516)
VXLAN: Final = _KIND.value("vxlan")  # id: the VNI (RFC 7348); this and all that follow are tunnels
GENEVE: Final = _KIND.value("geneve")  # id: the VNI (RFC 8926)
GRE: Final = _KIND.value("gre")  # id: lower 24 bits of the key (RFC 2784, RFC 2890), 0: it has none
IP: Final = _KIND.value("ip")  # IP in IP (RFC 2003, RFC 2473, RFC 4213); it has no id
NAMES: Final = _KIND.names

_POLICY = Values()
OUTER: Final = _POLICY.value("outer")  # the packets of a tunnel are packets like others
INNER: Final = _POLICY.value("inner")  # what is inside of them is what counts
PASS: Final = _POLICY.value("pass")  # they are not compared
POLICIES: Final = _POLICY.names
