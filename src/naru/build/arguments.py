"""The text after an instruction's name → flags and arguments.

Pure text work, one function per shape of arguments: `--flags`, JSON array, `name=value` pairs, blank-separated
words. Quotes inside pairs stay in; they are taken off when variables are replaced. Dockerfile reference, "Format".
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from naru.build.syntax import SyntaxProblem, did_you_mean

_BLANKS = re.compile(r"[ \t\v\f\r]+")
_WORD_PARTS = "'\""


def split_flags(text: str, escape: str = "\\") -> tuple[list[str], str]:
    """Return the leading `--flag[=value]` words of `text`, quotes taken off, and the rest. `--` ends the flags."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        flag, position = _flag_word(text, position, escape)
        if flag == "--":
            return flags, text[position:].lstrip()
        flags.append(flag)


def _flag_word(text: str, position: int, escape: str) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while position < len(text):
        character = text[position]
        position += 1
        if character == escape and quote != "'" and position < len(text):
            character = text[position]
            position += 1
            word.append(character)
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in _WORD_PARTS:
            quote = character
        elif character.isspace():
            break
        else:
            word.append(character)
    return "".join(word), position


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of one instruction, checked against those it knows."""

    texts: dict[str, str]
    lists: dict[str, tuple[str, ...]]
    bools: dict[str, bool]

    def text(self, name: str) -> str:
        return self.texts.get(name, "")

    def list(self, name: str) -> tuple[str, ...]:
        return self.lists.get(name, ())

    def is_set(self, name: str) -> bool:
        return self.bools.get(name, False)


def parse_flags(
    words: list[str], *, texts: Collection[str] = (), lists: Collection[str] = (), bools: Collection[str] = ()
) -> Flags:
    """Return the values of `words`. SyntaxProblem: unknown, given twice, without its value, or not a boolean."""
    flags = Flags({}, {}, {})
    known = [*texts, *lists, *bools]
    for word in words:
        name, separator, value = word[2:].partition("=")
        if name not in known:
            raise SyntaxProblem(f"unknown flag: --{name}{did_you_mean(name, known)}")
        if name in flags.texts or name in flags.bools:
            raise SyntaxProblem(f"duplicate flag specified: --{name}")
        if (separator and not value) if name in bools else not separator:
            raise SyntaxProblem(f"missing a value on flag: --{name}")
        if name in texts:
            flags.texts[name] = value
        elif name in lists:
            flags.lists[name] = (*flags.list(name), value)
        else:
            flags.bools[name] = _boolean(name, value)
    return flags


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("", "true", "false"):
        raise SyntaxProblem(f"expecting boolean value for flag --{name}, not: {value}")
    return value.lower() != "false"


def json_array(text: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array, or None where `text` is not one (it is then shell form).

    SyntaxProblem: an array with something else than strings in it.
    """
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, list):
        return None
    if not all(isinstance(value, str) for value in values):
        raise SyntaxProblem("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(values)


def blank_separated(text: str) -> tuple[str, ...]:
    """Return the words of `text`; quotes mean nothing here."""
    return tuple(word for word in _BLANKS.split(text) if word)


def quoted_words(text: str, escape: str = "\\") -> list[str]:
    """Return the words of `text`, blanks inside quotes kept together and the quotes left in."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    started = False
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if not quote and character.isspace():
            if started:
                words.append("".join(word))
            word, started = [], False
            continue
        if character == escape and quote != "'":
            if position == len(text):
                break
            word += [character, text[position]]
            position += 1
        else:
            if quote:
                quote = "" if character == quote else quote
            elif character in _WORD_PARTS:
                quote = character
            word.append(character)
        started = True
    if started:
        words.append("".join(word))
    return words


def name_values(text: str, instruction: str, escape: str = "\\") -> tuple[tuple[str, str], ...]:
    """Return the pairs of `name=value …`, or the one pair of the old `name value` form."""
    words = quoted_words(text, escape)
    if not words:
        raise SyntaxProblem(f"{instruction} requires at least one argument")
    if "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) < 2 or not parts[1]:
            raise SyntaxProblem(f"{instruction} must have two arguments")
        return ((parts[0], parts[1]),)
    pairs = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise SyntaxProblem(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise SyntaxProblem(f"{instruction} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)
