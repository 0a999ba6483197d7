"""The lab's pure parts: rendering its config, its content, its books, its command line.  No root, no process."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load
from tools.lab import __main__ as lab
from tools.lab import browser, host, impair, outgoing, render, report, scene, stack, state, web, wire

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "lab.toml"


@pytest.fixture
def example() -> dict:
    """examples/lab.toml as it stands."""
    return tomllib.loads(EXAMPLE.read_text())


# --- the config -------------------------------------------------------------------------------------------------


def test_the_example_is_itself_a_right_config() -> None:
    """Whoever runs it without the lab gets namespaces called colo-lab-…, and no list of mistakes."""
    assert load(EXAMPLE).pipeline.name == render.PLACEHOLDER


def test_every_name_becomes_the_labs_own(example: dict) -> None:
    """Two labs share no name: nothing of the placeholder is left."""
    text = render.to_toml(render.render(example, "colo-77", Path("/somewhere/run")))
    assert render.PLACEHOLDER not in text
    made = tomllib.loads(text)
    assert made["pipeline"]["name"] == "colo-77"
    assert made["pipeline"]["runtime_dir"] == "/somewhere/run"
    assert made["netdev"]["hn0"]["network"]["netns"] == "colo-77-client"
    assert made["netdev"]["hn0"]["guest"]["netns"] == "colo-77-primary"
    assert made["netdev"]["hn1"]["guest"]["netns"] == "colo-77-secondary"


def test_all_else_stays_as_it_was_and_in_order(example: dict) -> None:
    """The order of filters is the chain's order, so rendering may not change it."""
    made = render.render(example, "colo-77", Path("/r"))
    assert list(made["filter"]) == list(example["filter"])
    assert made["filter"] == example["filter"]
    assert made["compare"] == example["compare"]


def test_rendering_leaves_the_source_alone(example: dict) -> None:
    """The same config can be rendered again."""
    before = json.dumps(example)
    render.render(example, "colo-77", Path("/r"), Path("/rec"))
    assert json.dumps(example) == before


def test_record_goes_to_the_three_taps(example: dict, tmp_path: Path) -> None:
    """A capture for each host, and none for the null side."""
    made = render.render(example, "colo-77", Path("/r"), tmp_path)
    assert made["netdev"]["hn0"]["network"]["record"] == str(tmp_path / "client.pcapng")
    assert made["netdev"]["hn0"]["guest"]["record"] == str(tmp_path / "primary.pcapng")
    assert made["netdev"]["hn1"]["guest"]["record"] == str(tmp_path / "secondary.pcapng")
    assert "record" not in made["netdev"]["hn1"]["network"]


def test_a_role_with_a_wire_gets_the_pipelines_own_tap(example: dict, tmp_path: Path) -> None:
    """The wire holds the host's TAP; nothing else changes."""
    made = render.render(example, "colo-77", Path("/r"), wired=(scene.CLIENT,))
    assert made["netdev"]["hn0"]["network"]["ifname"] == scene.WIRE_TAP
    assert made["netdev"]["hn0"]["guest"]["ifname"] == scene.TAP
    assert made["netdev"]["hn1"]["guest"]["ifname"] == scene.TAP


@pytest.mark.parametrize("recorded", [False, True])
def test_the_rendered_config_is_accepted(example: dict, tmp_path: Path, recorded: bool) -> None:
    """The pipeline's own check has nothing to say against it, captures included."""
    file = tmp_path / "config.toml"
    file.write_text(render.to_toml(render.render(example, "colo-77", tmp_path, tmp_path if recorded else None)))
    assert load(file).pipeline.name == "colo-77"


@pytest.mark.parametrize("role", scene.ROLES)
def test_a_config_without_one_of_the_taps_is_refused_by_name(example: dict, role: str) -> None:
    """The error says which namespace no tap is in."""
    text = EXAMPLE.read_text().replace(f"colo-lab-{role}", "elsewhere")
    with pytest.raises(host.LabError, match=f"colo-lab-{role}"):
        render.render(tomllib.loads(text), "colo-77", Path("/r"))


