"""A text in which a QEMU command line stands, as the words that a shell would make of it, and where they stand.

The text may be a script, a terminal's copy or a page that talks about QEMU: lines that are no command are skipped, a
``+`` before every line (a diff) and a root prompt are taken off, variables that the text sets are put in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


class Trouble(ValueError):
    """The input cannot be understood: where, what stands there, what would be right."""

    def __init__(self, place: str, found: str, mend: str) -> None:
        super().__init__(f"{place}: {found}; {mend}" if place else f"{found}; {mend}")


def show(text: str) -> str:
    """A piece of the input on one line, between quotes, at most 70 characters of it."""
    kept = text if len(text) <= 70 else text[:67] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept) + '"'


@dataclass(frozen=True)
class Word:
    """A word: what the shell makes of it, how it was written, its place, and variables without a value in it."""

    value: str
    raw: str
    place: str
    unknown: tuple[str, ...] = ()
    operator: bool = False

    @classmethod
    def made(cls, value: str, place: str = "") -> Word:
        """A word that no shell has to take apart."""
        return cls(value, shlex.quote(value), place)


@dataclass
class CommandLine:
    """One QEMU command line: what stands before its options (program, sudo ...), the options, a redirection.

    ``form`` says what it was written as: for a ``shell``, as ``qmp`` commands, as a domain's ``xml``; ``guest`` is the
    name that it has there; ``said`` is what there is to say about the reading: kind of a note, place, words.
    """

    place: str
    before: list[Word] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    after: list[Word] = field(default_factory=list)
    form: str = "shell"
    guest: str = ""
    said: list[tuple[str, str, str]] = field(default_factory=list)


_PROGRAM: Final = re.compile(r"(?:.*/)?(?:qemu-system-[\w.+-]+|qemu-kvm|kvm|qemu)")
_HAS_PROGRAM: Final = re.compile(r"(?:^|[\s/\"'])(?:qemu-system-[\w.+-]+|qemu-kvm|kvm|qemu)[\"']?(?=\s|\\?$)")
_OPTION: Final = re.compile(r"--?[A-Za-z][\w.-]*(?=[\s=\\)]|$)")
_ASSIGNMENT: Final = re.compile(r"(?:(?:export|local|readonly|declare)\s+)?[A-Za-z_]\w*\+?=(?!\s*\()")
_ARRAY: Final = re.compile(r"\s*(?:(?:export|local|readonly|declare(?:\s+-a)?)\s+)?([A-Za-z_]\w*)\+?=\(")
_ALL_OF_ARRAY: Final = re.compile(r"(\"?)\$\{([A-Za-z_]\w*)\[[@*]\]\}\1(?=[\s;&|<>()]|\Z)")
_BEFORE: Final = re.compile(
    r"(?:sudo|doas|env|exec|nohup|nice|ionice|taskset|numactl|setsid|strace|time|chrt|cd|ulimit|ip|systemd-run|nsenter"
    r"|stdbuf|gdb|valgrind|unshare|ssh|[A-Za-z_]\w*=\S*)\s"
)
_RUN_VARIABLE: Final = re.compile(r"\"?\$\{?(\w+)\}?\"?\s+(?:--?[A-Za-z]|\\$)")
_IS_VARIABLE: Final = re.compile(r"(?:(?:eval|exec|sudo)\s+)*\$\{?(\w+)\}?\s*&?")  # of which the text says what it is
_EVAL: Final = re.compile(r"^(\s*eval\s+)\"(\$\{?\w+\}?)\"", re.MULTILINE)
_PROMPT: Final = re.compile(r"(\s*)[#$%>]\s+")
_MOST_EXPANDED: Final = 1 << 20
_BREAKS: Final = frozenset(";&|<>()")
_BLANKS: Final = frozenset(" \t\r")


def split(text: str, given: Mapping[str, str], numbers: Sequence[int] = ()) -> list[CommandLine]:
    """Every QEMU command line of a text; ``given`` are values of variables, stronger than what the text sets.

    ``numbers`` are those of the text's lines, where they are not 1, 2, 3.  Options that stand without a program, one a
    line or several, are a command line, too.  Raises `Trouble`.
    """
    return _Splitter(_plain(text), dict(given), numbers).run()


def listed(arguments: Iterable[str], place: str) -> CommandLine:
    """A command line that is words already: a process's, or the rest of our own."""
    words = [Word.made(value, f"{place} {n}") for n, value in enumerate(arguments, 1)]
    start = next((n + 1 for n, word in enumerate(words) if _PROGRAM.fullmatch(word.value)), None)
    if start is None:  # an interpreter of another name: the options start at the first dash
        start = next((n for n, word in enumerate(words) if _OPTION.fullmatch(word.value)), len(words))
    return CommandLine(words[0].place if words else place, words[:start], words[start:])


