"""A QEMU command line becomes a config: the documentation's examples, whole, and each thing that can stand in one."""

from __future__ import annotations

import io
import sys
import tomllib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config import parse
from pipeline.graph import plan
from tests.tools.from_qemu import converting, expected
from tests.tools.from_qemu.converting import CHARDEV, INPUTS, LINE, MIRROR, NETDEV, PAPER, with_parts
from tools.from_qemu.__main__ import main

run = converting.run

# --- the examples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "line", "status", "tables"), expected.EXAMPLES, ids=expected.IDS)
def test_each_example_of_the_documentation_gives_exactly_these_tables(run, file, line, status, tables) -> None:
    done = run((INPUTS / file).read_text(), "--line", str(line))
    assert done.status == status, done.told
    assert done.tables == tables
    names = [f"{kind}.{name}" for kind, things in done.tables.items() if kind != "pipeline" for name in things]
    assert names == [f"{kind}.{name}" for kind, things in tables.items() if kind != "pipeline" for name in things]


def test_a_primary_line_names_what_it_lost_and_what_is_left_to_do(run) -> None:
    done = run((INPUTS / PAPER).read_text(), "--side", "primary")
    assert done.status == 1
    assert "line 13, colo-compare comp0: it asked the COLO frame inside QEMU for checkpoints" in done.told
    assert "script=/etc/qemu-ifup is not run" in done.told and "downscript=/etc/qemu-ifdown is not run" in done.told
    assert "compare0 and compare0-0 only join two objects of this QEMU (port 9001): one ring, compare0" in done.told
    for note in ("it asked the COLO frame", "script=/etc/qemu-ifup is not run", "no ifname"):
        assert note in done.toml  # also for whoever finds the file later


def test_the_blank_within_downscript_is_named_and_passed_over(run) -> None:
    done = run((INPUTS / PAPER).read_text(), "--side", "secondary")
    assert done.status == 0
    assert '"=/etc/qemu-ifup,down" and "script=/etc/qemu-ifdown" are taken for one value' in done.told
    assert "downscript=/etc/qemu-ifdown is not run: `/etc/qemu-ifdown colo0`" in done.told
    assert "no filter-rewriter" in done.told


def test_the_new_command_line_has_the_converted_parts_taken_out_and_the_rest_untouched(run) -> None:
    done = run((INPUTS / "typed-now.txt").read_text(), "--side", "primary")
    assert done.qemu.splitlines() == [
        "qemu-system-x86_64 \\",
        "  -enable-kvm \\",
        "  -cpu qemu64,kvmclock=on \\",
        "  -m 512 \\",
        "  -smp 1 \\",
        "  -qmp stdio \\",
        "  -device piix3-usb-uhci \\",
        "  -device usb-tablet \\",
        "  -name primary \\",
        "  -netdev stream,id=hn0,server=off,addr.type=unix,addr.path=/run/colo/primary-hn0.sock \\",
        "  -device rtl8139,id=e0,netdev=hn0 \\",
        "  -drive if=ide,id=colo-disk0,driver=quorum,read-pattern=fifo,vote-threshold=1,"
        "children.0.file.filename=/mnt/vms/colo-test-primary/primary.qcow2,children.0.driver=qcow2 \\",
        "  -S",
    ]


def test_several_command_lines_in_a_text_ask_which(run) -> None:
    done = run((INPUTS / "usage-now.txt").read_text())
    assert done.status == 2
    assert "line 2 (primary), line 17 (secondary), line 26 (primary), line 40 (secondary)" in done.told
    assert "--side, or --line N" in done.told


# --- how it is written --------------------------------------------------------------------------------------------

