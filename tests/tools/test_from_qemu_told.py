"""What a conversion says: what was lost, each mistake with its line and its mend, and what to do with the files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import parse
from tests.tools.from_qemu import converting
from tests.tools.from_qemu.converting import CHARDEV, INPUTS, LINE, MIRROR, NETDEV, PAPER, ROOT, with_parts
from tools.from_qemu import render
from tools.from_qemu.__main__ import main
from tools.from_qemu.model import Note

run = converting.run
REWRITER = "-object filter-rewriter,id=w0,netdev=hn0"
COMPARE = "-object colo-compare,id=comp0,primary_in=c1,secondary_in=c2,outdev=c3,notify_dev=c4"
PORTS = " ".join(f"-chardev socket,id=c{n},path=/c{n}" for n in range(1, 5))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            with_parts(more=f"{MIRROR} -object filter-buffer,id=b0,netdev=hn0,interval=1000"),
            "line 1, filter-buffer b0: it has no counterpart",
        ),
        (with_parts(chardev="-chardev pipe,id=c0,path=/x"), 'line 1, -chardev c0: it is of backend "pipe"'),
        (with_parts(chardev=f"{CHARDEV},tls-creds=t0"), "tls-creds=t0; the link goes unencrypted"),
        (with_parts(chardev=f"{CHARDEV},websocket=on"), "websocket=on"),
        (with_parts(netdev="-netdev tap,id=hn0,ifname=t0,script=no,colour=red"), "colour=red; no such thing here"),
        (with_parts(netdev="-netdev vhost-user,id=hn0,chardev=x"), 'it is of type "vhost-user"'),
        (with_parts(chardev=""), 'no -chardev has the id "c0"'),
        (with_parts(netdev=""), 'line 1, filter-mirror m0: no -netdev has the id "hn0"'),
        (with_parts(more=f"{MIRROR},speed=9"), "line 1, filter-mirror m0: speed=9; no such property here"),
        (with_parts(more=f"{MIRROR} -mon chardev=c0"), "something else in QEMU uses it, too"),
        (f"{LINE} -readconfig /etc/x.cfg", '"/etc/x.cfg" is not read'),
        (f"{with_parts()},position=id=b9", "that filter is not in the pipeline"),
    ],
)
def test_what_cannot_be_carried_over_is_named_and_is_status_1(run, text: str, told: str) -> None:
    done = run(text)
    assert done.status == 1
    assert told in done.told
    assert told.split(";", maxsplit=1)[0] in " ".join(done.toml.replace("\n#", " ").split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no QEMU command line"),
        ("Just prose, with an apostrophe: don't.\n", "no QEMU command line"),
        ("qemu-system-x86_64 -m 512", "no filter and no colo-compare in it"),
        (f"\n{LINE} -chardev", "line 2: -chardev without a value"),
        (f"{LINE} -chardev -S", '-chardev without a value before "-S"'),
        (f"{LINE} -chardev=socket,id=x", "write -chardev socket,id=x"),
        (f"{LINE} 'open", "line 1: a quote (') that is never closed"),
        (f'\n\n{LINE} "open', 'line 3: a quote (") that is never closed'),
        (f"{LINE} {CHARDEV}", 'line 1, -chardev: a second "c0"'),
        (LINE.replace("9003", "http"), 'port="http"; write port= and a whole number'),
        (
            LINE.replace("9003", "99999"),
            "line 1, -chardev c0: port: found 99999; expected a whole number from 1",
        ),
        (LINE.replace("server=on", "server=maybe"), 'server="maybe"; write server=on or server=off'),
        (LINE.replace("10.0.0.1", "$primary_ip"), "give it: --define primary_ip=VALUE"),
        (LINE.replace("10.0.0.1", "$(hostname -I)"), "write its value instead"),
        (LINE.replace("id=m0,", ""), "filter-mirror without an id; give it one: id=NAME"),
        (f'{LINE} -object \'{{"qom-type": "filter-mirror"\'', "line 1, -object: JSON that does not parse"),
        (
            LINE.replace("host=10.0.0.1,port=9003,", ""),
            "line 1, -chardev c0: no address; give host= and port=, or path=",
        ),
        (
            LINE.replace("queue=tx", "queue=up"),
            'line 1, filter-mirror m0: queue: found "up"; expected "tx", "rx"',
        ),
        (LINE.replace("wait=off", "wait=off,path=/x"), "c0: path and port; give one of them: it has one address"),
        (LINE.replace("wait=off", "reconnect=5"), "c0: reconnect of a server; leave reconnect out"),
        (LINE.replace("server=on,wait=off", "reconnect=5,reconnect-ms=4"), "c0: reconnect and reconnect-ms; give one"),
        (LINE.replace("socket,id=c0", "sockt,id=c0"), 'line 1, -chardev c0: "sockt": no such backend; socket, perhaps'),
        (
            LINE.replace("outdev=c0", "outdev=mirro0").replace("id=c0", "id=mirror0"),
            "line 1, filter-mirror m0: outdev=mirro0: there is none of that id; mirror0, perhaps",
        ),
        (
            LINE.replace("id=hn0,ifname", "id=guestnet,ifname").replace("m0,netdev=hn0", "m0,netdev=guestnt"),
            "line 1, filter-mirror m0: netdev=guestnt: there is none of that id; guestnet, perhaps",
        ),
        (with_parts(netdev="-netdev tpa,id=hn0"), 'line 1, -netdev hn0: "tpa": no such type of a netdev; tap, perhaps'),
        (with_parts(netdev="-netdev tap,id=hn0,ifnme=t0"), "line 1, -netdev hn0: ifnme: unknown; ifname, perhaps"),
        (
            with_parts(netdev="-netdev stream,id=hn0,sever=on,addr.type=unix,addr.path=/x"),
            "sever: unknown; server, perh",
        ),
        (
            with_parts(netdev="-netdev stream,id=hn0,server=on,addr.type=unix,addr.path=/x,reconnect=1"),
            "line 1, -netdev hn0: reconnect of a server; leave reconnect out",
        ),
        (
            "<qemu:arg value='-object'/>\n<qemu:arg value='filter-mirror,id=m0,netdev=hn0,outdev=c0'/>",
            "filter-mirror is named, but in no QEMU command line; write the command line as for a shell",
        ),
        (b"-netdev x\n\xff", "standard input: not a text: line 2 has the byte 0xff; give"),
        (b"-netdev x\n\0", "standard input: not a text: line 2 has the byte 0x00; give"),
    ],
)
def test_what_is_not_understood_is_one_line_with_place_and_mend(run, text: str | bytes, told: str) -> None:
    done = run(text)
    assert done.status == 2
    assert told in done.told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tap", "hn1=t1"], '--tap: no filter is on a netdev "hn1"; one of: hn0'),
        (["--tap", "hn0"], '--tap: "hn0"; write it as NETDEV=IFNAME'),
        (["--define", "HOST"], '--define: "HOST"; write it as NAME=VALUE'),
        (["--tap", "hn0=" + "t" * 16], '--tap: found "tttttttttttttttt"; expected a name of an interface'),
        (["--qemu-version", "new"], '--qemu-version: "new"; write it as 9.2'),
        (
            ["--name", "A b"],
            '--name: found "A b"; expected a name: 1 to 32 of a-z 0-9 -, not starting with -',
        ),
        (["--runtime", "/" + "x" * 100], "--runtime: found"),
    ],
)
def test_a_wrong_option_of_ours_is_named_too(run, options: list[str], told: str) -> None:
    done = run(LINE, *options)
    assert done.status == 2
    assert told in done.told


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("filter-miror", "filter-mirror, perhaps"),
        ("filter-redirecter", "filter-redirector, perhaps"),
        ("filter-dumb", "filter-dump, perhaps"),
        ("fliter-mirror", "filter-mirror, perhaps"),
        ("colo_compare", "colo-compare, perhaps"),
        ("filter-replai", "filter-replay, perhaps"),
    ],
)
def test_an_object_that_qemu_does_not_have_is_never_left_in_its_command_line(run, written: str, mend: str) -> None:
    done = run(f"\n{LINE} \\\n -object {written},id=x0,netdev=hn0")
    assert done.status == 2
    assert f"from_qemu: line 3, -object {written}: no such object; {mend}" in done.told


def test_a_misspelt_object_that_stands_alone_is_named_too(run) -> None:
    done = run("qemu \\\n -object id=m0,qom-type=filter-miror,netdev=hn0,outdev=c0")
    assert done.status == 2
    assert done.told == "from_qemu: line 2, -object filter-miror: no such object; filter-mirror, perhaps"


def test_other_objects_of_qemu_are_left_alone(run) -> None:
    kept = "-object rng-random,id=filter-x0 -object throttle-group,id=t0 -object filter-buffer,id=b0,netdev=hn0"
    done = run(f"{LINE} {kept}")
    assert done.status == 1
    assert " ".join(done.qemu.split()).endswith(kept.replace(" -", " \\ -"))


def test_a_compares_iothread_that_is_not_there_is_told_and_not_missed(run) -> None:
    text = f"{LINE} {PORTS} {COMPARE},iothread=io1"
    assert 'colo-compare comp0: no -object has the id "io1"' in run(text).told
    assert "io1" not in run(f"{text} -object iothread,id=io1").told


def test_a_secondary_keeps_what_qemu_lets_out_and_is_told(run) -> None:
    """Without a rewriter in the chain, nothing here takes the guest for a secondary's."""
    redirector = "-object filter-redirector,id=r0,netdev=hn0,queue=rx,outdev=c0"
    done = run(with_parts(more=f"{redirector} {REWRITER}"))
    assert parse(done.toml, "x").netdevs["hn0"].before_failover == "pass"
    assert 'line 1, filter-rewriter w0: before_failover = "pass", as QEMU does' in done.told
    assert "before_failover" not in run(with_parts(more=redirector)).toml


