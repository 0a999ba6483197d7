"""What command lines come in: mails, word processors, libvirt's XML, QMP commands; QEMUs with objects of their own."""

from __future__ import annotations

import json
import quopri
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.from_qemu import converting
from tests.tools.from_qemu.converting import CHARDEV, INPUTS, LINE, MIRROR, NETDEV, PAPER
from tools.from_qemu import mending
from tools.from_qemu.__main__ import main
from tools.from_qemu.convert import convert
from tools.from_qemu.model import Asked
from tools.from_qemu.sources import command_lines
from tools.from_qemu.words import Trouble

run = converting.run

# --- texts from mails and word processors -----------------------------------------------------------------------------
MENDED = {
    "quoted": "> " + LINE.replace(" -", " \\\n>   -"),
    "quoted thrice": ">>> " + LINE.replace(" -", " \\\n> > >   -") + "\n\nOn Monday somebody wrote",
    "a shell's second lines": "$ " + LINE.replace(" -", " \\\n> -"),
    "en dashes": LINE.replace(" -", " \N{EN DASH}"),
    "em dashes": LINE.replace(" -", " \N{EM DASH}"),
    "hyphens that do not break": LINE.replace("-", "\N{NON-BREAKING HYPHEN}"),
    "minus signs": LINE.replace(" -", " \N{MINUS SIGN}"),
    "quotes": LINE.replace("10.0.0.1", "\N{LEFT DOUBLE QUOTATION MARK}10.0.0.1\N{RIGHT DOUBLE QUOTATION MARK}"),
    "single quotes": LINE.replace("10.0.0.1", "\N{LEFT SINGLE QUOTATION MARK}10.0.0.1\N{RIGHT SINGLE QUOTATION MARK}"),
    "no-break spaces": LINE.replace(" ", "\N{NO-BREAK SPACE}"),
    "other spaces": LINE.replace(" ", "\N{NARROW NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}"),
    "of width zero": LINE.replace(",", ",\N{ZERO WIDTH SPACE}").replace("hn0", "h\N{SOFT HYPHEN}n0"),
    "a mark first": "\ufeff" + LINE,
    "full width": LINE.replace(",", "\N{FULLWIDTH COMMA}").replace("=", "\N{FULLWIDTH EQUALS SIGN}"),
    "quoted-printable": quopri.encodestring(LINE.replace(" -", " \\\n   -").encode()).decode(),
    "quoted-printable, quoted": quopri.encodestring(("> " + LINE.replace(" -", " \\\n> -")).encode()).decode(),
    "quoted-printable, no-break": quopri.encodestring(LINE.replace(" ", "\N{NO-BREAK SPACE}").encode()).decode(),
    "CRLF": LINE.replace(" -", " \\\r\n-") + "\r\n",
    "CR": "A command:\r" + LINE + "\r",
}


@pytest.mark.parametrize("name", MENDED)
def test_what_a_text_went_through_changes_nothing(run, name: str) -> None:
    """The same tables, and the same command line for QEMU; it is said what was mended."""
    plain, done = run(LINE), run(MENDED[name])
    assert done.status == plain.status == 0, done.told
    assert done.tables == plain.tables
    assert done.qemu == plain.qemu
    silent = name in ("CRLF", "CR", "a mark first")
    assert (
        bool(
            re.search(
                r"line \d+: (?:typographic|spaces|characters|full-width|a quoted mail|quoted-printable)", done.told
            )
        )
        != silent
    )


def test_the_papers_text_in_a_mail_is_what_it_was(run) -> None:
    """With a diff's + within the quotes, each line in its place."""
    text = (INPUTS / PAPER).read_text()
    plain = run(text, "--side", "secondary")
    quoted = run("".join(f"> {line}\n" for line in text.split("\n")), "--side", "secondary")
    assert quoted.tables == plain.tables and quoted.status == plain.status
    encoded = run(quopri.encodestring(text.encode()).decode(), "--side", "secondary")
    assert encoded.tables == plain.tables and encoded.status == plain.status
    places = [re.findall(r"line (\d+), -netdev hn0", done.told) for done in (plain, quoted)]
    assert places[0] == places[1]


def test_lines_are_counted_as_in_the_mail(run) -> None:
    """A line that quoted-printable has cut in two is two lines of the input."""
    broken = LINE.replace("queue=tx", "queue=up").replace(" -", " \\\n -")
    text = broken.replace("=", "=3D").replace("ifname", "if=\nname")
    (at,) = [n for n, line in enumerate(text.split("\n"), 1) if "filter-mirror" in line]
    assert f"line {at}, filter-mirror m0: queue" in run(text).told
    assert at == 6


