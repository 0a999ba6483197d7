"""Reading config.toml: what is taken, and every mistake with its key's path."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import check, config, tables
from pipeline.config import ConfigError, parse
from stages.device.kind import Tap
from stages.null.kind import Null
from stages.schema import Mistake
from stages.socket.kind import Socket
from tests.pipeline.wrong import COMPARE, HEAD, LINKED, MIRROR, NET, WRONG

ROOT = Path(__file__).resolve().parents[2]


def mistakes(text: str, path: str | Path = "/nowhere/config.toml") -> list[Mistake]:
    with pytest.raises(ConfigError) as caught:
        parse(text, path=path)
    return list(caught.value.mistakes)


def read(text: str) -> ConfigError | None:
    """What is wrong with a text, if anything is."""
    try:
        parse(text)
    except ConfigError as error:
        return error
    return None


@pytest.mark.parametrize("text", [NET, MIRROR, COMPARE, LINKED])
def test_the_bases_of_these_tests_are_right(text):
    """A config without a mistake is read."""
    assert parse(text).pipeline.name == "t"


def test_the_example_of_the_design_paper_is_taken():
    """Every table and key that other programs write is read, with its value."""
    got = parse(
        HEAD
        + """
        ring_size = "4MiB"
        placement = "dedicated"
        [supervisor]
        strategy = "one_for_one"
        intensity = 5
        period_ms = 10000
        backoff_initial_ms = 50
        backoff_max_ms = 5000
        heartbeat_timeout_ms = 2000
        shutdown_ms = 5000
        [log]
        format = "json"
        level = "debug"
        [chardev.mirror0]
        backend = "socket"
        host = "3.3.3.3"
        port = 9003
        server = true
        wait = false
        reconnect = 1
        [chardev.compare0]
        backend = "ring"
        [chardev.compare1]
        backend = "socket"
        path = "run/c1.sock"
        [chardev.compare_out]
        backend = "ring"
        [chardev.notify0]
        backend = "socket"
        path = "/run/notify.sock"
        [netdev.hn0]
        network = { backend = "tap", ifname = "colo0" }
        guest = { backend = "stream", path = "/run/vm/hn0.sock", server = true }
        [filter.m0]
        type = "filter-mirror"
        netdev = "hn0"
        queue = "tx"
        outdev = "mirror0"
        [filter.back]
        type = "filter-redirector"
        netdev = "hn0"
        queue = "rx"
        indev = "compare_out"
        [filter.out]
        type = "filter-redirector"
        netdev = "hn0"
        queue = "rx"
        outdev = "compare0"
        status = "off"
        position = "id=back"
        insert = "behind"
        [compare.comp0]
        primary_in = "compare0"
        secondary_in = "compare1"
        outdev = "compare_out"
        notify_dev = "notify0"
        compare_timeout = 3000
        expired_scan_cycle = 1000
        max_queue_size = 1024
        vnet_hdr_support = false
        ack_policy = "relaxed"
        checkpoint = "local"
        max_connections = 100
        reorder_grace_ms = 0
        [stage.comp0]
        cpus = [1]
        idle = "backoff"
        process = "fast-path"
        """,
        path="/etc/colo/primary.toml",
    )
    assert got.pipeline.ring_size == 4 << 20
    assert got.log == tables.Log(format="json", level="debug")
    assert list(got.chardevs) == ["mirror0", "compare0", "compare1", "compare_out", "notify0"]
    assert got.chardevs["compare1"] == Socket(path="/etc/colo/run/c1.sock")
    assert got.netdevs["hn0"].network == Tap(ifname="colo0")
    assert list(got.filters) == ["m0", "back", "out"]
    assert got.filters["out"].status == "off"
    assert got.objects["compare"]["comp0"].ack_policy == "relaxed"
    assert got.stages["comp0"] == tables.Placement(cpus=(1,), idle="backoff", process="fast-path")
    assert got.control_socket == "/run/colo/t.sock"


def test_defaults_are_those_of_qemu_and_of_the_paper():
    """What is left out has the default that docs/config.md gives."""
    got = parse(COMPARE)
    assert got.pipeline.ring_size == 4 << 20
    assert got.supervisor == tables.Supervisor()
    compare = got.objects["compare"]["comp0"]
    assert (compare.compare_timeout, compare.expired_scan_cycle, compare.max_queue_size) == (3000, 1000, 1024)
    assert (compare.ack_policy, compare.checkpoint, compare.notify_dev) == ("strict", "frame", None)
    assert parse(MIRROR).filters["m0"].queue == "all"
    assert parse(NET).netdevs["hn0"] == tables.Netdev(network=Null(), guest=Null())


@pytest.mark.parametrize(("text", "path", "found", "expected"), WRONG, ids=[f"{i}-{w[1]}" for i, w in enumerate(WRONG)])
def test_a_mistake_names_its_key_what_was_found_and_what_is_right(text, path, found, expected):
    """Each mistake is reported at its key."""
    listed = {mistake.path: mistake for mistake in mistakes(text)}
    assert path in listed, listed
    assert found in listed[path].found
    assert expected in listed[path].expected


@pytest.mark.parametrize(
    "text",
    [text for text, path, *_ in WRONG if path not in ("netdev.hn0.network.backend", "compare.comp0.secondary_in")],
)
def test_one_mistake_draws_no_others_after_it(text):
    """A single mistake is reported as one, without what would follow from it."""
    assert len(mistakes(text)) == 1


def test_all_mistakes_are_reported_at_once():
    """Three mistakes in three tables come in one exception, in words that name the file."""
    text = MIRROR.replace("port = 1", "port = 0") + 'queue = "up"\n[supervisor]\nshutdown = 3\n[stage.m1]\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, path="x.toml")
    assert [mistake.path for mistake in caught.value.mistakes] == [
        "supervisor.shutdown",
        "chardev.c0.port",
        "filter.m0.queue",
        "stage.m1",
    ]
    assert str(caught.value).startswith("x.toml: 4 mistakes\n  supervisor.shutdown: found an unknown key; expected")


def test_a_table_of_an_unknown_backend_is_read_all_the_same():
    """Which backend was meant is not known, but a key or a value that none of them takes is wrong in any case."""
    text = NET + 'network = { backend = "tpa", ifnam = "a", persist = 1, record = "both", host = "a..b", x = { } }\n'
    text += (
        '[chardev.c0]\nbackend = "sockt"\nhots = "a"\nprot = 1\nserver = true\n[filter.m0]\ntpye = "x"\nquue = "tx"\n'
    )
    listed = {mistake.path: mistake.expected for mistake in mistakes(text)}
    hints = {
        "chardev.c0.backend": '"socket"',
        "chardev.c0.hots": '"host"',
        "chardev.c0.prot": '"port"',
        "netdev.hn0.network.backend": '"tap"',
        "netdev.hn0.network.ifnam": '"ifname"',
        "netdev.hn0.network.persist": "true or false",
        "netdev.hn0.network.host": "a host's name",
        "netdev.hn0.network.x": "one of: ",
        "filter.m0.type": '"filter-mirror"',
        "filter.m0.quue": '"queue"',
    }
    assert list(listed) == list(hints)
    for path, hint in hints.items():
        assert hint in listed[path]


@pytest.mark.parametrize("host", ["a", "a.", "10.0.0.2", "::1", "fe80::1%eth0", "bücher.example", "vm_1", "a." * 126])
def test_a_host_is_a_name_or_an_address(host):
    """What getaddrinfo can be asked for is taken as it stands."""
    assert parse(MIRROR.replace("::1", host)).chardevs["c0"].host == host


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[pipeline]\nname = primary\n", "line 2, column 8"),
        ('[filter.m0]\na = 1\n[filter.m0]\nb = 1\n', "line 3, column 11"),
        ("[pipeline]\nname = [1,\n", "line 2, column 11"),
        ("[pipeline]\na = 1\na = 2\n", "line 3, column 6"),
        ("[pipeline", "line 1, column 10"),
    ],
)  # fmt: skip
def test_bad_toml_is_reported_with_line_and_column(text, where):
    """A syntax error says where it is."""
    (mistake,) = mistakes(text)
    assert mistake.path == where


def test_files_that_cannot_be_read_are_mistakes(tmp_path):
    """A config that is missing, a folder, or not UTF-8 is reported like any other mistake."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[pipeline]\nname = "\xe9"\n')
    for path, found in ((tmp_path / "no", "No such file"), (tmp_path, "directory"), (latin, "0xe9 at offset 19")):
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert found in caught.value.mistakes[0].found