SAME = [
    LINE.replace(" -", " \\\n   -"),
    LINE.replace(" -", " \\ \r\n\t-"),
    LINE.replace(" -", " --"),
    LINE.replace("qemu-system", "FOO='a b' sudo -E /usr/bin/qemu-system"),
    LINE.replace("10.0.0.1", "'10.0.0'.\"1\""),
    LINE.replace("port=9003", "port=90\\\n03"),
    f"#!/bin/sh\n# a script's note: don't\nset -e\nhost=10.0.0.1\ncd /tmp && {LINE.replace('10.0.0.1', '${host}')} &\n",
    f'net="{NETDEV} {CHARDEV}"\n{LINE.replace(f"{NETDEV} {CHARDEV}", "$net")}',
    f'args=(\n {NETDEV}\n {CHARDEV} # a note\n {MIRROR}\n)\nexec qemu "${{args[@]}}"\n',
    f"args=({NETDEV} {CHARDEV} {MIRROR})",
    f'net=(\n {NETDEV} # a note\n # -netdev user,id=hn0\n)\nqemu -m 512 "${{net[@]}}" \\\n {CHARDEV} {MIRROR}',
    f'all=({NETDEV})\nall+=({CHARDEV})\nlocal obj=(\n {MIRROR})\nqemu "${{all[@]}}" ${{obj[*]}}; echo done',
    f"It's prose.\n\n{NETDEV}\n\n{CHARDEV}\n{MIRROR}\n\nDon't read this.",
    f"$QEMU {NETDEV} {CHARDEV} {MIRROR}",
    f"{LINE} > log 2>&1",
    f"# {LINE}",
    f"#!/bin/sh\n# {LINE.replace('c0', 'old')}\n{LINE}",
    f"# {LINE.replace('c0', 'old')}\n{LINE}",
    f"qemu is started so:\n# {LINE}",
    LINE.replace("10.0.0.1", "${host:-10.0.0.1}"),
    LINE.replace("10.0.0.1", "${host:=10.0.0.1}"),
    f'cmd="qemu -m 512"\ncmd="$cmd {NETDEV}"\ncmd+=" {CHARDEV} {MIRROR}"\necho "$cmd"\n$cmd &\n',
    f'cmd="{LINE}"\neval "$cmd"',
    f"host=10.0.0.1 port=\n{LINE.replace('10.0.0.1', '${host-x}').replace('9003', '${port:-9003}')}",
    f"  $ {LINE}",
    LINE.replace("server=on,wait=off", "server,nowait"),
    LINE.replace("server=on,wait=off", "server=yes,wait=n,server=on"),
    LINE.replace("socket,id=c0", "id=c0,backend=socket"),
    LINE.replace("filter-mirror,id=m0", "id=m0,qom-type=filter-mirror"),
    LINE.replace(
        "filter-mirror,id=m0,netdev=hn0,queue=tx,outdev=c0",
        """'{"qom-type": "filter-mirror", "id": "m0", "netdev": "hn0", "queue": "tx", "outdev": "c0"}'""",
    ),
    LINE.replace(
        "tap,id=hn0,ifname=t0,script=no,downscript=no",
        """'{"type":"tap","id":"hn0","ifname":"t0","script":"no","downscript":"no"}'""",
    ),
    LINE.replace(
        "socket,id=c0,host=10.0.0.1,port=9003,server=on,wait=off",
        """'{"id":"c0","backend":{"type":"socket","data":{"addr":{"type":"inet","data":{"host":"10.0.0.1","port":"9003"}},"""
        """"server":true,"wait":false}}}'""",
    ),
    LINE.replace(  # as chardev-add takes it: a server that waits for nobody, unless it says otherwise
        "socket,id=c0,host=10.0.0.1,port=9003,server=on,wait=off",
        """'{"id":"c0","backend":{"type":"socket","data":{"addr":{"type":"inet","data":{"host":"10.0.0.1","port":"9003"}}}}}'""",
    ),
]


@pytest.mark.parametrize("text", SAME, ids=range(len(SAME)))
def test_however_it_is_written_it_is_the_same_config(run, text: str) -> None:
    done = run(text)
    assert done.status == 0, done.told
    assert done.tables == {
        "pipeline": {"name": "primary", "runtime_dir": "/run/colo"},
        "chardev": {"c0": {"backend": "socket", "host": "10.0.0.1", "port": 9003, "server": True}},
        "netdev": {
            "hn0": {
                "network": {"backend": "tap", "ifname": "t0"},
                "guest": {"backend": "stream", "path": "/run/colo/primary-hn0.sock", "server": True},
            }
        },
        "filter": {"m0": {"type": "filter-mirror", "netdev": "hn0", "queue": "tx", "outdev": "c0"}},
    }


