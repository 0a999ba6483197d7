"""A domain of libvirt, as ``virsh dumpxml`` shows it: the words that it gives to QEMU by itself (``<qemu:arg>``).

The NICs that libvirt makes are ``<interface>`` elements; QEMU knows their netdevs as hostnet0, hostnet1 ...  Where an
argument names one, it is read, too.  Entities are not: an XML file may name other files, or grow without end.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import quoteattr

from tools.from_qemu.words import CommandLine, Trouble, Word

_START: Final = re.compile(r"<(?:domain|(?:[\w.-]+:)?commandline)(?=[\s>])")
_DEEPEST: Final = 100
# What QEMU's netdev is for an <interface> of a type; others keep their name, and are named as lost.
_NETDEVS: Final[Mapping[str, str]] = {
    "bridge": "tap", "network": "tap", "ethernet": "tap", "direct": "macvtap of libvirt", "vhostuser": "vhost-user",
}  # fmt: skip
_DEVICES: Final[Mapping[str, str]] = {
    "virtio": "virtio-net-pci", "virtio-transitional": "virtio-net-pci", "virtio-non-transitional": "virtio-net-pci",
}  # fmt: skip


@dataclass
class _Element:
    name: str  # without a prefix
    attributes: dict[str, str]
    line: int
    text: str = ""
    inner: list[_Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[_Element]:
        """Elements of that name within, however deep."""
        for element in self.inner:
            if element.name == name:
                yield element
            yield from element.all(name)

    def get(self, name: str, attribute: str) -> str:
        """An attribute of the first element of that name directly within; nothing where there is none."""
        return next((e.attributes.get(attribute, "") for e in self.inner if e.name == name), "")


def is_some(text: str) -> bool:
    """Whether a domain, or the arguments of one, stands in a text."""
    return _START.search(text) is not None


def command_lines(text: str, place: Callable[[int], str]) -> list[CommandLine]:
    """The arguments of every domain in a text.  ``place`` says where a line stands.  Raises `Trouble`."""
    found, at = [], 0
    while m := _START.search(text, at):
        name = m[0][1:]
        close = re.compile(rf"</{re.escape(name)}\s*>").search(text, m.end())
        first = text.count("\n", 0, m.start()) + 1
        if close is None:
            raise Trouble(place(first), f"<{name}> without </{name}>", "give the whole XML: virsh dumpxml NAME")
        at = close.end()
        domain = _parsed(_doctype(text[: m.start()]) + text[m.start() : at], first, place)
        line = _arguments(domain, place)
        if line is not None:
            found.append(line)
    return found


def rendered(words: list[str]) -> str:
    """The elements of an option's words."""
    return "\n".join(f"  <qemu:arg value={quoteattr(word)}/>" for word in words)


def _doctype(before: str) -> str:
    """A declaration of a document's type before it, so that it is seen, and refused."""
    m = re.search(r"<!DOCTYPE[^<]*(?:<!.*)?$", before, re.DOTALL)
    return re.sub(r"\n", " ", m[0]) if m else ""


def _parsed(text: str, first: int, place: Callable[[int], str]) -> _Element:
    """The outermost element of ``text``, whose first line is number ``first``."""
    root = _Element("", {}, 0)
    stack = [root]
    parser = xml.parsers.expat.ParserCreate()

    def here() -> int:
        return parser.CurrentLineNumber + first - 1

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise Trouble(place(here()), "XML that is nested too deep", "give the domain as virsh dumpxml shows it")
        element = _Element(name.rpartition(":")[2], attributes, here())
        stack[-1].inner.append(element)
        stack.append(element)

    def characters(data: str) -> None:
        stack[-1].text += data

    def refuse(*_: object) -> None:
        raise Trouble(place(here()), "a DOCTYPE or an entity of its own", "leave it out: libvirt's XML has none")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: stack.pop()
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except xml.parsers.expat.ExpatError as error:
        what = xml.parsers.expat.ErrorString(error.code)
        raise Trouble(
            place(error.lineno + first - 1), f"XML that does not parse ({what})", "give it as virsh dumpxml shows it"
        ) from None
    return root.inner[0]


def _arguments(domain: _Element, place: Callable[[int], str]) -> CommandLine | None:
    """A domain's arguments, with the netdevs of its interfaces that they name; None where it has none."""
    blocks = [domain] if domain.name == "commandline" else [*domain.all("commandline")]
    arguments = [arg for block in blocks for arg in block.inner if arg.name == "arg"]
    if not arguments:
        return None
    line = CommandLine(place(domain.line), form="xml")
    line.guest = next((e.text.strip() for e in domain.inner if e.name == "name"), "")
    words = [Word.made(arg.attributes.get("value", ""), place(arg.line)) for arg in arguments]
    named = set(re.findall(r"netdev[\"']?[=:]\s*[\"']?([\w.-]+)", "\n".join(word.value for word in words)))
    own = set(re.findall(r"(?:^|,)id=([\w.-]+)", "\n".join(word.value for word in words), re.MULTILINE))
    devices = next((e for e in domain.inner if e.name == "devices"), _Element("", {}, 0))
    for number, interface in enumerate(e for e in devices.inner if e.name == "interface"):
        alias = interface.get("alias", "name") or f"net{number}"
        netdev = f"host{alias}"
        if netdev in named - own:
            line.words += _interface(interface, netdev, alias, place(interface.line))
            text = f"take <interface> out of the domain: its NIC, {netdev}, is made by the new arguments; libvirt's own"
            text += " confinement (AppArmor, SELinux) has to let QEMU connect to the pipeline's socket"
            line.said.append(("do", place(interface.line), text))
            network = interface.get("source", "network")
            if network not in ("", "default") and not interface.get("source", "bridge"):
                text = f"put its TAP device into the bridge of libvirt's network {network}: `virsh net-info {network}`"
                line.said.append(("do", place(interface.line), text))
    line.words += words
    return line


def _interface(interface: _Element, netdev: str, alias: str, place: str) -> list[Word]:
    """What libvirt gives to QEMU for an <interface>, as far as it matters here."""
    kind = interface.attributes.get("type", "")
    made = _NETDEVS.get(kind, kind or "none")
    keys = [made, f"id={netdev}"]
    target, bridge = interface.get("target", "dev"), interface.get("source", "bridge")
    if made == "tap":
        keys += [f"ifname={target}"] if target else []
        keys += [f"br={bridge}"] if bridge else []
        if kind == "network" and not bridge:  # only libvirt knows its bridge; that of its own network is virbr0
            keys.append("br=virbr0" if interface.get("source", "network") == "default" else "script=no")
        if kind == "ethernet":
            keys.append(f"script={interface.get('script', 'path') or 'no'}")
    model = interface.get("model", "type")
    device = [_DEVICES.get(model, model or "virtio-net-pci"), f"netdev={netdev}", f"id={alias}"]
    mac = interface.get("mac", "address")
    device += [f"mac={mac}"] if mac else []
    values = [("-netdev", keys), ("-device", device)]
    return [
        word
        for option, parts in values
        for word in (
            Word.made(option, place),
            Word.made(",".join(part.replace(",", ",,") for part in parts), place),
        )
    ]