def test_a_byte_order_mark_before_a_config_is_no_part_of_it(tmp_path):
    """As editors on Windows save it; places of mistakes stay where they are."""
    file = tmp_path / "config.toml"
    good = '[pipeline]\r\nname = "it"\r\n[netdev.n]\r\n'
    file.write_bytes(b"\xef\xbb\xbf" + good.encode())
    assert config.load(file).pipeline.name == "it"
    assert config.parse("\ufeff" + good).pipeline.name == "it"
    file.write_bytes(b"\xef\xbb\xbf[pipeline\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert caught.value.mistakes[0].path == "line 1, column 10"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_config_in_another_unicode_is_named_with_the_mend(tmp_path, encoding):
    """With a mark or without: UTF-16 is what Windows calls Unicode.  UTF-8 with a mark within is not taken for it."""
    file = tmp_path / "config.toml"
    mark = "\ufeff" if encoding == "utf-32-be" else ""
    file.write_bytes(f'{mark}[pipeline]\nname = "ü"\n'.encode(encoding))
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    (mistake,) = caught.value.mistakes
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert mistake.found == f"text in {name.removesuffix('BE') if mark else name}"
    assert "iconv -f UTF-" in mistake.expected


def test_relative_paths_start_from_the_config_file(tmp_path):
    """A capture beside the config is found from any working directory."""
    (tmp_path / "in.pcap").write_bytes(b"x")
    file = tmp_path / "config.toml"
    file.write_text(NET + 'network = { backend = "pcap", read = "in.pcap", write = "out.pcap" }\n')
    side = config.load(file).netdevs["hn0"].network
    assert (side.read, side.write) == (f"{tmp_path}/in.pcap", f"{tmp_path}/out.pcap")


def test_a_capture_that_is_read_is_never_overwritten(tmp_path):
    """Reading and writing one file is a mistake at the reader."""
    (tmp_path / "a.pcap").write_bytes(b"x")
    text = NET + 'network = { backend = "pcap", read = "a.pcap" }\nguest = { backend = "pcap", write = "./a.pcap" }\n'
    (mistake,) = mistakes(text, tmp_path / "config.toml")
    assert mistake.path == "netdev.hn0.network.read"


@pytest.mark.parametrize("session", ["", "relative", "/no/such/folder"])
def test_runtime_dir_passes_over_a_session_folder_that_is_none(session, monkeypatch):
    """$XDG_RUNTIME_DIR counts only if it is absolute and writable."""
    writable = {"/run/colo": False, "/run": False}
    monkeypatch.setattr(os, "access", lambda path, mode: writable.get(path, False))
    assert config.default_runtime_dir({"XDG_RUNTIME_DIR": session}) == f"/tmp/colo-{os.getuid()}"
    writable["/run"] = writable["/run/colo"] = True
    assert config.default_runtime_dir({"XDG_RUNTIME_DIR": session}) == "/run/colo"


def test_runtime_dir_is_in_the_session_folder_first(tmp_path):
    """$XDG_RUNTIME_DIR/colo comes before all others."""
    assert config.default_runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}) == f"{tmp_path}/colo"


