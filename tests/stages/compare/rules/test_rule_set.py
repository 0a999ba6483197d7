"""Rules: what a config may say of them, every mistake, and that a set fits into its words."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config
from pipeline.config import ConfigError
from stages.compare.config import Rule
from stages.compare.layout import rules as L
from stages.compare.rules import rule_set as rules
from stages.compare.rules.automaton import compile_mask
from stages.compare.rules.regex import BadRegex
from stages.compare.rules.rule_set import RuleSet, TooMuch, as_table, describe, from_table, from_text
from tests.pipeline.wrong import COMPARE, NET

ROOT = "/nowhere/config.toml"
PASS: dict[str, Any] = {"action": "pass"}


def rule(**table: Any) -> Rule:
    """A rule without a mistake."""
    made, wrong = from_table("r", table, ["comp0"])
    assert not wrong
    return made


def mistakes(text: str) -> list[tuple[str, str, str]]:
    """What is wrong with a config."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, path=ROOT)
    return [tuple(mistake) for mistake in caught.value.mistakes]


def test_every_form_of_a_list_is_read() -> None:
    """A value, a list, a string with commas; ``*`` and ``any`` take everything; both ICMPs; QinQ."""
    got = rule(
        action="mask", compare="comp0", protocol=["tcp", 17], source="10.0.0.1, fd00::/8", source_port="80,8000-8999",
        destination=["10.1.0.0/16"], destination_port=[1, "2-3"], vlan=["0", 5, "100.7", "10-19", "1.2.3", "1.2.3.4"],
        regex="x", bytes="16-23",
    )  # fmt: skip
    assert got.protocol == ((6, 6), (17, 17))
    assert got.source == (ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_network("fd00::/8"))
    assert got.source_port == ((80, 80), (8000, 8999))
    assert got.destination == (ipaddress.ip_network("10.1.0.0/16"),)
    assert got.destination_port == ((1, 1), (2, 3))
    more = [(3 << 12 | fourth) << 32 | 1 << 16 | 2 for fourth in (0, 4)]
    assert got.vlan == ((0, 0), (5, 5), (100 << 16 | 7, 100 << 16 | 7), (10, 19), *(2 * (tags,) for tags in more))
    assert (got.regex, got.bytes) == (("x",), ((16, 23),))
    everything = rule(action="pass", protocol="any", source="*", source_port=["80", "*"], vlan="*")
    assert everything == rule(action="pass")
    assert rule(action="pass", protocol="ICMP").protocol == ((1, 1), (58, 58))
    assert (
        describe(got)
        == "tcp,udp [10.0.0.1,fd00::/8]:80,8000-8999 > 10.1.0.0/16:1,2-3 vlan 0,5,100.7,10-19,1.2.3,1.2.3.4"
    )
    assert describe(everything) == "any *:* > *:*"