def test_words_after_two_dashes_are_a_command_line(capsys) -> None:
    assert main(["--name", "x", "--", *LINE.split()]) == 0
    assert tomllib.loads(capsys.readouterr().out)["filter"]["m0"]["outdev"] == "c0"


def test_what_is_kept_comes_out_as_it_was_written(run) -> None:
    kept = "-append 'a \"b\"  c' -drive file=$disk,x=~/y -frob '-netdev'"
    text = f"FOO=1 exec qemu-system-arm {kept} {NETDEV} {CHARDEV} {MIRROR} >log"
    done = run(text)
    assert done.qemu.splitlines() == [
        "FOO=1 exec qemu-system-arm \\",
        "  -append 'a \"b\"  c' \\",
        "  -drive file=$disk,x=~/y \\",
        "  -frob '-netdev' \\",
        "  -netdev stream,id=hn0,server=off,addr.type=unix,addr.path=/run/colo/primary-hn0.sock \\",
        "  > log",
    ]


# --- what becomes what ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "table"),
    [
        ("host=h,port=1,server=on", {"host": "h", "port": 1, "server": True, "wait": True}),
        ("host=h,port=1,server", {"host": "h", "port": 1, "server": True, "wait": True}),
        ("host=h,port=1,reconnect=7", {"host": "h", "port": 1, "reconnect": 7}),
        ("host=h,port=1,reconnect-ms=1500", {"host": "h", "port": 1, "reconnect": 1.5}),
        ("host=h,port=1,reconnect=0", {"host": "h", "port": 1}),
        ("port=0x10,server=on,wait=off", {"host": "0.0.0.0", "port": 16, "server": True}),
        ("host=[::1],port=1", {"host": "::1", "port": 1}),
        ("path=/a,,b", {"path": "/a,b"}),
    ],
)
def test_a_chardev_socket_keeps_its_address_and_its_role(run, given: str, table: dict[str, Any]) -> None:
    done = run(with_parts(chardev=f"-chardev socket,id=c0,{given},nodelay,telnet=off"))
    assert done.status == 0, done.told
    assert done.tables["chardev"]["c0"] == {"backend": "socket", **table}


@pytest.mark.parametrize(
    ("given", "network", "status"),
    [
        ("bridge,br=br7", {"backend": "tap", "ifname": "colo0"}, 0),
        ("tap,ifname=v0,vhost=on", {"backend": "tap", "ifname": "v0"}, 1),
        ("tap,queues=4", {"backend": "tap", "ifname": "colo0"}, 1),
        ("tap,fd=3", {"backend": "tap", "ifname": "colo0"}, 1),
        ("stream,server=on,addr.type=unix,addr.path=/n", {"backend": "stream", "path": "/n", "server": True}, 0),
        (
            "stream,addr.type=inet,addr.host=h,addr.port=5,reconnect=2",
            {"backend": "stream", "host": "h", "port": 5, "reconnect": 2},
            0,
        ),
        ("socket,listen=:5", {"backend": "stream", "host": "0.0.0.0", "port": 5, "server": True}, 0),
        ("socket,connect=[::1]:5", {"backend": "stream", "host": "::1", "port": 5}, 0),
        ("socket,mcast=230.0.0.1:1234", {"backend": "null"}, 1),
        ("dgram,local.type=inet,local.host=h,local.port=5", {"backend": "null"}, 1),
        ("user,hostfwd=tcp::22-:22", {"backend": "null"}, 1),
        ("vhost-user,chardev=x", {"backend": "null"}, 1),
    ],
)
def test_each_type_of_netdev_becomes_a_network_side_or_is_named(run, given, network, status) -> None:
    kind, _, rest = given.partition(",")
    done = run(with_parts(f"-netdev {kind},id=hn0,{rest}"))
    assert done.status == status, done.told
    assert done.tables["netdev"]["hn0"]["network"] == network
    assert ("Not carried over" in done.told) == bool(status)
    assert "hn0" in done.told or not status