def test_an_equals_sign_that_looks_encoded_is_left_alone(run) -> None:
    """One =3D among others that are not encoded is a value."""
    done = run(LINE.replace("id=c0", "id=3Dc0").replace("outdev=c0", "outdev=3Dc0"))
    assert done.status == 0 and list(done.tables["chardev"]) == ["3Dc0"]


def test_a_redirection_at_the_start_of_a_line_is_no_quote(run) -> None:
    """Only where something typed stands behind the mark."""
    done = run(f"{LINE} \\\n  > /tmp/log 2>&1")
    assert done.status == 0 and done.qemu.rstrip().endswith("> /tmp/log 2>&1")


def test_what_is_mended_elsewhere_in_a_page_is_not_told(run) -> None:
    """A typographic apostrophe in prose is nobody's matter."""
    done = run(f"Don\N{RIGHT SINGLE QUOTATION MARK}t \N{EM DASH} really \N{HORIZONTAL ELLIPSIS}\n\n{LINE}\n")
    assert done.status == 0 and "typographic" not in done.told


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("\N{HORIZONTAL ELLIPSIS}", "U+2026 (HORIZONTAL ELLIPSIS); write what it stands for"),
        ("\N{REPLACEMENT CHARACTER}", "U+FFFD (REPLACEMENT CHARACTER); write the character that was there"),
        ("\N{LINE SEPARATOR}", "U+2028 (LINE SEPARATOR)"),
        ("\ue000", "U+E000 (a character without a name)"),
        ("\x1b", "U+001B (a character without a name)"),
    ],
)
def test_a_character_that_cannot_be_mended_is_named_with_its_place(run, bad: str, told: str) -> None:
    """Line and column of the input."""
    line = LINE.replace(" -", " \\\n \N{EN DASH}").replace("ifname=t0", f"ifname={bad}")
    done = run(f"\n{line}")
    assert done.status == 2
    column = line.split("\n")[2].index(bad) + 1
    assert done.told.startswith(f"from_qemu: line 4, column {column}: {told}")


def test_words_after_two_dashes_are_mended_too(capsys) -> None:
    """Pasted into a shell."""
    words = LINE.replace("-object", "\N{EN DASH}object").split()
    assert main(["--", *words]) == 0
    out, told = capsys.readouterr()
    assert "[filter.m0]" in out and "word 8: typographic dashes are read as -" in told


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_text_in_another_unicode_is_named_with_the_mend(run, encoding: str) -> None:
    """As Windows saves it, or writes it behind a >."""
    done = run(LINE.encode(encoding))
    assert done.status == 2
    assert f"a text in {encoding.upper().replace('-LE', 'LE')}; give it in UTF-8: `iconv -f UTF-" in done.told


# --- objects of other QEMUs -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("written", ["filter-drop", "filter-passthrough", "filter-x", "colo-x"])
def test_an_object_of_a_patched_qemu_is_named_and_the_rest_is_converted(run, written: str) -> None:
    """It is neither here nor in QEMU's command line."""
    plain, done = run(LINE), run(f"{LINE} \\\n -object {written},id=x0,netdev=hn0,queue=rx")
    assert done.status == 1
    assert f"line 2, {written} x0: QEMU 7.2 has no such object, it is a patched QEMU's: it is left out" in done.told
    assert done.tables == plain.tables and done.qemu == plain.qemu


def test_objects_of_a_patched_qemu_alone_are_nothing_to_convert(run) -> None:
    """There is no part of ours."""
    done = run(f"qemu {NETDEV} -object filter-drop,id=x0,netdev=hn0")
    assert done.status == 2 and "in the command line, only filter-drop; give one that has them" in done.told


# --- libvirt --------------------------------------------------------------------------------------------------------
def domain(arguments: list[str], interfaces: str = "", name: str = "vm1") -> str:
    rows = "\n".join(f"    <qemu:arg value='{word}'/>" for word in arguments)
    return f"""<?xml version="1.0"?>
<!-- made by hand -->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <devices>
{interfaces}
  </devices>
  <qemu:commandline>
{rows}
  </qemu:commandline>
</domain>
"""


PARTS = [CHARDEV, MIRROR.replace("hn0", "hostnet0")]
WORDS = [word for part in PARTS for word in part.split(" ")]
NIC = (
    "<interface type='bridge'><mac address='52:54:00:0a:0b:0c'/><source bridge='br0'/>"
    "<target dev='vnet7'/><model type='virtio'/></interface>"
)