WRONG = [
    ("", "action", "nothing", '"pass" or "mask"'),
    ('action = "drop"', "action", '"drop"', '"pass" or "mask"'),
    ('action = "pass"\nprotcol = "tcp"', "protcol", "an unknown key", '"protocol"'),
    ('action = "pass"\nprotocol = "sctp"', "protocol", '"sctp"', "0 to 255"),
    ('action = "pass"\nprotocol = 256', "protocol", "256", "0 to 255"),
    ('action = "pass"\nprotocol = true', "protocol", "true", "a number"),
    ('action = "pass"\nprotocol = []', "protocol", "[]", "a list"),
    ('action = "pass"\nsource = "10.0.0.300"', "source", '"10.0.0.300"', "an address or a network"),
    ('action = "pass"\nsource = "10.0.0.1/8"', "source", '"10.0.0.1/8"', '"10.0.0.0/8"'),
    ('action = "pass"\nsource = "fe80::1%eth0"', "source", "eth0", "without a zone"),
    ('action = "pass"\nsource = "::ffff:10.0.0.1"', "source", "::ffff", '"10.0.0.1": a packet has'),
    ('action = "pass"\nsource = 5', "source", "5", "an address or a network"),
    ('action = "pass"\nsource_port = "0"', "source_port", '"0"', "from 1 to 65535"),
    ('action = "pass"\nsource_port = "80-"', "source_port", '"80-"', "a range"),
    ('action = "pass"\nsource_port = "90-80"', "source_port", '"90-80"', '"80-90", the smaller number first'),
    ('action = "pass"\nsource_port = "80,"', "source_port", '"80,"', "a port"),
    ('action = "pass"\nsource_port = "٣"', "source_port", "٣", "a port"),
    ('action = "pass"\ndestination_port = 70000', "destination_port", "70000", "65535"),
    ('action = "pass"\nvlan = 4096', "vlan", "4096", "4095"),
    ('action = "pass"\nvlan = "1.2.3.4.5"', "vlan", '"1.2.3.4.5"', "up to four tags"),
    ('action = "pass"\nvlan = "1.2.4096"', "vlan", '"1.2.4096"', "up to four tags"),
    ('action = "mask"\nbytes = "70000"', "bytes", '"70000"', "0 to 65535"),
    ('action = "mask"\nbytes = "-1"', "bytes", '"-1"', "offsets"),
    ('action = "mask"\nregex = 3', "regex", "3", "a regular expression"),
    ('action = "mask"\nregex = []', "regex", "[]", "a regular expression"),
    ("action = \"mask\"\nregex = 'a(b'", "regex", "'a(b'", "at character 2, '(b': missing )"),
    ("action = \"mask\"\nregex = ['a', 'b$']", "regex", "number 2, 'b$'", "at character 2, '$': $ looks ahead"),
    ("action = \"mask\"\nregex = '(?:a|b)*a(?:a|b){12}(c)'", "regex", "{12}", "more than 4,096 states"),
    ("action = \"mask\"\nregex = 'a{0,2000}'", "regex", "2000", "1,000 bytes"),
    ("action = \"mask\"\nregex = '[^\\x00-\\xff]'", "regex", "xff", "masks nothing"),
    ('action = "mask"', "", "a mask without regex or bytes", "what may differ"),
    ('action = "pass"\nbytes = "1"', "bytes", "what to mask", '"mask"'),
    ('action = "pass"\nregex = "x"', "regex", "what to mask", '"mask"'),
    ('action = "pass"\ncompare = "comp1"', "compare", '"comp1"', '"comp0"'),
    ('action = "pass"\nprotocol = "icmp"\nsource_port = 1', "source_port", "ports of icmp", "tcp or udp only"),
    (
        'action = "pass"\nsource = "10.0.0.1"\ndestination = "fd00::/8"',
        "destination", "IPv4 and IPv6", "both of one kind",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "found", "expected"), WRONG, ids=[w[0].replace("\n", " ") for w in WRONG])
def test_every_mistake_in_a_rule_is_named(table: str, key: str, found: str, expected: str) -> None:
    """One line with the path, what stands there and what would be right."""
    [(path, stands, right)] = mistakes(f"{COMPARE}[rule.r]\n{table}\n")
    assert path == f"rule.r.{key}".rstrip(".")
    assert found in stands
    assert expected in right


def test_mistakes_in_rules_are_listed_with_all_others() -> None:
    """Two rules and another table: three mistakes at once; a misspelt table is one."""
    text = COMPARE + '[rule.a]\naction = "pas"\n[rule.b]\naction = "mask"\n[log]\nformat = "xml"\n'
    assert [path for path, _, _ in mistakes(text)] == ["log.format", "rule.a.action", "rule.b"]
    assert mistakes(COMPARE + "[rules.a]\n")[0][0] == "rules"
    assert mistakes(NET + '[rule.a]\naction = "pass"\n') == [
        ("rule.a", "a rule", "a [compare.ID] whose packets it is about")
    ]