def test_a_compare_without_a_mirror_is_told(run) -> None:
    redirector = "-object filter-redirector,id=r0,netdev=hn0,queue=rx,outdev=c5"
    chardevs = f"{PORTS} -chardev socket,id=c5,path=/c5"
    told = "line 1, colo-compare comp0: no filter-mirror: the secondary's guest gets none of the packets"
    assert told in run(with_parts(chardev=chardevs, more=f"{redirector} {COMPARE}")).told
    done = run(with_parts(chardev=f"{chardevs} {CHARDEV}", more=f"{MIRROR} {redirector} {COMPARE}"))
    assert done.status == 0 and "no filter-mirror" not in done.told


def test_a_side_that_the_objects_contradict_is_refused(run) -> None:
    primary = f"\n\nqemu {NETDEV} {CHARDEV} {PORTS} \\\n {MIRROR} {COMPARE}"
    done = run(primary, "--side", "secondary")
    assert done.status == 2
    assert "from_qemu: line 3 is the primary's (colo-compare comp0), not the secondary's; give" in done.told
    told = "line 1 is the secondary's (filter-rewriter w0), not the primary's"
    assert told in run(with_parts(chardev="", more=REWRITER), "--side", "primary").told
    assert (
        "line 2 is the primary's (colo-compare"
        in run((INPUTS / "usage-now.txt").read_text(), "--line", "2", "--side", "secondary").told
    )
    for side in ("primary", "secondary"):
        redirector = "-object filter-redirector,id=r0,netdev=hn0,outdev=c0"
        for either in (redirector, f"{MIRROR} {REWRITER}"):  # it may be either's; it has taken over
            done = run(with_parts(more=either), "--side", side)
            assert done.status == 0 and f"the {side}'s side" in done.toml