def test_a_nic_of_one_option_keeps_its_model_and_address(run) -> None:
    done = run(with_parts("-nic tap,id=hn0,model=e1000,mac=52:54:00:00:00:01,ifname=t0,script=no"))
    assert "-nic stream,id=hn0,model=e1000,mac=52:54:00:00:00:01,server=off,addr.type=unix" in done.qemu
    assert done.tables["netdev"]["hn0"]["network"]["ifname"] == "t0"


@pytest.mark.parametrize(
    ("version", "netdev"),
    [
        ("9.2", "stream,id=hn0,server=off,addr.type=unix,addr.path=/r/primary-hn0.sock,reconnect-ms=1000"),
        ("8.0.2", "stream,id=hn0,server=off,addr.type=unix,addr.path=/r/primary-hn0.sock,reconnect=1"),
        ("7.2", "stream,id=hn0,server=off,addr.type=unix,addr.path=/r/primary-hn0.sock"),
        ("6.1", "socket,id=hn0,connect=127.0.0.1:12700"),
    ],
)
def test_the_guests_netdev_is_what_that_version_of_qemu_has(run, version: str, netdev: str) -> None:
    done = run(LINE, "--qemu-version", version, "--runtime", "/r")
    assert f"-netdev {netdev} \\" in done.qemu
    guest = done.tables["netdev"]["hn0"]["guest"]
    assert guest.get("path", guest.get("port")) == ("/r/primary-hn0.sock" if version > "7" else 12700)


def test_qemu_can_be_the_one_that_listens(run) -> None:
    done = run(LINE, "--qemu-listens")
    assert "-netdev stream,id=hn0,server=on,addr.type=unix,addr.path=/run/colo/primary-hn0.sock" in done.qemu
    assert done.tables["netdev"]["hn0"]["guest"] == {"backend": "stream", "path": "/run/colo/primary-hn0.sock"}


def test_every_property_of_the_objects_is_carried_over(run) -> None:
    objects = (
        "-object filter-redirector,id=r0,netdev=hn0,queue=rx,indev=c1,outdev=c2,status=off,vnet_hdr_support=on "
        "-object filter-rewriter,id=w0,netdev=hn0,position=id=r0,insert=before "
        "-object filter-dump,id=d0,netdev=hn0,queue=tx,file=/tmp/d.pcap,maxlen=96 "
        "-object colo-compare,id=k0,primary_in=c3,secondary_in=c4,outdev=c5,notify_dev=c6,compare_timeout=10,"
        "expired_scan_cycle=20,max_queue_size=30,vnet_hdr_support=off,iothread=io0 -object iothread,id=io0"
    )
    chardevs = " ".join(f"-chardev socket,id=c{n},path=/c{n}" for n in range(1, 7))
    done = run(with_parts(chardev=chardevs, more=objects))
    assert done.status == 0, done.told
    assert done.tables["filter"] == {
        "r0": {
            "type": "filter-redirector", "netdev": "hn0", "queue": "rx", "status": "off", "indev": "c1",
            "outdev": "c2", "vnet_hdr_support": True,
        },
        "w0": {"type": "filter-rewriter", "netdev": "hn0", "position": "id=r0", "insert": "before"},
        "d0": {"type": "filter-dump", "netdev": "hn0", "queue": "tx", "file": "/tmp/d.pcap", "maxlen": 96},
    }  # fmt: skip
    assert done.tables["compare"]["k0"] == {
        "primary_in": "c3", "secondary_in": "c4", "outdev": "c5", "notify_dev": "c6", "compare_timeout": 10,
        "expired_scan_cycle": 20, "max_queue_size": 30,
    }  # fmt: skip
    assert "iothread" not in done.qemu
    # What is waited for, and for how long, is said: QEMU waits for ever.
    told = " ".join(done.told.split())
    assert "a secondary that answers nothing while packets wait 0.03 s in all is out of step" in told
    assert "where nobody is joined at notify_dev for 10 s what waits for a checkpoint goes on uncompared" in told