def test_too_many_rules_are_a_mistake_of_the_config() -> None:
    """64 fit, 65 do not; nor do lists that are longer than the room for all of them, or masks too large together."""
    many = [f'[rule.r{i}]\naction = "pass"\nsource_port = {i + 1}\n' for i in range(65)]
    assert len(config.parse(COMPARE + "".join(many[:64]), path=ROOT).annexes["rule"]) == 64
    assert mistakes(COMPARE + "".join(many))[0][:2] == ("rule", "more than 64 rules")
    ports = ",".join(map(str, range(1, 2101)))
    assert "more addresses" in mistakes(f'{COMPARE}[rule.r]\naction = "pass"\nsource_port = "{ports}"\n')[0][1]
    large = "[rule.r{0}]\naction = \"mask\"\nregex = '(?:a|b)*a(?:a|b){{9}}abcdefghijklmnopqrstuvwxyz({0})'\n"
    assert f"{L.AUTOMATA_BYTES:,} bytes" in mistakes(COMPARE + "".join(map(large.format, range(9))))[0][1]


TABLES = st.fixed_dictionaries(
    {"action": st.just("pass")},
    optional={
        "protocol": st.lists(st.sampled_from(["tcp", "udp", "icmp", "47", "1", "58", "any"]), min_size=1, max_size=4),
        "source": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::1", "*", "0.0.0.0/0"]), min_size=1, max_size=3),
        "vlan": st.lists(
            st.sampled_from(["0", "5-9", "7.8", "7.8.9", "0.0.0.1", "7.0.9.4095", "4095"]), min_size=1, max_size=3
        ),
    },
)


@given(TABLES)
def test_a_rule_that_was_read_can_be_written_and_read_again(table: dict[str, Any]) -> None:
    """What ``rule list`` and the next supervisor get is the same rule."""
    made, wrong = from_table("r", table, ["comp0"])
    assert not wrong
    assert from_table("r", as_table(made), ["comp0"]) == (made, [])


def test_numbers_stay_while_rules_come_and_go() -> None:
    """A rule keeps its number, a freed one is used again, a serial never; ``before`` puts one in front."""
    a, b = rule(action="pass"), rule(action="mask", bytes="1")
    made = RuleSet().extended({"a": a, "b": b})
    assert [(one.name, one.number, one.serial) for one in made.kept] == [("a", 0, 1), ("b", 1, 2)]
    made = made.without("a").added("c", a).added("d", a, before="b")
    assert [(one.name, one.number, one.serial) for one in made.kept] == [("d", 2, 4), ("b", 1, 2), ("c", 0, 3)]
    assert [one.serial for one in made.renewed().kept] == [5, 6, 7]
    words = made.words("comp0")
    assert [int(n) for n in words[L.COPY_ORDER : L.COPY_ORDER + 4]] == [3, 2, 1, 0]
    tags = [int(words[L.COPY_RECORDS + n * L.RECORD_WORDS]) for n in range(4)]
    assert tags == [3 << 16 | L.PASSES | 1, 2 << 16 | L.MASKS | 2, 4 << 16 | L.PASSES | 3, 0]


def test_a_set_is_read_back_from_its_text() -> None:
    """Names, rules, numbers, serials, bases, the digest of the config and the revision; rubbish is refused."""
    made = RuleSet().extended(
        {"a": rule(action="pass", compare="comp0"), "b": rule(action="mask", regex=["a(b)", "c"])}
    )
    made = made.added("c", rule(action="pass"), "a", {2: {"comp0": (7, 8)}})
    assert from_text(made.text("digest", 5)) == (made, "digest", 5)
    for rubbish in (b"", b"\xc1", b"\x00", b"\x80", made.text("d", 1)[:-1]):
        with pytest.raises(ValueError, match=r"not the text of rules: \S"):
            from_text(rubbish)


def test_equal_masks_share_an_automaton() -> None:
    """And what a set takes does not depend on how often an expression is used."""
    mask = rule(action="mask", regex=r"\r\nDate: ([^\r\n]*)")
    words = RuleSet().extended({f"r{i}": mask for i in range(64)}).words("comp0")
    at = [int(words[L.COPY_RECORDS + n * L.RECORD_WORDS + L.RULE_AUTOMATON]) for n in range(64)]
    assert len(set(at)) == 1