def test_a_runtime_dir_of_somebody_else_is_a_mistake(monkeypatch):
    """A folder in /tmp that another user made first is not used."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os.path, "lexists", lambda path: True)
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result((0o40755, 0, 0, 1, os.getuid() + 1, 0, 0, 0, 0, 0)))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (mistake,) = mistakes(NET.replace('runtime_dir = "/run/colo"\n', ""))
    assert mistake.path == "pipeline.runtime_dir"


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_crash(text):
    """Whatever stands in the file, the answer is a config or a list of mistakes."""
    outcome = read(HEAD + text)
    assert outcome is None or outcome.mistakes


VALUES = st.recursive(
    st.sampled_from(["true", "0", "-1", "1.5", '""', '"tx"', '"c0"', '"hn0"', "1979-05-27", "nan", '"id=m0"', "[]"]),
    lambda inner: st.builds(lambda k, v: f"{{ {k} = {v} }}", st.sampled_from(["backend", "type", "x"]), inner),
    max_leaves=3,
)
KEYS = sorted(
    {f.name for cls in vars(tables).values() if dataclasses.is_dataclass(cls) for f in dataclasses.fields(cls)}
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["pipeline", "supervisor", "log", "chardev.c0", "netdev.hn0", "filter.m0", "compare.x", "stage.m0"]
        ),
        st.dictionaries(st.sampled_from([*KEYS, "backend", "type", "zzz"]), VALUES, max_size=6),
    )
)
def test_no_value_makes_the_reader_crash(content):
    """Any value at any key is taken or reported."""
    text = "".join(f"[{t}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for t, keys in content.items())
    outcome = read(text)
    assert outcome is None or all(all(mistake) for mistake in outcome.mistakes)


def test_the_supervisor_reads_configs_without_numba_and_numpy():
    """Config and graph are imported without compiled code behind them."""
    code = "import sys, pipeline.config, pipeline.graph, pipeline.draw; print({'numba', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_process_of_a_stage():
    """A stage has a process of its own, or the common one, or the one that its table names."""
    own = parse(COMPARE + '[stage.p]\nprocess = "io"\n')
    assert [check.process_of(own, name) for name in ("p", "s")] == ["io", "s"]
    shared = parse(COMPARE.replace("runtime_dir", 'placement = "shared"\nruntime_dir') + '[stage.p]\nprocess = "io"\n')
    assert [check.process_of(shared, name) for name in ("p", "s")] == ["io", "pipeline"]