def test_a_domain_of_libvirt_is_read(run) -> None:
    """Its name, its arguments, and the <interface> that they name; the new arguments are XML again."""
    text = domain([*WORDS, "-device", "e1000,netdev=other"], NIC)
    done = run(text)
    assert done.status == 0, done.told
    assert done.tables["pipeline"]["name"] == "vm1"
    assert done.tables["netdev"]["hostnet0"]["network"] == {"backend": "tap", "ifname": "vnet7"}
    assert done.tables["chardev"]["c0"]["port"] == 9003
    assert "line 6: take <interface> out of the domain: its NIC, hostnet0," in done.told
    assert "`ip link set vnet7 master br0 up` joins vnet7 to the bridge" in done.told
    new = ElementTree.fromstring(done.qemu.replace("qemu:", ""))  # our own text
    assert [arg.get("value") for arg in new] == [
        "-netdev", "stream,id=hostnet0,server=off,addr.type=unix,addr.path=/run/colo/vm1-hostnet0.sock",
        "-device", "virtio-net-pci,netdev=hostnet0,id=net0,mac=52:54:00:0a:0b:0c",
        "-device", "e1000,netdev=other",
    ]  # fmt: skip


def test_places_in_a_domain_are_lines(run) -> None:
    """Also where the XML stands in a page."""
    text = "Here it is:\n\n" + domain([w.replace("queue=tx", "queue=up") for w in WORDS], NIC)
    at = next(n for n, line in enumerate(text.split("\n"), 1) if "queue=up" in line)
    assert f"line {at - 1}, filter-mirror m0: queue: found" in run(text).told


def test_which_interface_an_argument_names(run) -> None:
    """By its alias, or by its place among them; one that is not named stays libvirt's."""
    second = NIC.replace("vnet7", "vnet8").replace("bridge='br0'", "network='lab'").replace("'bridge'", "'network'")
    words = [word.replace("hostnet0", "hostnet1") for word in WORDS]
    done = run(domain(words, f"{NIC}\n{second}"))
    assert done.tables["netdev"] == {
        "hostnet1": {
            "network": {"backend": "tap", "ifname": "vnet8"},
            "guest": {"backend": "stream", "path": "/run/colo/vm1-hostnet1.sock", "server": True},
        }
    }
    assert "line 7: take <interface>" in done.told and "line 6" not in done.told
    assert "the bridge of libvirt's network lab: `virsh net-info lab`" in done.told
    named = NIC.replace("<mac", "<alias name='ua-front'/><mac")
    done = run(domain([word.replace("hostnet0", "hostua-front") for word in WORDS], named))
    assert done.tables["netdev"]["hostua-front"]["network"]["ifname"] == "vnet7"


@pytest.mark.parametrize(
    ("interface", "network", "told"),
    [
        ("<interface type='network'><source network='default'/><target dev='v0'/></interface>",
         {"backend": "tap", "ifname": "v0"}, "master virbr0"),
        ("<interface type='ethernet'><target dev='v0'/><script path='/etc/up'/></interface>",
         {"backend": "tap", "ifname": "v0"}, "script=/etc/up is not run"),
        ("<interface type='user'/>", {"backend": "null"}, "a TAP device with NAT"),
        ("<interface type='direct'><source dev='eth0'/></interface>", {"backend": "null"}, "macvtap of libvirt"),
        ("", {"backend": "null"}, "no -netdev has the id"),
    ],
)  # fmt: skip
def test_each_type_of_interface(run, interface: str, network: dict[str, str], told: str) -> None:
    """As the netdev that libvirt makes of it, or named."""
    done = run(domain(WORDS, interface))
    assert done.tables["netdev"]["hostnet0"]["network"] == network
    assert told in done.told


def test_an_argument_that_makes_its_own_netdev_needs_no_interface(run) -> None:
    """The <interface> of the same number is another one."""
    own = NETDEV.replace("hn0", "hostnet0").split(" ")
    done = run(domain([*own, *WORDS], NIC))
    assert done.tables["netdev"]["hostnet0"]["network"]["ifname"] == "t0"
    assert "<interface>" not in done.told