def test_the_text_of_all_rules_has_to_fit() -> None:
    """A set whose text would not be there for the next supervisor is refused."""
    with pytest.raises(TooMuch):
        RuleSet().words("comp0", b"x" * (L.TEXT_WORDS * 8 + 1))
    assert RuleSet().words("comp0", b"x" * (L.TEXT_WORDS * 8))[L.COPY_TEXT_BYTES] == L.TEXT_WORDS * 8


def test_a_digest_follows_every_key_and_the_order() -> None:
    """Another rule, another key, another order: another digest."""
    a, b = rule(action="pass"), rule(action="pass", vlan=5)
    digests = {rules.digest(one) for one in ({}, {"a": a}, {"a": b}, {"b": a}, {"a": a, "b": b}, {"b": b, "a": a})}
    assert len(digests) == 6


# --- expressions -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", "at character 1, '(': missing )"),
        ("a)", "at character 2, ')': unbalanced parenthesis"),
        ("*a", "at character 1, '*a': nothing to repeat"),
        ("a{3,2}", "at character 3, '3,2}': min repeat greater than max"),
        ("[b-a]", "at character 2, 'b-a]': bad character range"),
        (r"\1", "at character 2, '1': invalid group reference"),
        ("a$", "at character 2, '$': $ looks ahead"),
        (r"\bx", r"at character 1, '\bx': \b looks at more than one byte"),
        ("a(?=b)", "at character 2, '(?=b)': only (...) and (?:...)"),
        ("(?P<n>a)", "at character 1, '(?P<n>a)': only (...) and (?:...)"),
        ("(?m)a", "at character 1, '(?m)a': of the flags only i and s"),
        ("a+?", "at character 3, '?': neither lazy nor possessive"),
        ("(a)b", "at character 4, 'b': something behind the group"),
        ("(a)(b)", "at character 4, '(b)': something behind the group"),
        ("x(?:(a))", "at character 5, '(a))': a second group or one within another"),
        ("a|(b)", "at character 3, '(b)': the masked group is one of several ways"),
        ("x(a)*", "at character 2, '(a)*': the masked group is repeated"),
        ("x^a", "at character 2, '^a': ^ means the first byte"),
        ("(?:^|x)^a", "at character 8, '^a': ^ means the first byte"),
        ("(?:^|x)(?:^a)", "^ behind ^"),
        ("a\u20ac", r"at character 2, '€': no byte, but a character; in UTF-8 it is \xe2\x82\xac"),
        ("\xe9", r"at character 1, 'é': no byte, but a character; in UTF-8 it is \xc3\xa9"),
        ("\ud800", "no byte, but a character"),
        ("[b-\n]", r"at character 2, 'b-\n]': bad character range b-\n"),
        ("x[[:alpha:]]+", "at character 3, '[:alpha:]]+': a class of POSIX"),
        ("[^a[:^digit:]]", "at character 4, '[:^digit:]]': a class of POSIX"),
        ("x" * 1001, "1,001 characters"),
        ("(?:" * 31 + "a" + ")" * 31, "nested too deeply"),
        ("(?:" * 240 + "a" + ")" * 240, "nested too deeply"),
        ("x{1001}", "more than 1,000 bytes"),
        ("x{4294967295}", "too large"),
        ("^", "masks nothing"),
        ("(x{0})", "masks nothing"),
        ("(?:a|b)*a(?:a|b){12}(c)", "more than 4,096 states"),
    ],
)
def test_an_expression_that_cannot_be_a_mask_says_why_and_where(text: str, why: str) -> None:
    """Python's own message for what is no expression; what an automaton cannot do is named."""
    with pytest.raises(BadRegex) as caught:
        compile_mask([text])
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "shown", "place"),
    [
        (r"'\r\nDate: \d+(.*'", r"'\r\nDate: \d+(.*'", "at character 14, '(.*'"),  # of TOML's strings the literal one
        (r'"\\r\\nDate: \\d+(.*"', r"'\r\nDate: \d+(.*'", "at character 14, '(.*'"),  # the basic one, where \\ is one
        (r'"\r\nDate: (.*"', r"'\r\nDate: (.*'", "at character 11, '(.*'"),  # and where \r is one byte
        ("'" + "x" * 90 + "(a" + "y" * 90 + "'", "'…" + "x" * 30 + "(a" + "y" * 28 + "…'", "at character 91, '(ayyyy"),
    ],
)
def test_the_place_in_an_expression_is_counted_in_what_is_shown(typed: str, shown: str, place: str) -> None:
    """A backslash is one character, as it was typed; of a long expression what is around the place is shown."""
    [(_, found, expected)] = mistakes(f'{COMPARE}[rule.r]\naction = "mask"\nregex = {typed}\n')
    assert found == shown
    assert place in expected
    assert "missing )" in expected


