"""What the first bytes of a connection say about its other end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.socket.diagnose import diagnose, unread
from tests.peers import ETHERNET, wire

VIRTIO = wire(b"\0" * 10 + ETHERNET, v=10)


@pytest.mark.parametrize(
    ("first", "vnet", "word"),
    [
        (wire(ETHERNET), False, None),
        (wire(ETHERNET), True, "off here, or on there"),
        (VIRTIO, True, None),
        (VIRTIO, False, "on here, or off there"),
        (wire(ETHERNET, v=0), True, None),
        (wire(ETHERNET, v=0), False, "on here, or off there"),
        (wire(b"COLO_USERSPACE_PROXY_INIT"), False, "notify_dev"),
        (wire(b"DO_CHECKPOINT", v=0), True, "notify_dev"),
        (b"GET / HTTP/1.1\r\n\r\n", False, "another protocol"),
        (b"\xff\xff\xff\xff\0\0\0\0", False, None),
        (wire(b"short"), False, "5 bytes"),
        (wire(b"\xff" * 12 + b"\x12\x34" + b"?" * 50), False, None),  # an unknown type is no proof
        (wire(b"\x01\x80\xc2\0\0\0" + b"\x52\x54\0\0\0\1" + b"\0\x26" + b"B" * 46), True, "off here, or on there"),
        (b"\0\0", False, None),
        (b"", True, None),
    ],
)
def test_diagnose(first, vnet, word):
    said = diagnose(first[:64], vnet)
    assert said is None if word is None else word in (said or "")


@given(st.binary(max_size=64), st.booleans())
def test_diagnose_never_fails(first, vnet):
    assert diagnose(first, vnet) is None or isinstance(diagnose(first, vnet), str)


@pytest.mark.parametrize("first", [wire(ETHERNET), wire(ETHERNET, v=0), VIRTIO])
def test_frames_on_a_link_that_is_not_read(first):
    said = unread(first[:64], "filter.m0.outdev", "")
    assert said.endswith(
        "this link is filter.m0.outdev, so the peer's other end has to be an indev or an input of a compare"
    )
    assert "its address and that of c1 (k) may be exchanged" in unread(first[:64], "filter.m0.outdev", "c1 (k)")


@given(st.binary(max_size=64))
def test_any_bytes_on_a_link_that_is_not_read(first):
    assert unread(first, "filter.m0.outdev", "c1 (k)").startswith("its peer sends ")
