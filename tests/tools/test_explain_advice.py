"""tools.advice: what is suggested about a difference, and that a suggested rule can be used as it stands."""

from __future__ import annotations

import dataclasses
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline import control
from stages.compare.config import Rule
from stages.compare.rules.automaton import compile_mask
from stages.compare.rules.rule_set import from_table
from tests.stages.compare import evidence_words as words
from tests.stages.compare.evidence_words import write
from tools import explain
from tools.advice import Advice, advise
from tools.divergence import load

ANSWERS = {
    "cookie": (b"A: b\r\nSet-Cookie: sid=ab12cd; Path=/\r\n", b"A: b\r\nSet-Cookie: sid=ff12cd; Path=/\r\n",
               "a cookie", "\\nSet-Cookie: ([^\\r\\n]*)"),
    "header": (b"X-Trace-Id: 77\r\n", b"X-Trace-Id: 78\r\n", "X-Trace-Id", "X-Trace-Id: ([^\\r\\n]*)"),
    "iso date": (b'{"at": "2026-11-23T07:34:31"}', b'{"at": "2026-11-23T07:34:32"}', "a date",
                 '\\{"at": "([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2})'),
    "uuid": (b"[id]=0d3e5b7a-1111-4222-8333-123456789abc.", b"[id]=9d3e5b7a-1111-4222-8333-123456789abc.", "a UUID",
             "\\[id\\]=([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"),
    "time stamp": (b'{"ts":1795000000123}', b'{"ts":1795000000124}', "a long number", '\\{"ts":([0-9]{13})'),
    "token": (b"\n<i value=00aa11bb22cc33dd>", b"\n<i value=00aa11bb22cc33de>", "hexadecimal",
              "\\n<i value=([0-9a-fA-F]{16})"),
    "no fixed text": (b"00aa11bb22cc33dd>", b"00aa11bb22cc33de>", "fixed text", None),
    "length": (b"Content-Length: 512\r\n", b"Content-Length: 513\r\n", "would not help", None),
    "prose": (b"<p>I am replica one</p>", b"<p>I am replica two</p>", "said something different",
              "<p>I am replica (one|two)"),
    "header only on one side": (b"Date: today\r\n", b"Dato: today\r\n", "said something different", "Dat(e|o)"),
}  # fmt: skip


def rule_of(advice: Advice) -> Rule:
    """The rule that lines for config.toml make; without a mistake, and the same that the command adds."""
    ((name, table),) = tomllib.loads("\n".join(advice.config))["rule"].items()
    rule, mistakes = from_table(name, table, ["comp0"])
    assert mistakes == []
    for width in (40, 80, 400):
        typed = "\n".join(explain._command(advice.command, width))
        script = f"set -- {typed}\nprintf '%s\\0' \"$@\""
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
        program, _, module, *rest = done.stdout.split("\0")[:-1]
        assert (program, module, rest[0]) == ("python", "pipeline.control", "NAME")
        _, asked = control.parse(rest)
        assert asked["what"] == "add" and asked["name"] == name
        assert from_table(name, asked["table"], ["comp0"]) == (rule, [])
    return rule


def masked(regex: tuple[str, ...], stream: bytes) -> set[int]:
    """The bytes of a stream that a mask covers."""
    automaton, state, found = compile_mask(regex), 0, set()
    for i, value in enumerate(stream):
        state, hit = divmod(automaton.rows[state][automaton.classes[value]], 2)
        found |= {i} if hit else set()
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_a_mask_is_suggested_where_the_bytes_look_like_something(name: str, tmp_path: Path) -> None:
    """Dates, cookies, random ids: the rule can be used as it stands, covers what differs, and no text before it."""
    first, second, text, regex = ANSWERS[name]
    advice = advise(load(write(words.tcp_difference(first, second), tmp_path / "x")))
    assert text in advice.text and bool(advice.config) == (regex is not None)
    if regex is None:
        return
    rule = rule_of(advice)
    assert rule.action == "mask" and rule.regex == (regex,)
    differ = {i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b}
    fixed = regex.partition("(")[0].replace("\\n", "\n").replace("\\", "").encode()
    for stream in (first, second):
        covered = masked(rule.regex, stream)
        assert differ <= covered and min(covered) == stream.index(fixed) + len(fixed)


def test_what_is_encrypted_may_pass(tmp_path: Path) -> None:
    """TLS: no mask, a rule that lets the service pass."""
    first, second = (b"\x16\x03\x03\0\x40" + bytes(60) + last for last in (b"a", b"b"))
    advice = advise(load(write(words.tcp_difference(first, second), tmp_path / "x")))
    assert "TLS" in advice.text and rule_of(advice).action == "pass"


def test_what_is_no_text_may_pass_with_its_whole_service(tmp_path: Path) -> None:
    """As a last resort, and said to be one."""
    first, second = (bytes(40) + last for last in (b"\xfe", b"\xff"))
    advice = advise(load(write(words.tcp_difference(first, second), tmp_path / "x")))
    assert "If this service may answer as it likes" in advice.text and rule_of(advice).action == "pass"


@pytest.mark.parametrize("known", [True, False])
def test_the_command_names_the_pipeline_whose_folder_a_file_lies_in(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where its control socket is, if `control` does not look there anyway."""
    monkeypatch.setattr("tools.advice.folders_to_try", lambda: [str(tmp_path)] if known else ["/run/colo"])
    (tmp_path / "web-1.divergences").mkdir()
    first, second, *_ = ANSWERS["prose"]
    path = write(words.tcp_difference(first, second), tmp_path / "web-1.divergences" / "x.pcapng")
    where = () if known else ("--runtime-dir", str(tmp_path))
    assert advise(load(path)).command[3:7] == (*where, "web-1", "rule", "add", "text")[:4]


def test_no_rule_that_lets_everything_pass_is_suggested(tmp_path: Path) -> None:
    """Of a file that does not say which flow it was: the sentence alone."""
    first, second = (b"\x16\x03\x03\0\x40" + bytes(60) + last for last in (b"a", b"b"))
    found = load(write(words.tcp_difference(first, second), tmp_path / "x"))
    advice = advise(dataclasses.replace(found, verdict={**found.verdict, "flow": ""}))
    assert advice.text.endswith("let such flows pass uncompared.")
    assert advice.config == advice.command == ()


def test_advice_for_what_is_no_byte(tmp_path: Path) -> None:
    """FIN on one side, datagrams, a silent and a talking secondary, full queues."""
    late = words.timeout()
    talking = words.timeout()
    silent = words.timeout()
    silent.packets = [p for p in silent.packets if p.side == 0]
    talking.packets.append(words.Held(words.segment(400, b"else"), 1, 100))
    texts = [advise(load(write(f, tmp_path / "x"))).text for f in (words.flags(), words.order(), late, talking, silent)]
    assert "closed by the primary alone" in texts[0] and "reorder_grace_ms" in texts[1]
    assert texts[2].startswith("Nothing of the secondary waits") and texts[3].startswith("The secondary has sent other")
    assert texts[4].startswith("The file holds nothing of the secondary")
    assert not any("acknowledge" in text for text in texts)
    acknowledged = words.timeout()
    acknowledged.offset = 1
    assert "ack_policy" in advise(load(write(acknowledged, tmp_path / "x"))).text
    assert "max_queue_size" in advise(load(write(words.stuck(), tmp_path / "x"))).text