def test_a_mask_that_is_too_large_is_shown_as_it_was_typed() -> None:
    """Every expression of it, for which of them is too much cannot be said."""
    [(_, found, _)] = mistakes(rf"{COMPARE}[rule.r]{chr(10)}action = 'mask'{chr(10)}regex = ['\d{{600}}', '\w{{600}}']")
    assert found == r"'\d{600}', '\w{600}'"


def run(text: str, stream: bytes, state: int = 0) -> str:
    """A stream with # for each byte that is masked."""
    automaton, shown = compile_mask([text]), ""
    for b in stream:
        entry = automaton.rows[state][automaton.classes[b]]
        state, shown = entry >> 1, shown + ("#" if entry & 1 else chr(b))
    return shown


@pytest.mark.parametrize(
    ("text", "stream", "expected"),
    [
        (r"\nDate: ([^\n]*)", b"\nDate: 12\nx", "\nDate: ##\nx"),
        (r"(?i)\ndate: (\d+)", b"\nDATE: 12x1", "\nDATE: ##x1"),
        (r"(?:^|; )s=([0-9a-f]*)", b"s=1z; s=f; xs=1", "s=#z; s=#; xs=1"),
        ("ab", b"ababx", "####x"),
        ("ab", b"aab", "###"),  # a byte is judged when it comes: the first a could have become a match
        (r"x(a{2,3})", b"xaaaax", "x###ax"),
        (r"x(a{,2}b)", b"xaabxcxb", "x###xcx#"),
        (r"x([^\x00-\x7f]+)", b"x\xff\x80a", "x##a"),
        (r"x(.)", b"x\nxa", "x\nx#"),
        (r"(?s)x(.)", b"x\n", "x#"),
        (r"[]\-a]([\]^])", b"]]-^a]", "]#-#a#"),
        (r"\x41\102\0(\t)", b"AB\0\t", "AB\0#"),
        (r"a{(b)", b"a{b", "a{#"),
        (r"a{}(b)", b"a{}b", "a{}#"),
        (r"a{,}(b)", b"aaab", "aaa#"),
        (r"[a-c-](\W)", b"-!d!", "-#d!"),
        (r"(?i)[^a](b)", b"AbcB", "Abc#"),
        (r"x(?:ab|a)(c*)", b"xaccxabc", "xa##xab#"),
    ],
)
def test_a_mask_covers_what_its_expression_says(text: str, stream: bytes, expected: str) -> None:
    """The syntax, form by form."""
    assert run(text, stream) == expected


def test_the_middle_of_a_stream_is_not_its_beginning() -> None:
    """State 1 knows nothing of what came before."""
    assert run("^a(b)", b"abab", 0) == "a#ab"
    assert run("^a(b)", b"abab", 1) == "abab"
    assert run("a(b)", b"abab", 1) == "a#a#"


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab|()?:*+{}0123,^$.[]\\-dwsx\xe9"), max_size=16))
def test_whatever_stands_for_an_expression_is_taken_or_refused(text: str) -> None:
    """No other exception; what is taken has a whole table."""
    try:
        automaton = compile_mask([text])
    except BadRegex:
        return
    count, classes = len(automaton.rows), max(automaton.classes) + 1
    assert all(len(row) == classes for row in automaton.rows)
    assert all(0 < entry >> 1 < count for row in automaton.rows for entry in row)