def test_two_command_lines_of_the_side_that_was_said_ask_for_the_line_alone(run) -> None:
    done = run((INPUTS / "usage-now.txt").read_text(), "--side", "primary")
    assert done.told.endswith("line 2 (primary), line 26 (primary); say which: --line N")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "-object filter-redirector,id=redire1,netdev=hn0,queue=rx,outdef=c0",
            "line 2, filter-redirector redire1: outdef: unknown; outdev, perhaps",
        ),
        (f"{MIRROR},vnet_hdr_suport", "line 2, filter-mirror m0: vnet_hdr_suport: unknown; vnet_hdr_support, perhaps"),
        (f"{MIRROR},indev=c0", 'line 2, filter-mirror m0: indev: unknown; "indev" is a property of filter-redirector'),
        (f"{MIRROR} {COMPARE},compare_timout=9", "comp0: compare_timout: unknown; compare_timeout, perhaps"),
        (f"{MIRROR} {COMPARE},compare_timeout=0", "line 2, colo-compare comp0: compare_timeout: found 0; expected"),
        (f"{MIRROR},status=of", 'line 2, filter-mirror m0: status: found "of"; expected'),
        ("-object filter-mirror,id=m0,outdev=c0", "line 2, filter-mirror m0: netdev: found"),
        ("-object filter-mirror,id=m0,netdev=hn0", "line 2, filter-mirror m0: outdev: found"),
        (f"{MIRROR} -chardev socket,id=c9,path=/c9,sever=on -object filter-redirector,id=r,netdev=hn0,indev=c9",
         "line 2, -chardev c9: sever: unknown; server, perhaps"),
    ],
)  # fmt: skip
def test_a_wrong_property_is_named_with_its_line(run, more: str, told: str) -> None:
    done = run(f"qemu {CHARDEV} {PORTS} {NETDEV} \\\n {more}")
    assert done.status == 2
    assert told in done.told


def test_a_netdev_that_is_not_there_is_named_with_the_line_of_its_filter(run) -> None:
    done = run(f"qemu {NETDEV} {CHARDEV} \\\n {MIRROR.replace('hn0', 'hn1')}")
    assert done.status == 1
    assert 'line 2, filter-mirror m0: no -netdev has the id "hn1"' in done.told