@pytest.mark.parametrize(
    ("server", "client", "ring"),
    [
        ("host=127.0.0.1,port=9", "host=127.0.0.1,port=9", True),
        ("host=0.0.0.0,port=9", "host=localhost,port=9", True),
        ("port=9", "port=9", True),
        ("path=/p", "path=/p", True),
        ("host=127.0.0.1,port=9", "host=127.0.0.1,port=8", False),
        ("host=0.0.0.0,port=9", "host=10.0.0.2,port=9", False),
        ("path=/p", "path=/q", False),
    ],
)
def test_two_ends_of_one_loopback_connection_become_a_ring(run, server: str, client: str, ring: bool) -> None:
    chardevs = f"-chardev socket,id=a,{server},server=on,wait=off -chardev socket,id=b,{client}"
    redirectors = "-object filter-redirector,id=r0,netdev=hn0,queue=rx,indev=a "
    redirectors += "-object filter-redirector,id=r1,netdev=hn0,queue=rx,outdev=b"
    done = run(with_parts(chardev=chardevs, more=redirectors))
    assert done.status == 0, done.told
    if ring:
        assert done.tables["chardev"] == {"a": {"backend": "ring"}}
        assert done.tables["filter"]["r1"]["outdev"] == "a"
    else:
        assert [c["backend"] for c in done.tables["chardev"].values()] == ["socket", "socket"]


def test_a_relative_path_starts_from_qemus_folder_which_the_user_is_told(run) -> None:
    done = run(with_parts(chardev="-chardev socket,id=c0,path=c0.sock,server=on,wait=off"))
    assert done.status == 0
    assert "path=c0.sock is relative: it starts from the config's folder now" in done.told
    assert done.tables["chardev"]["c0"]["path"] == "c0.sock"


def test_a_dump_alone_is_no_colo(run) -> None:
    """It stays in QEMU, where there is nothing else to do."""
    done = run("qemu-system-x86_64 -netdev user,id=hn0 -object filter-dump,id=d0,netdev=hn0,file=d.pcap")
    assert done.status == 2
    assert "no filter and no colo-compare in it" in done.told


def test_a_dump_to_a_relative_file_is_told_of(run) -> None:
    """As with the path of a socket: QEMU's folder is not known from a text."""
    done = run(
        with_parts(
            more="-object filter-mirror,id=m0,netdev=hn0,outdev=c0 -object filter-dump,id=d0,netdev=hn0,file=x.pcap"
        )
    )
    assert done.status == 0
    assert "filter-dump d0: file=x.pcap is relative: it starts from the config's folder now" in done.told


def test_the_side_is_found_and_a_name_is_made_fit(run) -> None:
    rewriter = "-object filter-rewriter,id=w0,netdev=hn0"
    assert "the secondary's side" in run(with_parts(chardev="", more=rewriter)).toml
    assert "the primary's side" in run(LINE).toml
    done = run(f"{LINE} -name guest=My_VM.1,debug-threads=on")
    assert done.tables["pipeline"]["name"] == "my-vm-1"
    assert "the pipeline is called my-vm-1" in done.told
    assert run(LINE, "--name", "mine").tables["pipeline"]["name"] == "mine"


def test_a_chardev_with_an_objects_id_gets_another(run) -> None:
    done = run(LINE.replace("c0", "m0"))
    assert done.tables["filter"]["m0"]["outdev"] == "m0-chardev"
    assert "m0-chardev" in done.tables["chardev"]