def _plain(text: str) -> str:
    """The text without a diff's ``+`` and with prompts before QEMU's program taken off."""
    lines = _EVAL.sub(r"\1\2", text.replace("\r\n", "\n")).split("\n")
    signed = [line for line in lines if re.match(r"\+\s*--?[a-z]", line)]
    if signed and not any(re.match(r"\s*--?[a-z]", line) for line in lines):
        lines = [line[1:] if line.startswith("+") else line for line in lines]

    def at_prompt(line: str) -> bool:
        rest = _PROMPT.sub("", line, count=1)
        options = " -" in rest or rest.rstrip().endswith("\\")
        return bool(_PROMPT.match(line)) and _HAS_PROGRAM.search(rest) is not None and options

    def commented(line: str) -> bool:
        return line.lstrip().startswith("#")

    def typed(line: str) -> bool:
        first = line.split(None, 1)[0].strip("\"'") if line.strip() else ""
        return _PROGRAM.fullmatch(first) is not None and re.search(r"\s--?[A-Za-z]", line) is not None

    if lines[0].startswith("#!") or any(map(typed, lines)):  # not a root prompt: an old command that was put aside
        lines = ["#" if commented(line) and at_prompt(line) else line for line in lines]
    if any(at_prompt(line) for line in lines):
        lines = [
            _PROMPT.sub(r"\1", line, count=1)
            if at_prompt(line) or (_PROMPT.match(line) and _ASSIGNMENT.match(_PROMPT.sub("", line, count=1)))
            else line
            for line in lines
        ]
    return "\n".join(lines)