# --- files --------------------------------------------------------------------------------------------------------


def test_files_are_written_and_never_overwritten_unasked(tmp_path: Path) -> None:
    source, config, qemu = tmp_path / "line", tmp_path / "config.toml", tmp_path / "qemu.sh"
    source.write_text(LINE)
    words = [str(source), "-o", str(config), "--qemu-out", str(qemu)]
    assert main(words) == 0
    assert parse(config.read_text()).filters["m0"].netdev == "hn0"
    first, _, command = qemu.read_text().partition("\n")
    assert first.endswith(f"start the pipeline first: python -m pipeline.supervisor {config}")
    assert command.startswith("qemu-system-x86_64 \\\n  -m 512 \\\n")
    config.write_text("mine")
    assert main(words) == 2
    assert config.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert config.read_text() != "mine"
    assert main([str(tmp_path / "none")]) == 2
    assert main([str(source), "-o", str(tmp_path / "no" / "folder")]) == 2


def test_the_screen_says_what_is_started_and_in_which_order(tmp_path: Path, capsys) -> None:
    source, config, qemu = tmp_path / "line", tmp_path / "config.toml", tmp_path / "new qemu.sh"
    source.write_text(LINE)
    words = [str(source), "-o", str(config), "--qemu-out", str(qemu), "--force"]
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[-3:] == [
        f"Look at it: python -m pipeline.graph {config}",
        f"Start it:   python -m pipeline.supervisor {config}",
        f"Then QEMU:  sh '{qemu}'",
    ]
    assert subprocess.run(["sh", "-n", str(qemu)], check=False).returncode == 0
    source.write_text(with_parts())
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"Then QEMU:  your QEMU with the options of '{qemu}' (the text names no program)"
    )
    first, second, *_ = qemu.read_text().splitlines()
    assert first.startswith("# Options only, ") and "start the pipeline first: python -m" in first
    assert second.startswith("-netdev stream,")
    assert main([*words[:1], "--force"]) == 0
    assert "\n# Options only, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file or directory; give a file that exists"),
        (b"QFI\xfb\0\0", "not a text: line 1 has the byte 0xfb; give"),
        (b"\n" + b"\0" * 400_000, "not a text: line 2 has the byte 0x00; give"),
        ("é".encode() * 200_000, "more than 262,144 bytes; give the command line alone"),
        (b"a" + "é".encode() * 200_000, "more than 262,144 bytes; give the command line alone"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, capsys, content: bytes | None, told: str) -> None:
    file = tmp_path / "nofile"
    if content is not None:
        file.write_bytes(content)
    assert main([str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"from_qemu: {file}: {told}")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("Is a directory; give a file that can be read\n")


def test_where_one_file_cannot_be_written_the_other_is_not(run, tmp_path: Path) -> None:
    """Status 2 means that nothing was written."""
    for wrong, found in ((tmp_path / "none" / "qemu.sh", "no folder"), (tmp_path, "a folder")):
        done = run(LINE, "-o", str(tmp_path / "config.toml"), "--qemu-out", str(wrong), "--force")
        assert done.status == 2
        assert done.told.startswith(f"from_qemu: {wrong}: {found}")
        assert list(tmp_path.iterdir()) == []


def test_a_narrow_terminal_gets_lines_of_its_width() -> None:
    """No word is cut; a pipe gets lines of the usual width."""
    notes = [Note("lost", "line 1, -netdev hn0", "it is of type x, which the pipeline cannot join; put another there")]
    lines = render.told(notes, 40).splitlines()
    assert len(lines) > 3 and all(len(line) <= 40 for line in lines)
    assert " ".join(" ".join(lines[1:]).split()) == f"- {notes[0]}"
    assert len(render.told(notes).splitlines()) == 2


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """On standard output, too: status 2, no traceback."""
    (tmp_path / "line").write_text(LINE)
    command = [sys.executable, "-m", "tools.from_qemu", str(tmp_path / "line")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "from_qemu: standard output: No space left on device; give a file to write to\n"


def test_the_program_runs_as_one_types_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.from_qemu", str(INPUTS / PAPER), "--side", "secondary"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "filter-redirector" in done.stdout
    done = subprocess.run([*command[:3], "--side", "third"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2


def test_the_example_of_the_page_is_what_comes_out(tmp_path: Path, monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "from_qemu.md").read_text()
    line, config = (re.search(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1] for kind in ("sh", "toml"))
    (tmp_path / "secondary.sh").write_text(line)
    monkeypatch.chdir(tmp_path)
    assert main(["secondary.sh"]) == 0
    assert capsys.readouterr().out == config
