"""How a shell would quote each place of a string command: only so can a value be put in as one word that the shell never reads as text of its own.

`values.py` asks for the places of `${{ path }}` in a command. A place may be bare, inside '…' or "…", also within $( … ); there the value
can be put in safely. Inside a here-document, backquotes, ${…} or $((…)) it cannot, and where this reading could be mistaken ($'…',
`case` within $( … )) nothing is put in at all: `Unquotable` says why and what to write instead. A comment stays as it is.
The grammar is that of POSIX shells (sh, dash, bash, ksh, zsh); for any other `shell:` string commands take no values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

REFERENCE = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
POSIX_SHELLS = frozenset({"sh", "ash", "dash", "bash", "ksh", "mksh", "zsh"})
REMEDY = 'give it to the command in env: and write "$NAME" there'


class Unquotable(ValueError):
    """Where a value cannot be put in, and what to do instead."""


class Mode(Enum):
    """What the shell is reading. The first four take values."""

    PLAIN = "outside of quotes"
    COMMAND = "in $( … )"
    DOUBLE = "in double quotes"
    SINGLE = "in single quotes"
    BRACE = "inside ${ … }"
    BACKQUOTE = "inside backquotes"
    ARITHMETIC = "inside $(( … ))"


SAFE = frozenset({Mode.PLAIN, Mode.COMMAND, Mode.DOUBLE, Mode.SINGLE})
_QUOTE = {Mode.DOUBLE: '"', Mode.SINGLE: "'"}
_WORD_ENDS = frozenset(" \t\n;&|()<>`")


@dataclass(frozen=True)
class Place:
    """`${{ path }}` at text[start:end]. `around` is the quote that must be closed before the value and opened again behind it."""

    path: str
    start: int
    end: int
    around: str


def places(command: str, shell: str) -> tuple[Place, ...]:
    """All places to put a value in. Raises Unquotable."""
    if REFERENCE.search(command) is None:
        return ()
    if shell.rsplit("/", 1)[-1] not in POSIX_SHELLS:
        raise Unquotable(f"a string command of {shell} takes no values, because only POSIX shells' quoting is known; {REMEDY}")
    return tuple(_Reader(command).read())


def one_word(value: str, around: str) -> str:
    quoted = "'" + value.replace("'", "'\"'\"'") + "'"
    return f"{around}{quoted}{around}"


class _Reader:
    """Walks the command once, with a stack of what is open."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.open = [Mode.PLAIN]
        self.depths = [0]  # of parentheses in each open mode
        self.documents: list[tuple[str, bool]] = []  # here-documents that begin at the next line: end word, tabs stripped

    def read(self) -> Iterator[Place]:
        last = max(match.start() for match in REFERENCE.finditer(self.text))
        while self.at <= last:  # how the rest is quoted is the shell's affair
            match = REFERENCE.match(self.text, self.at)
            if match is not None:
                yield self._place(match)
                self.at = match.end()
            else:
                self._step()

    def _place(self, match: re.Match[str]) -> Place:
        for mode in self.open:
            if mode not in SAFE:
                raise Unquotable(f"{match[0]} stands {mode.value}, where no value can be put in; {REMEDY}")
        return Place(match[1], match.start(), match.end(), _QUOTE.get(self.open[-1], ""))

    def _step(self) -> None:
        mode = self.open[-1]
        if mode is Mode.SINGLE:
            self._close_at("'")
        elif self.text[self.at] == "\\":
            self._escape()
        elif mode is Mode.DOUBLE:
            self._step_double()
        elif mode is Mode.ARITHMETIC:
            self._step_arithmetic()
        elif mode is Mode.BRACE:
            self._step_brace()
        else:
            self._step_plain()

    def _escape(self) -> None:
        if REFERENCE.match(self.text, self.at + 1):
            raise Unquotable("a backslash stands before ${{; take it away")
        self.at += 2

    def _close_at(self, sign: str) -> bool:
        closes = self.text[self.at] == sign
        if closes:
            self.open.pop()
            self.depths.pop()
        self.at += 1
        return closes

    def _push(self, mode: Mode, length: int) -> None:
        self.open.append(mode)
        self.depths.append(0)
        self.at += length

    def _dollar(self) -> bool:
        """What begins with a dollar sign or a backquote, in any mode but single quotes."""
        if self.text.startswith("$((", self.at):
            self._push(Mode.ARITHMETIC, 3)
        elif self.text.startswith("$(", self.at):
            self._push(Mode.COMMAND, 2)
        elif self.text.startswith("${", self.at):
            self._push(Mode.BRACE, 2)
        elif self.text[self.at] == "`" and self.open[-1] is not Mode.BACKQUOTE:
            self._push(Mode.BACKQUOTE, 1)
        else:
            return False
        return True

    def _step_double(self) -> None:
        if not self._dollar():
            self._close_at('"')

    def _step_arithmetic(self) -> None:
        if self.text[self.at] in "'\"`":
            raise Unquotable(f"quotes inside $(( … )) leave unclear how the rest is quoted; {REMEDY}")
        if self.depths[-1] == 0 and self.text.startswith("))", self.at):
            self.at += 1
            self._close_at(")")
            return
        if not self._dollar():
            self.depths[-1] += {"(": 1, ")": -1}.get(self.text[self.at], 0)
            self.at += 1

    def _step_brace(self) -> None:
        sign = self.text[self.at]
        if sign in "'\"" and Mode.DOUBLE in self.open:
            raise Unquotable(f"quotes inside ${{ … }} within double quotes leave unclear how the rest is quoted; {REMEDY}")
        if sign in "'\"":
            self._push(Mode.SINGLE if sign == "'" else Mode.DOUBLE, 1)
        elif not self._dollar():
            self._close_at("}")

    def _step_plain(self) -> None:
        sign = self.text[self.at]
        if self.open[-1] is Mode.BACKQUOTE and sign == '"' and Mode.DOUBLE in self.open:
            raise Unquotable(f"double quotes inside backquotes within double quotes leave unclear how the rest is quoted; {REMEDY}")
        if self.text.startswith("$'", self.at):
            raise Unquotable(f"$'…' is quoted differently from shell to shell; {REMEDY}")
        if sign == "'":
            self._push(Mode.SINGLE, 1)
        elif sign == '"':
            self._push(Mode.DOUBLE, 1)
        elif sign == "#" and self._at_word():
            self._skip_comment()
        elif sign == "\n":
            self.at += 1
            self._skip_documents()
        elif self.text.startswith("<<<", self.at):
            self.at += 3
        elif self.text.startswith("<<", self.at):
            self._note_document()
        elif not self._dollar():
            self._step_parentheses(sign)

    def _step_parentheses(self, sign: str) -> None:
        mode = self.open[-1]
        if self.text.startswith("((", self.at):
            raise Unquotable(f"(( … )) leaves unclear how the rest is quoted; {REMEDY}")
        if mode is Mode.COMMAND and self._at_word() and re.compile(r"case\b").match(self.text, self.at):
            raise Unquotable(f"case within $( … ) leaves unclear where it ends; {REMEDY}")
        if (mode is Mode.COMMAND and sign == ")" and self.depths[-1] == 0) or (mode is Mode.BACKQUOTE and sign == "`"):
            self._close_at(sign)
            return
        if mode is Mode.COMMAND:
            self.depths[-1] += {"(": 1, ")": -1}.get(sign, 0)
        self.at += 1

    def _at_word(self) -> bool:
        return self.at == 0 or self.text[self.at - 1] in _WORD_ENDS

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _note_document(self) -> None:
        match = _DOCUMENT.match(self.text, self.at)
        if match is None:
            raise Unquotable(f"cannot tell where a here-document ends; {REMEDY}")
        self.documents.append((re.sub(r"['\"\\]", "", match[2]), bool(match[1])))
        self.at = match.end()

    def _skip_documents(self) -> None:
        while self.documents:
            word, strips_tabs = self.documents[0]
            while True:
                end = self.text.find("\n", self.at)
                line = self.text[self.at : len(self.text) if end < 0 else end]
                if (line.lstrip("\t") if strips_tabs else line) == word:
                    break
                if found := REFERENCE.search(line):
                    raise Unquotable(f"{found[0]} stands inside a here-document, where no value can be put in; {REMEDY}")
                if end < 0:
                    raise Unquotable(f"a here-document has no end ({word})")
                self.at = end + 1
            self.documents.pop(0)
            self.at = len(self.text) if end < 0 else end + 1


_DOCUMENT = re.compile(r"<<(-?)[ \t]*((?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;&|()<>'\"\\$`])+)")