def test_a_wrong_config_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Exit status 2 and the pipeline's own list of mistakes, before the first namespace."""
    monkeypatch.setattr(host, "require_root", lambda: None)
    monkeypatch.setattr(host, "require_programs", lambda: None)
    file = tmp_path / "lab.toml"
    file.write_text(EXAMPLE.read_text().replace('queue = "tx"', 'queue = "sideways"'))
    assert lab.main(["--config", str(file)]) == 2
    assert "sideways" in capsys.readouterr().err


def test_only_whole_names_are_replaced(example: dict) -> None:
    """A name that merely begins like the placeholder is somebody else's."""
    example["pipeline"]["note"] = "colo-laboratory"
    assert render.render(example, "colo-1", Path("/r"))["pipeline"]["note"] == "colo-laboratory"


def test_the_compare_must_be_one(example: dict) -> None:
    """The lab reads one compare's counters."""
    assert render.compare_id(example) == "comp0"
    with pytest.raises(host.LabError, match="comp0, comp1"):
        render.compare_id({"compare": {"comp0": {}, "comp1": {}}})


_scalars = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.text(), st.floats(allow_nan=False))
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), _values, max_size=4), max_size=4))
def test_written_toml_reads_back_as_the_same(config: dict) -> None:
    """Whatever keys and strings a config has, text and value say the same."""
    assert tomllib.loads(render.to_toml(config)) == config


# --- the wires ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("2", 0.02), ("0%", 0.0), ("50%", 0.5)])
def test_shares_are_read_as_people_write_them(text: str, share: float) -> None:
    """A percentage, with or without its sign."""
    assert lab.percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "-1%", "51%", "one", "1%%", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    """With the word that was given."""
    with pytest.raises(argparse.ArgumentTypeError, match="percentage"):
        lab.percent(text)


def test_times_are_read_as_people_write_them() -> None:
    """Milliseconds."""
    assert lab.milliseconds("2ms") == lab.milliseconds("2") == pytest.approx(0.002)
    for text in ("2s", "-1", "1001ms", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="1000 ms"):
            lab.milliseconds(text)


def test_without_an_impairment_there_is_no_wire() -> None:
    """The TAPs are the hosts' own then."""
    assert lab.arguments([]).impairment.roles == ()


def test_reordering_brings_its_delay() -> None:
    """A frame can only overtake those that wait, so 2 ms where nothing is said, and never none."""
    assert lab.arguments(["--reorder", "1%"]).impairment == impair.Impairment(reorder=0.01, delay=0.002)
    assert lab.arguments(["--loss", "1%"]).impairment == impair.Impairment(loss=0.01)
    with pytest.raises(SystemExit):
        lab.arguments(["--reorder", "1%", "--delay", "0"])


def test_loss_on_the_network_is_the_clients_wire_both_ways() -> None:
    """And what a replica sends alone is lost only where that is asked for; nothing ever on the way to one replica."""
    network = impair.Impairment(0.01, 0.02, 0.003)
    assert network.roles == (scene.CLIENT,)
    ways = network.ways(scene.CLIENT)
    assert [(way["loss"], way["reorder"], way["delay"]) for way in ways.values()] == [(0.01, 0.02, 0.003)] * 2
    alone = impair.Impairment(replica_loss=0.05)
    assert alone.roles == scene.REPLICAS
    for role in scene.REPLICAS:
        ways = alone.ways(role)
        assert (ways["egress"]["loss"], ways["ingress"]["loss"]) == (0.05, 0.0)
    every = [way["seed"] for role in scene.ROLES for way in impair.Impairment(0.1, 0.1, 0.1, 0.1).ways(role).values()]
    assert len(set(every)) == 6


def test_the_pipelines_tap_of_a_wire_answers_nothing_itself() -> None:
    """No ARP, no address: what arrives there is the wire's."""
    commands = impair.device_commands("colo-1-client")
    assert all(command[:3] == ["ip", "-n", "colo-1-client"] for command in commands)
    words = [" ".join(command[3:]) for command in commands]
    assert words == [
        "tuntap add dev colo1 mode tap",
        f"link set colo1 txqueuelen {scene.TAP_QUEUE} arp off",
        "link set colo1 up",
    ]


def _pass(fate: wire.Fate, count: int) -> list[int]:
    """Frames a millisecond apart; their numbers in the order in which they come out."""
    out = []
    for number in range(count + 100):
        now = number / 1000
        if number < count and (early := fate.take(number.to_bytes(4, "big"), now)) is not None:
            out.append(early)
        out += fate.due(now)
    assert fate.rest(0) is None
    return [int.from_bytes(frame, "big") for frame in out]


