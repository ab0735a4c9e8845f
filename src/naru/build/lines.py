"""A Dockerfile's bytes → parser directives and logical lines.

Owns what a *line* is: directives at the top, comments, line continuation and here-documents. Knows instruction
names only to tell which may be followed by a here-document. Dockerfile reference, "Parser directives", "Format",
"Here-Documents".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from naru.build.syntax import DockerfileError, SyntaxProblem
from naru.build.words import Lexer

_DIRECTIVE = re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVE_NAMES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)$")
_HEREDOC_INSTRUCTIONS = ("RUN", "COPY", "ADD")
_BLANKS = " \t\v\f\r"


@dataclass(frozen=True, slots=True)
class Directives:
    """The parser directives in force; `escape` is a backslash or a backtick."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document. `text` has every line with its newline, tabs already stripped where `chomp` asks for it.

    `raw` is the text as written: a shell that strips the tabs itself gets that.
    """

    name: str
    text: str
    raw: str = ""
    expand: bool = True
    chomp: bool = False
    descriptor: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, continuation lines joined: `text` without its here-documents, which follow in order."""

    first: int
    last: int
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The instruction with its here-documents, for ONBUILD and for showing to people."""
        return self.text + "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in self.heredocs)


@dataclass(frozen=True, slots=True)
class Lines:
    directives: Directives
    lines: tuple[Line, ...]
    warnings: tuple[str, ...] = ()


def read_lines(data: bytes, *, file: str = "Dockerfile", directives: Directives | None = None) -> Lines:
    """Return the directives and logical lines of `data`.

    With `directives` given, none are looked for in `data` (an ONBUILD trigger keeps its own file's escape).
    DockerfileError: not UTF-8, a directive twice or wrong, an unterminated here-document.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DockerfileError("the file is not valid UTF-8", line=line, file=file) from None
    physical = text.split("\n")
    if physical and physical[-1] == "":
        physical.pop()
    found = _read_directives(physical, file) if directives is None else directives
    reader = _Reader(physical, found, file)
    lines = tuple(reader.logical_lines())
    return Lines(found, lines, tuple(reader.warnings))


def _read_directives(physical: list[str], file: str) -> Directives:
    values: dict[str, str] = {}
    start = 1 if physical and physical[0].startswith("#!") else 0
    for number, line in enumerate(physical[start:], start + 1):
        match = _DIRECTIVE.match(line.rstrip("\r"))
        if match is None or match[1].lower() not in _DIRECTIVE_NAMES:
            break
        name = match[1].lower()
        if name in values:
            raise DockerfileError(f"only one {name} parser directive can be used", line=number, file=file)
        if name == "escape" and match[2] not in ("\\", "`"):
            reason = f"invalid escape token '{match[2]}' does not match ` or \\"
            raise DockerfileError(reason, line=number, file=file)
        values[name] = match[2]
    return Directives(**values)


class _Reader:
    def __init__(self, physical: list[str], directives: Directives, file: str) -> None:
        self._physical = physical
        self._position = 0
        self._file = file
        self._lexer = Lexer(directives.escape, raw_quotes=True, raw_escapes=True, keep_unset=True)
        self._continued = re.compile(re.escape(directives.escape) + r"[ \t]*$")
        self.warnings: list[str] = []

    def logical_lines(self) -> Iterator[Line]:
        comments: list[str] = []
        while self._position < len(self._physical):
            stripped = self._physical[self._position].strip()
            if stripped.startswith("#"):
                comment = stripped[1:].strip()
                comments = [*comments, comment] if comment else []
                self._position += 1
            elif not stripped:
                self._position += 1
            else:
                line = self._logical_line(tuple(comments))
                comments = []
                if line is not None:
                    yield line

    def _logical_line(self, comments: tuple[str, ...]) -> Line | None:
        first = self._position + 1
        text, continued = self._next()
        text = text.lstrip()
        gap = False
        while continued and self._position < len(self._physical):
            blank = self._physical[self._position].strip()
            if not blank or blank.startswith("#"):
                gap = gap or not blank
                self._position += 1
                continue
            more, continued = self._next()
            text += more
        if gap:
            self.warnings.append(f"Empty continuation line found in:\n    {text}")
        if not text.strip():
            return None
        heredocs = tuple(self._heredocs(text, first))
        return Line(first, self._position, text.strip(_BLANKS), heredocs, comments)

    def _next(self) -> tuple[str, bool]:
        line = self._physical[self._position].rstrip("\r")
        self._position += 1
        cut = self._continued.sub("", line)
        return cut, cut != line

    def _heredocs(self, text: str, first: int) -> Iterator[Heredoc]:
        if "<<" not in text or not _may_have_heredoc(text):
            return
        try:
            words = self._lexer.split(text, {})
        except SyntaxProblem:
            return
        for word in words:
            opening = heredoc_of(word, self._lexer.escape)
            if opening is not None:
                yield self._body(opening, first)

    def _body(self, opening: Heredoc, first: int) -> Heredoc:
        raw: list[str] = []
        while self._position < len(self._physical):
            line = self._physical[self._position]
            self._position += 1
            end = line.rstrip("\r")
            if (end.lstrip("\t") if opening.chomp else end) == opening.name:
                text = "".join(line.lstrip("\t") for line in raw) if opening.chomp else "".join(raw)
                return Heredoc(opening.name, text, "".join(raw), opening.expand, opening.chomp, opening.descriptor)
            raw.append(line + "\n")
        raise DockerfileError("unterminated heredoc", line=first, file=self._file)


def heredoc_of(word: str, escape: str = "\\") -> Heredoc | None:
    """Return the here-document that `word` (such as `3<<-"EOF"`) opens, without its text, or None."""
    match = _HEREDOC.match(word)
    if match is None:
        return None
    try:
        names = Lexer(escape, keep_unset=True).split(match[3], {})
    except SyntaxProblem:
        return None
    if len(names) != 1:
        return None
    quoted = any(mark in match[3] for mark in "'\"" + escape)
    return Heredoc(names[0], "", "", not quoted, match[2] == "-", match[1])


def _may_have_heredoc(text: str) -> bool:
    words = text.split(None, 2)
    if words[0].upper() == "ONBUILD" and len(words) > 1:
        words = words[1:]
    if words[0].upper() not in _HEREDOC_INSTRUCTIONS:
        return False
    rest = text.split(words[0], 1)[1].lstrip()
    while rest.startswith("--"):
        rest = rest.partition(" ")[2].lstrip()
    return not (rest.startswith("[") and rest.rstrip().endswith("]"))