def test_variables_that_grow_without_end_are_refused(run) -> None:
    doubled = "a=0123456789\n" + "".join("a=$a$a\n" for _ in range(60))
    assert "variables that grow to more than 1,048,576 characters" in run(f"{doubled}{LINE} -name $a").told
    doubled = f"a=({NETDEV})\n" + 'a+=(-x y "${a[@]}")\n' * 60
    assert "variables that grow to more than" in run(f'{doubled}{LINE} "${{a[@]}}"').told


def test_tap_devices_without_a_name_get_different_ones(run) -> None:
    taps = "-netdev tap,id=hn0 -netdev tap,id=hn1,ifname=colo0 -netdev tap,id=hn2 -netdev user,id=other"
    rewriters = " ".join(f"-object filter-rewriter,id=w{n},netdev=hn{n}" for n in range(3))
    done = run(with_parts(taps, "", rewriters))
    assert [n["network"]["ifname"] for n in done.tables["netdev"].values()] == ["colo1", "colo0", "colo2"]
    assert "-netdev user,id=other" in done.qemu
    assert run(LINE, "--tap", "hn0=mine").tables["netdev"]["hn0"]["network"]["ifname"] == "mine"


def test_a_variable_gets_its_value_from_the_user(run) -> None:
    done = run(LINE.replace("10.0.0.1", "$ip"), "--define", "ip=10.9.9.9", "--replace-host", "10.9.9.9=127.0.0.1")
    assert done.tables["chardev"]["c0"]["host"] == "127.0.0.1"
    assert run(LINE, "--define", "ip").status == 2


# --- whatever comes in ----------------------------------------------------------------------------------------------

FILES = {file for file, *_ in expected.EXAMPLES}
PIECES = [
    "-netdev", "-chardev", "-object", "-nic", "-name", "qemu-system-x86_64", "tap", "stream", "socket", "bridge", "id=",
    "hn0", "c0", "m0", "netdev=hn0", "outdev=c0", "indev=", "filter-mirror", "filter-redirector", "colo-compare", ",",
    ",,", "=", " ", "\n", "\\", "\\\n", "'", '"', "$", "${", "$(", ")", "`", "#", "{", "}", '{"id":', "[[", ":", "&&",
    ";", "|", ">", "<", "(", "x=(", "+", "- ", "--", "host=", "port=9", "path=/p", "path=", "server", "nowait", "on",
    "reconnect=1", "reconnect-ms=", "9" * 30, "queue=tx", "position=id=", "vnet_hdr_support", "primary_in=",
    "secondary_in=", "notify_dev=c0", "iothread=i", "addr.type=unix", "addr.path=", "\u2028", "\x7f", "é", "😀", "\x1b",
    "filter-dump", "-object filter-dump,id=d0,netdev=hn0,file=/tmp/d", "file=", "maxlen=", "/none/", NETDEV, CHARDEV,
    MIRROR, LINE,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """One of the examples with pieces put in, taken out, and moved."""
    text = draw(st.sampled_from([LINE, *SAME, *((INPUTS / name).read_text() for name in sorted(FILES))]))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + draw(st.one_of(st.just(""), st.sampled_from(PIECES))) + text[end:]
    return text


@settings(max_examples=300)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200), st.lists(st.sampled_from(PIECES)).map("".join), damaged())
)
@example(LINE.replace("t0", "t\x7f\u2028😀"))
@example(LINE + " -object '" + '{"a":[' * 100_000 + "'")
@example(LINE + " -object '" + '{"a":' * 900 + "1" + "}" * 900 + "'")
@example(LINE.replace("ifname=t0", "ifname=" + "x" * 5000))
def test_whatever_is_given_there_is_a_config_or_one_clear_line(text: str | bytes) -> None:
    """No traceback, ever; status 0 and 1 come with a right config, status 2 with one line and nothing written."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    out, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", told)
        status = main(["-"])
    if status == 2:
        assert out.getvalue() == ""
        assert told.getvalue().startswith("from_qemu: ") and told.getvalue().count("\n") == 1
        assert len(told.getvalue()) < 2000
    else:
        assert status in (0, 1)
        assert plan(parse(out.getvalue())).stages