def test_a_wire_without_impairment_passes_everything_at_once_in_order() -> None:
    """Nothing lost, nothing kept."""
    assert _pass(wire.Fate(0, 0, 0, seed=1), 500) == list(range(500))


def test_a_wire_that_delays_keeps_the_order() -> None:
    """Each frame comes out once its time is over, and not before."""
    fate = wire.Fate(0, 0, 0.01, seed=1)
    assert fate.take(b"one", 5.0) is None
    assert fate.due(5.009) == []
    assert fate.rest(5.004) == pytest.approx(0.006)
    assert fate.due(5.0101) == [b"one"]
    assert _pass(wire.Fate(0, 0, 0.01, seed=1), 500) == list(range(500))


def test_a_wire_loses_and_reorders_as_often_as_asked_and_the_same_each_time() -> None:
    """The seed decides: two runs are equal, another seed is another run."""
    fates = [wire.Fate(0.05, 0.1, 0.01, seed) for seed in (3, 3, 4)]
    first, second, other = (_pass(fate, 4000) for fate in fates)
    assert first == second != other
    counts = fates[0].counts()
    assert counts["frames"] == 4000
    assert len(first) == len(set(first)) == 4000 - counts["lost"]
    assert 120 < counts["lost"] < 280
    assert 280 < counts["early"] < 520
    overtaken = sum(a > b for a, b in itertools.pairwise(first))
    assert 0 < overtaken <= counts["early"]


# --- what the hosts' TCP says --------------------------------------------------------------------------------------


def test_the_kernels_counters_are_read_by_name() -> None:
    """A line of names, a line of values; other protocols are left out."""
    text = "Ip: Forwarding\nIp: 1\nTcp: InSegs RetransSegs\nTcp: 9 2\nTcpExt: TCPSACKDiscard PAWSEstab\nTcpExt: 4 1\n"
    counters = stack.parse(text)
    assert counters == {"InSegs": 9, "RetransSegs": 2, "TCPSACKDiscard": 4, "PAWSEstab": 1}
    assert stack.some(counters, stack.SELDOM) == "4 TCPSACKDiscard, 1 PAWSEstab"
    assert stack.some(counters, stack.NEVER) == ""
    assert stack.discarded(counters) == 5
    assert stack.discarded({**counters, stack.DUBIOUS: 4}) == 1
    assert stack.discarded({**counters, stack.DUBIOUS: 9}) == 1, "hides no old timestamp"
    mine = stack.parse(Path("/proc/net/snmp").read_text() + Path("/proc/net/netstat").read_text())
    assert {stack.RECEIVED, stack.RETRANSMITTED, stack.BY_SACK, stack.DUPLICATES} <= set(mine)


def test_the_visits_of_the_guest_are_known_beforehand() -> None:
    """Each side sends other bytes in each visit, the same in every run."""
    expected = outgoing.Outgoing(None, 1000, 3).expected  # type: ignore[arg-type]
    assert list(expected["guest"]) == [50_001, 50_002, 50_003]
    assert len({*expected["guest"].values(), *expected["server"].values()}) == 6
    assert expected["server"][50_002] == outgoing.digest(outgoing.content("server", 1, 1000))


# --- the content ------------------------------------------------------------------------------------------------


def test_the_host_pages_differ_but_not_in_length() -> None:
    """A released difference must not shift what follows it on the connection."""
    assert web.HOST_PAGE["primary"] != web.HOST_PAGE["secondary"]
    assert len(web.HOST_PAGE["primary"]) == len(web.HOST_PAGE["secondary"])


def test_pages_are_the_same_in_every_run_and_differ_from_one_another() -> None:
    """Both replicas' files are made separately from this."""
    bodies = [web.page_body(i) for i in range(web.PAGE_COUNT)]
    assert bodies == [web.page_body(i) for i in range(web.PAGE_COUNT)]
    assert len(set(bodies)) == web.PAGE_COUNT
    assert [len(body) for body in bodies] == [100 + 150 * i for i in range(web.PAGE_COUNT)]
    assert web.bulk_bytes(1000, 1) == web.bulk_bytes(1000, 1) != web.bulk_bytes(1000, 2)