class _Splitter:
    """Walks through the text once, line by line; words of a command may reach over several lines."""

    def __init__(self, text: str, variables: dict[str, str], numbers: Sequence[int]) -> None:
        self.text, self.at, self.line, self.numbers = text, 0, 1, numbers
        self.variables, self.given = variables, frozenset(variables)
        self.found: list[CommandLine] = []
        self.arrays: dict[str, CommandLine] = {}  # a command line, too, unless another one takes it in
        self.array = ""  # in which we are
        self.spent = 0  # characters that variables have put in
        self.open = False  # whether an option on a line of its own belongs to the last command line

    def run(self) -> list[CommandLine]:
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)]
            array = _ARRAY.match(line)
            if array:
                self.at += array.end()
                line = line[array.end() :]
                self.array, self.open = array[1], False
            if self._is_command(line):
                self._command()
                continue
            if line.strip() and not line.lstrip().startswith("#") and not array:
                self.open, self.array = False, "" if line.lstrip().startswith(")") else self.array
            self.at += len(line) + 1
            self.line += 1
        return self.found

    @property
    def place(self) -> str:
        """Where the cursor stands."""
        return f"line {self.numbers[self.line - 1] if self.line <= len(self.numbers) else self.line}"

    def _is_command(self, line: str) -> bool:
        line = line.strip()
        if _OPTION.match(line) or _ASSIGNMENT.match(line):
            return True
        if _HAS_PROGRAM.search(line):
            first = line.split(None, 1)[0].strip("\"'")
            return bool(_PROGRAM.fullmatch(first) or _BEFORE.match(line))
        whole = _IS_VARIABLE.fullmatch(line)
        if whole and _HAS_PROGRAM.search(self.variables.get(whole[1], "")):
            return True
        return bool(_RUN_VARIABLE.match(line))

    def _command(self) -> None:
        start = self.place
        words = self._words()
        parts: list[list[Word]] = [[]]
        within = self.array
        for word in words:
            if word.operator and word.value[0] in ";&|()":
                parts.append([])
                self.array = "" if word.value[0] == ")" else self.array
            else:
                parts[-1].append(word)
        for n, part in enumerate(parts):
            if not part:
                continue
            program = next((n for n, w in enumerate(part) if _PROGRAM.fullmatch(w.value)), None)
            leading = next((n for n, w in enumerate(part) if not _ASSIGNMENT.match(w.raw.lstrip("'") + " ")), len(part))
            if program is None and leading < len(part) and "$" in part[leading].raw:
                program = leading  # "$QEMU" whose value the text does not say
            if leading == len(part) or part[0].value in ("export", "local", "readonly", "declare"):
                self._assign(part)
            elif _OPTION.fullmatch(part[0].value):
                self._take(start, [], part, within if n == 0 else "")
            elif program is not None:
                self.open = False
                self._take(start, part[: program + 1], part[program + 1 :])

    def _assign(self, words: Sequence[Word]) -> None:
        for word in words:
            name, sign, value = word.value.partition("=")
            plain = name.removesuffix("+")
            if sign and plain not in self.given:
                self.variables[plain] = self.variables.get(plain, "") + value if name != plain else value

    def _take(self, place: str, before: list[Word], words: list[Word], array: str = "") -> None:
        if array:
            if array not in self.arrays:
                self.arrays[array] = CommandLine(place)
                self.found.append(self.arrays[array])
            self.arrays[array].words += words
            return
        if not self.open:
            self.found.append(CommandLine(place, before))
            self.open = True
        cut = next((n for n, word in enumerate(words) if word.operator), len(words))
        if 0 < cut < len(words) and words[cut - 1].value.isdigit():
            cut -= 1  # the 2 of 2>&1
        self.found[-1].words += words[:cut]
        self.found[-1].after += words[cut:]

    # --- one command ----------------------------------------------------------------------------------------------

    def _words(self) -> list[Word]:
        """The words up to the end of the line that no backslash continues; the cursor stands behind it."""
        words: list[Word] = []
        while self.at < len(self.text):
            c = self.text[self.at]
            if c in _BLANKS:
                self.at += 1
            elif c == "\n":
                self.at += 1
                self.line += 1
                break
            elif m := re.compile(r"\\[ \t\r]*(?:\n|\Z)").match(self.text, self.at):
                self.at = m.end()
                self.line += 1
            elif c == "#":
                end = self.text.find("\n", self.at)
                self.at = end if end >= 0 else len(self.text)
            elif c in _BREAKS:
                end = self.at
                while end < len(self.text) and self.text[end] in _BREAKS and (end == self.at or c in "<>&|"):
                    end += 1
                words.append(Word(self.text[self.at : end], self.text[self.at : end], self.place, (), True))
                self.at = end
            elif (m := _ALL_OF_ARRAY.match(self.text, self.at)) and m[2] in self.arrays:
                self.at = m.end()
                self._spend(sum(len(word.value) + 1 for word in self.arrays[m[2]].words), self.place)
                words += self.arrays[m[2]].words
                self.found = [line for line in self.found if line is not self.arrays[m[2]]]
            else:
                words += self._word()
        return words

    def _word(self) -> list[Word]:
        """The word at the cursor; several where an unquoted variable holds several."""
        place, raw, value = self.place, "", ""
        unknown: list[str] = []
        done: list[Word] = []
        expanded = False
        while self.at < len(self.text):
            c = self.text[self.at]
            if c in _BLANKS or c == "\n" or c in _BREAKS:
                break
            if m := re.compile(r"\\[ \t\r]*\n").match(self.text, self.at):
                self.at = m.end()
                self.line += 1
                continue
            start = self.at
            piece, names, known = self._piece(place)
            raw += self.text[start : self.at].replace("\\\n", "")
            unknown += names
            expanded = expanded or known
            if known and c == "$":  # outside quotes: the shell splits it at blanks
                pieces = re.split(r"[ \t\n]+", piece)
                for n, part in enumerate(pieces):
                    value += part
                    if n < len(pieces) - 1 and value:
                        done.append(Word.made(value, place))
                        value = ""
                continue
            value += piece
        if value or not done:
            done.append(Word(value, shlex.quote(value) if expanded and not unknown else raw, place, tuple(unknown)))
        return [] if expanded and not value and not done[0].value and raw[:1] == "$" else done

    def _piece(self, place: str) -> tuple[str, list[str], bool]:
        """What stands at the cursor up to the end of a quote, or one character: value, unknown names, expanded."""
        c = self.text[self.at]
        if c == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise Trouble(place, "a quote (') that is never closed", "close it, or give the command line alone")
            value = self.text[self.at + 1 : end]
            self._pass(end + 1)
            return value, [], False
        if c == '"':
            return self._quoted(place)
        if c == "\\":
            value = self.text[self.at + 1 : self.at + 2]
            self._pass(self.at + 2)
            return value, [], False
        if c in "$`":
            return self._variable(place)
        self.at += 1
        return c, [], False

    def _pass(self, end: int) -> None:
        end = min(end, len(self.text))
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def _quoted(self, place: str) -> tuple[str, list[str], bool]:
        self.at += 1
        value, unknown, expanded = "", list[str](), False
        while self.at < len(self.text):
            c = self.text[self.at]
            if c == '"':
                self.at += 1
                return value, unknown, expanded
            if c in "$`":
                piece, names, known = self._variable(place)
                value, unknown, expanded = value + piece, unknown + names, expanded or known
                continue
            if c == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                escaped = self.text[self.at + 1]
                value += "" if escaped == "\n" else escaped
                self._pass(self.at + 2)
                continue
            value += c
            self._pass(self.at + 1)
        raise Trouble(place, 'a quote (") that is never closed', "close it, or give the command line alone")

    def _spend(self, characters: int, place: str) -> None:
        self.spent += characters
        if self.spent > _MOST_EXPANDED:
            found = f"variables that grow to more than {_MOST_EXPANDED:,} characters"
            raise Trouble(place, found, "write their values instead")

    def _variable(self, place: str) -> tuple[str, list[str], bool]:
        start = self.at
        if m := re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})").match(self.text, start):
            self.at = m.end()
            name = m[1] or m[2]
            if name in self.variables:
                self._spend(len(self.variables[name]), place)
                return self.variables[name], [], True
            return m[0], [name], False
        if m := re.compile(r"\$\{([A-Za-z_]\w*)(:?)[-=]([^}$`\"'\\]*)\}").match(self.text, start):
            self.at = m.end()
            value = self.variables.get(m[1])
            return (m[3] if value is None or (m[2] and not value) else value), [], True
        closing = {"$(": ")", "${": "}"}.get(self.text[start : start + 2], "`" if self.text[start] == "`" else "")
        if not closing:
            self.at += 1
            return self.text[start], [], False
        depth, at = 0, start + (2 if closing != "`" else 1)
        opening = {")": "(", "}": "{"}.get(closing)
        while at < len(self.text) and (depth or self.text[at] != closing):
            depth += (self.text[at] == opening) - (self.text[at] == closing)
            at += 1
        if at >= len(self.text):
            raise Trouble(place, f"{show(self.text[start : start + 2])} that is never closed", "close it")
        self._pass(at + 1)
        return self.text[start : self.at], [self.text[start : self.at]], False