def test_the_arguments_alone_are_read_and_two_domains_ask_which(run) -> None:
    """What somebody posts of a domain."""
    rows = "".join(f"<qemu:arg value='{word}'/>\n" for word in NETDEV.replace("hn0", "hostnet0").split(" ") + WORDS)
    assert run(f"<qemu:commandline>\n{rows}</qemu:commandline>").status == 0
    done = run(domain(WORDS, NIC) + domain(WORDS, NIC, "vm2"))
    assert done.status == 2 and "2 command lines: line 3 (primary), line " in done.told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (domain(WORDS).replace("<!-- made", '<!DOCTYPE domain [<!ENTITY x "y">]><!-- made'), "a DOCTYPE or an entity"),
        (domain(WORDS).replace("</devices>", ""), "XML that does not parse (mismatched tag)"),
        (domain(WORDS).replace("vm1", "&x;"), "line 4: XML that does not parse (undefined entity)"),
        (domain(WORDS).replace("</domain>", ""), "line 3: <domain> without </domain>; give the whole XML"),
        (domain(WORDS).replace("vm1", "<a>" * 200 + "</a>" * 200), "nested too deep"),
        (domain(["-m", "512"]), "a QEMU command line, but no filter"),
        (domain([]), "no QEMU command line"),
    ],
)
def test_a_domain_that_cannot_be_read_is_one_line(run, text: str, told: str) -> None:
    """No entity is looked at."""
    done = run(text)
    assert done.status == 2 and told in done.told


def test_files_of_a_domain(tmp_path: Path, capsys) -> None:
    """--qemu-out is XML with a comment, and what to do with it is said."""
    (tmp_path / "d.xml").write_text(domain(WORDS, NIC))
    files = ["-o", str(tmp_path / "c.toml"), "--qemu-out", str(tmp_path / "q.xml"), str(tmp_path / "d.xml")]
    assert main(files) == 0
    assert ElementTree.fromstring((tmp_path / "q.xml").read_text().replace("qemu:", "")).tag == "commandline"
    assert "q.xml in the place of the domain's <qemu:commandline> (virsh edit)" in capsys.readouterr().err


# --- QMP ------------------------------------------------------------------------------------------------------------
COMMANDS = [
    {"execute": "qmp_capabilities"},
    {"execute": "netdev_add", "arguments": {"type": "tap", "id": "hn0", "ifname": "t0", "script": "no"}},
    {"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "socket", "data": {
        "addr": {"type": "inet", "data": {"host": "10.0.0.1", "port": "9003"}}, "server": True}}}},
    {"execute": "object-add", "arguments": {
        "qom-type": "filter-mirror", "id": "m0", "netdev": "hn0", "queue": "tx", "outdev": "c0"}},
    {"execute": "device_add", "arguments": {"driver": "e1000", "netdev": "hn0"}},
]  # fmt: skip
SCRIPT = [json.dumps(command) for command in COMMANDS]
OLD = SCRIPT[3].replace('"netdev"', '"props": {"netdev"').replace("}}", "}}}")
SHELL = [
    "(QEMU) netdev_add type=tap id=hn0 ifname=t0 script=no",
    '{"return": {}}',
    "(QEMU) chardev-add id=c0 backend={'type':'socket','data':{'addr':{'type':'inet',"
    "'data':{'host':'10.0.0.1','port':'9003'}},'server':true}}",
    "(QEMU) object-add qom-type=filter-mirror id=m0 netdev=hn0 queue=tx outdev=c0",
    "(QEMU) device_add driver=e1000 netdev=hn0",
]
MONITOR = [
    json.dumps({"execute": "human-monitor-command", "arguments": {"command-line": f"{name} {value}"}})
    for name, value in (
        ("netdev_add", "tap,id=hn0,ifname=t0,script=no"),
        ("chardev-add", CHARDEV.split()[1].replace("server=on,", "server=on,")),
        ("object_add", MIRROR.split()[1]),
        ("device_add", "e1000,netdev=hn0"),
    )
]
GREETING = '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}'
EVENT = '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}'
QMP = {
    "a line each": "\n".join(SCRIPT),
    "with answers": f"{GREETING}\n\n" + '\n{"return": {}}\n\n'.join(SCRIPT) + f"\n{EVENT}\n",
    "as documents write it": "".join(f"-> {line}\n<- {{ 'return': {{}} }}\n" for line in SCRIPT),
    "over several lines": "\n".join(json.dumps(command, indent=2) for command in COMMANDS),
    "single quotes": "\n".join(SCRIPT).replace('"', "'"),
    "props": "\n".join([*SCRIPT[:3], OLD, SCRIPT[4]]),
    "a shell's echo": "".join(f"echo '{line}' | nc -U /tmp/qmp\n" for line in SCRIPT),
    "id and order": "\n".join(json.dumps({"id": 7, **dict(reversed(c.items()))}) for c in COMMANDS),
    "qmp-shell": "Welcome to the QMP low-level shell!\n" + "\n".join(SHELL),
    "the monitor's": "\n".join(MONITOR),
    "added and removed": "\n".join(
        [SCRIPT[3].replace("m0", "m1"), *SCRIPT, '{"execute": "object-del", "arguments": {"id": "m1"}}']
    ),
    "typographic quotes": "\n".join(SCRIPT).replace('"', "\N{RIGHT DOUBLE QUOTATION MARK}"),
}