def test_the_replicas_nginx_differ_only_in_their_folder_and_the_host_page() -> None:
    """Everything else is equal, or the compare would see it."""
    one = web.config("primary", Path("/x/primary")).replace("/x/primary", "/x")
    two = web.config("secondary", Path("/x/secondary")).replace("/x/secondary", "/x")
    assert one.replace(web.HOST_PAGE["primary"], web.HOST_PAGE["secondary"]) == two


# --- transfers, report, state -------------------------------------------------------------------------------------


def _visit(codes: list[int], trouble: str = "") -> browser.Visit:
    return browser.Visit([], codes, 1, 0, 0, [], 1.0, trouble)


def test_a_visit_fails_on_trouble_and_on_a_wrong_status() -> None:
    """And only then."""
    assert not _visit([200, 201]).failed([200, 201])
    assert _visit([200, 502]).failed([200, 201]) == "status 1: 502"
    assert _visit([], "curl ended with 7").failed([200]) == "curl ended with 7"


def test_a_report_without_checks_is_no_success() -> None:
    """A run that saw nothing shows nothing."""
    with open(os.devnull, "w") as nowhere:
        made = report.Report(nowhere)
        assert not made.ok
        made.check("a", True)
        assert made.ok
        made.check("b", False, "why")
        assert not made.ok
    assert made.as_data()["checks"][1] == {"name": "b", "ok": False, "detail": "why"}


def test_a_state_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before a kill is what --remove finds."""
    monkeypatch.setattr(state, "FOLDER", tmp_path)
    book = state.new("colo-test")
    book.namespaces.append("colo-test-client")
    book.processes.append((1, 2))
    book.save()
    assert list(state.load_all()) == [book]
    assert book.running


def test_a_pid_that_is_another_process_now_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number given out again neither keeps a dead lab alive nor is ended in its stead."""
    book = state.State("colo-test", os.getpid(), started=1)
    assert not book.running
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(host.os, "kill", lambda pid, number: sent.append((pid, number)))
    host.end_process(os.getpid(), 1, 0.1)
    assert not sent


# --- signals ----------------------------------------------------------------------------------------------------


@pytest.fixture
def signals():
    """The lab's handlers, and the old ones afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = [signal.getsignal(number) for number in numbers]
    yield host.Signals()
    for number, handler in zip(numbers, old, strict=True):
        signal.signal(number, handler)


def test_a_signal_stops_what_may_be_stopped(signals: host.Signals) -> None:
    """At once, and with its number."""
    with pytest.raises(host.Stopped) as stop, signals.heard():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.number == signal.SIGTERM


def test_a_signal_waits_until_what_is_made_is_written_down(signals: host.Signals) -> None:
    """Making and noting a thing are one step."""
    done = []

    def make() -> None:
        with signals.hold():
            signal.raise_signal(signal.SIGINT)
            done.append("made and noted")
        done.append("never")

    with pytest.raises(host.Stopped), signals.heard():
        make()
    assert done == ["made and noted"]


def test_no_signal_interrupts_the_clearing_up(signals: host.Signals) -> None:
    """Neither a second one nor one that comes after the last step."""

    def stopped_twice() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(host.Stopped), signals.heard():
        stopped_twice()
    signal.raise_signal(signal.SIGTERM)


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("500000", 500_000), ("500KB", 500_000), ("50MB", 50_000_000), ("5 mb", 5_000_000), ("1MiB", 1 << 20)],
)
def test_sizes_are_read_as_people_write_them(text: str, number: int) -> None:
    """Decimal units and binary ones."""
    assert lab.size(text) == number


@pytest.mark.parametrize("text", ["", "0", "-5", "5GBB", "five", "K"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """With the word that was given."""
    with pytest.raises(argparse.ArgumentTypeError, match=repr(text)):
        lab.size(text)


def test_without_root_one_line_says_the_mend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Exit status 2, and the command that works."""
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    assert lab.main([]) == 2
    said = capsys.readouterr().err
    assert "sudo python -m tools.lab" in said
    assert said.count("\n") == 1


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Debian package, ready to install."""
    monkeypatch.setattr(host, "shutil", SimpleNamespace(which=lambda name: None if name != "ip" else "/sbin/ip"))
    with pytest.raises(host.LabError, match="apt-get install nginx-light curl"):
        host.require_programs()