@pytest.mark.parametrize("name", QMP)
def test_qmp_commands_give_what_a_command_line_would(run, name: str) -> None:
    """The same tables; what is left are QMP commands."""
    done = run(QMP[name])
    assert done.status == 0, done.told
    assert done.tables == run(LINE).tables
    kept = [line for line in done.qemu.splitlines() if "qmp_capabilities" not in line]
    assert len(kept) == 2 and "e1000" in kept[1]
    assert json.loads(kept[0]) == {"execute": "netdev_add", "arguments": {
        "type": "stream", "id": "hn0", "server": False,
        "addr": {"type": "unix", "path": "/run/colo/primary-hn0.sock"},
    }}  # fmt: skip


def test_a_netdev_that_a_script_does_not_make(run) -> None:
    """It is QEMU's own: what becomes of it is said, and its TAP device can be."""
    script = "\n".join(SCRIPT[2:4])
    done = run(script)
    assert done.status == 1
    assert 'line 2, filter-mirror m0: no -netdev has the id "hn0"' in done.told
    assert "where hn0 is made for QEMU, it becomes `-netdev stream,id=hn0,server=off," in done.told
    done = run(script, "--tap", "hn0=t0")
    assert done.status == 0
    assert done.tables["netdev"]["hn0"]["network"] == {"backend": "tap", "ifname": "t0"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SCRIPT[3][:-4], "line 1: JSON that does not parse"),
        ("\n" + SCRIPT[3].replace('"queue": "tx"', '"queue": "up"'), 'line 2, filter-mirror m0: queue: found "up"'),
        (SCRIPT[3] + "\n" + SCRIPT[3], 'line 2, -object: a second "m0"'),
        ('{"execute": "object-add", "arguments": 7}', "arguments of object-add that are no object"),
        ("(QEMU) object-add filter-mirror", '"filter-mirror" at the prompt of qmp-shell; write key=value'),
        ("(QEMU) object-add a=1 a.b=2", '"a.b", but "a" has a value'),
        (SCRIPT[3].replace("filter-mirror", "filter-miror"), "no such object; filter-mirror, perhaps"),
        (SCRIPT[0], "no QEMU command line"),
        (SCRIPT[4], "a QEMU command line, but no filter"),
    ],
)
def test_a_script_that_cannot_be_understood_is_one_line(run, text: str, told: str) -> None:
    """Where, what, and the mend."""
    done = run(text)
    assert done.status == 2 and told in done.told


def test_a_page_with_both_has_its_command_line_read(run) -> None:
    """Documents show a command line, and QMP commands that start the rest."""
    done = run(f"{LINE}\n\n{SCRIPT[0]}\n{{'execute': 'migrate-set-capabilities', 'arguments': {{}} }}\n")
    assert done.status == 0 and done.tables == run(LINE).tables


# --- whatever is given ------------------------------------------------------------------------------------------------
@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([*MENDED.values(), *QMP.values(), domain(WORDS, NIC)]))
    at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    put = draw(st.sampled_from(["", '"', "'", "{", "}", "<", ">", "=", "=\n", "\n> ", "\ufeff", "(QEMU) ", "&x;", "…"]))
    return text[:at] + put + text[min(end, at + draw(st.integers(0, 9))) :]


@settings(max_examples=300)
@given(damaged())
def test_whatever_is_given_there_is_a_config_or_one_clear_line(text: str) -> None:
    """Nothing else is raised, and every place is a line of the text."""
    lines = []
    try:
        lines = command_lines(text, {})
        for line in lines:
            mending.check(line, text)
            convert(line, Asked())
    except Trouble as trouble:
        assert "\n" not in str(trouble)  # noqa: PT017
    for line in lines:
        assert 1 <= int(line.place.split()[1]) <= text.count("\n") + text.count("\r") + 1
