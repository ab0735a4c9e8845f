"""Go templates (`--format`, `--log-opt tag`): a parser and an evaluator for the part that Docker's users write.

Text and actions `{{…}}` with trim markers and comments; fields, variables, literals, calls, pipelines; if, range, with,
else, break, continue; define, template, block. Values are JSON's, and those of `values`. Go, text/template
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from naru.errors import InvalidArgument
from naru.template.functions import FUNCTIONS, is_true
from naru.template.values import NIL, Headers, Missing, Row, Struct, Texts, go_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Evaluate = Callable[["Scope"], Any]
    Write = Callable[["Scope", list[str]], None]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<char>'(?:[^'\\]|\\.)+')|(?P<number>[-+]?\d[\w.]*)
    |(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<dot>\.)|(?P<variable>\$\w*)|(?P<name>[A-Za-z_]\w*)|(?P<sign>:=|[=|(),]))""",
    re.VERBOSE,
)
_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?(?P<body>(?:\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`|/\*.*?\*/|[^\"`])*?)\}\}", re.DOTALL
)


class TemplateError(InvalidArgument):
    """The template is wrong, or does not fit the data."""


class Scope:
    """The dot, the variables, and the functions of one point of the evaluation."""

    __slots__ = ("dot", "functions", "variables")

    def __init__(self, dot: Any, variables: list[tuple[str, Any]], functions: Mapping[str, Callable[..., Any]]) -> None:
        self.dot = dot
        self.variables = variables
        self.functions = functions

    def get(self, name: str) -> Any:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise TemplateError(f'undefined variable "{name}"')

    def put(self, name: str, value: Any, *, is_new: bool) -> None:
        if is_new:
            self.variables.append((name, value))
            return
        for index in range(len(self.variables) - 1, -1, -1):
            if self.variables[index][0] == name:
                self.variables[index] = (name, value)
                return
        raise TemplateError(f'undefined variable "{name}"')


class _Break(Exception): ...


class _Continue(Exception): ...


class Template:
    """A parsed template. `render` may be called any number of times."""

    def __init__(self, text: str, *, offset: int = 0) -> None:
        """`offset`: what errors count before `text`. TemplateError: it cannot be parsed."""
        self._items = [(item, column + offset, is_action) for item, column, is_action in _items(text)]
        self._position = 0
        self._named: dict[str, list[Write]] = {}
        self._body, end = self._list()
        if end:
            raise TemplateError(f"template: :1: unexpected {{{{{end}}}}}")

    def render(self, data: Any, *, is_header: bool = False) -> str:
        """Return the text for `data`; `is_header`: functions let through what they are given."""
        functions = FUNCTIONS
        if is_header:
            functions = {**FUNCTIONS, **dict.fromkeys(_TRANSPARENT, _first)}
        parts: list[str] = []
        try:
            _write(self._body, Scope(data, [("$", data)], functions), parts)
        except (_Break, _Continue):
            raise TemplateError("template: :1: break or continue outside range") from None
        return "".join(parts)

    def _list(self) -> tuple[list[Write], str]:
        """Parse to the end, or to an `end`, `else` or `else if` of an outer action, which is returned."""
        nodes: list[Write] = []
        while self._position < len(self._items):
            text, column, is_action = self._items[self._position]
            self._position += 1
            if not is_action:
                nodes.append(_literal(text))
                continue
            tokens = Tokens(text, column)
            word = tokens.word()
            if word in ("end", "else"):
                return nodes, text.strip()
            if word in ("if", "with", "range"):
                tokens.next()
                if not tokens.peek()[0]:
                    raise TemplateError(f"template: :1: missing value for {word}")
                nodes.append(self._block(word, tokens))
            elif word in ("break", "continue"):
                nodes.append(_raise(_Break if word == "break" else _Continue))
            elif word in ("define", "template", "block"):
                nodes += self._template(word, tokens)
            else:
                nodes.append(_action(tokens))
        return nodes, ""

    def _template(self, word: str, tokens: Tokens) -> list[Write]:
        """Parse `define "name"`, `template "name" pipeline` or `block "name" pipeline`, which is both."""
        tokens.next()
        kind, text, _, _ = tokens.next()
        if kind != "string":
            raise TemplateError(f"template: :1: unexpected <{text}> in {word} clause")
        name = str(_constant(kind, text))
        pipeline = None
        if word != "define" and tokens.peek()[0]:
            pipeline = parse_pipeline(tokens)
        tokens.finish()
        if word != "template":
            body, end = self._list()
            if end != "end":
                raise TemplateError("template: :1: unexpected EOF")
            self._named[name] = body
        return [] if word == "define" else [self._invocation(name, pipeline)]

    def _invocation(self, name: str, pipeline: Evaluate | None) -> Write:
        def write(scope: Scope, parts: list[str]) -> None:
            if name not in self._named:
                raise TemplateError(f'template: :1: template "{name}" not defined')
            dot = None if pipeline is None else pipeline(scope)
            _write(self._named[name], Scope(dot, [("$", dot)], scope.functions), parts)

        return write

    def _block(self, word: str, tokens: Tokens) -> Write:
        names: list[str] = []
        if word == "range":
            names = tokens.range_variables()
        pipeline = parse_pipeline(tokens)
        tokens.finish()
        body, end = self._list()
        otherwise: list[Write] = []
        if end == "else":
            otherwise, end = self._list()
        elif end.startswith("else"):
            inner = Tokens(end.removeprefix("else"), 1)
            otherwise = [self._block(str(inner.next()[1]), inner)]
            end = "end"
        if end != "end":
            raise TemplateError("template: :1: unexpected EOF")
        return _range(pipeline, names, body, otherwise) if word == "range" else _choice(word, pipeline, body, otherwise)


class Tokens:
    """The tokens of one action, one at a time. `column` is where it stands, for messages."""

    def __init__(self, text: str, column: int) -> None:
        self.column = column
        self.items: list[tuple[str, str, bool, int]] = []  # kind, text, follows without space, column
        self.position = 0
        end = 0
        text = text.rstrip()
        while end < len(text):
            match = _TOKEN.match(text, end)
            if match is None or match.lastgroup is None:
                raise TemplateError(f"template: :1: unexpected {text[end:].strip()[:1]!r} in command")
            start = match.start(match.lastgroup)
            self.items.append((match.lastgroup, match[match.lastgroup], start == end and end > 0, column + start))
            end = match.end()

    def peek(self) -> tuple[str, str, bool, int]:
        return self.items[self.position] if self.position < len(self.items) else ("", "", False, self.column)

    def next(self) -> tuple[str, str, bool, int]:
        token = self.peek()
        self.position += 1
        return token

    def word(self) -> str:
        kind, text, _, _ = self.peek()
        return text if kind == "name" else ""

    def take(self, sign: str) -> bool:
        if self.peek()[:2] == ("sign", sign):
            self.position += 1
            return True
        return False

    def finish(self) -> None:
        if self.peek()[0]:
            raise TemplateError(f"template: :1: unexpected <{self.peek()[1]}> in command")

    def range_variables(self) -> list[str]:
        """Read `$i, $v :=` if it is there."""
        start, names = self.position, []
        while self.peek()[0] == "variable":
            names.append(self.next()[1])
            if self.take(":="):
                return names
            if not self.take(","):
                break
        self.position = start
        return []


def parse_pipeline(tokens: Tokens) -> Evaluate:
    """Parse `[$x :=] command | command …`."""
    start = tokens.position
    target, is_new = "", True
    if tokens.peek()[0] == "variable":
        name = tokens.next()[1]
        if tokens.take(":="):
            target = name
        elif tokens.take("="):
            target, is_new = name, False
        else:
            tokens.position = start
    commands = [_command(tokens)]
    while tokens.take("|"):
        commands.append(_command(tokens))

    def evaluate(scope: Scope) -> Any:
        value = commands[0](scope, [])
        for command in commands[1:]:
            value = command(scope, [value])
        if target:
            scope.put(target, value, is_new=is_new)
        return value

    evaluate.is_assignment = bool(target)  # type: ignore[attr-defined]
    return evaluate


def _command(tokens: Tokens) -> Callable[[Scope, list[Any]], Any]:
    if tokens.word() and tokens.word() not in ("true", "false", "nil"):
        name = tokens.next()[1]
        if name not in FUNCTIONS and name not in ("and", "or"):
            raise TemplateError(f'template: :1: function "{name}" not defined')
        operands = _operands(tokens)
        return lambda scope, last: _call(scope, name, operands, last)
    operands = _operands(tokens)
    if not operands:
        raise TemplateError("template: :1: missing value for command")
    head, *rest = operands

    def evaluate(scope: Scope, last: list[Any]) -> Any:
        value = head(scope)
        if callable(value):
            return value(*(operand(scope) for operand in rest), *last)
        if rest or last:
            raise TemplateError("template: :1: can't give argument to non-function")
        return value

    return evaluate


def _call(scope: Scope, name: str, operands: Sequence[Evaluate], last: list[Any]) -> Any:
    if name in ("and", "or"):
        value: Any = None
        for get in [*operands, *((lambda _, one=one: one) for one in last)]:
            value = get(scope)
            if is_true(value) != (name == "and"):
                return value
        return value
    values = [*(operand(scope) for operand in operands), *last]
    if name not in ("not", "eq", "ne", "len"):
        values = [_present(value) for value in values]
    else:
        values = [None if isinstance(value, Missing) else value for value in values]
    try:
        return scope.functions[name](*values)
    except TemplateError:
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise TemplateError(f'template: :1: executing "" at <{name}>: error calling {name}: {error}') from None


def _operands(tokens: Tokens) -> list[Evaluate]:
    found: list[Evaluate] = []
    while True:
        kind, text, _, _ = tokens.peek()
        if kind in ("", "sign") and text != "(":
            return found
        found.append(_operand(tokens))


def _operand(tokens: Tokens) -> Evaluate:
    kind, text, _, column = tokens.next()
    base: Evaluate
    if text == "(":
        base = parse_pipeline(tokens)
        if not tokens.take(")"):
            raise TemplateError("template: :1: unclosed left paren")
    elif kind == "field":
        return _fields(lambda scope: scope.dot, text, column)
    elif kind == "dot":
        base = lambda scope: scope.dot  # noqa: E731
    elif kind == "variable":
        name = text
        base = lambda scope: scope.get(name)  # noqa: E731
    elif kind == "name":
        if text not in ("true", "false", "nil"):
            function = text
            if function not in FUNCTIONS:
                raise TemplateError(f'template: :1: function "{function}" not defined')
            return lambda scope: _call(scope, function, (), [])
        constant = {"true": True, "false": False, "nil": None}[text]
        return lambda _: constant
    else:
        value = _constant(kind, text)
        return lambda _: value
    following, path, is_joined, column = tokens.peek()
    if following == "field" and is_joined:
        tokens.next()
        return _fields(base, path, column)
    return base


def _fields(base: Evaluate, path: str, column: int) -> Evaluate:
    names = path[1:].split(".")
    if len(names) > 1:
        column += 1 + len(names[0])  # where Go says it is: at the chain's second name

    def evaluate(scope: Scope) -> Any:
        value = base(scope)
        before = ""
        for name in names:
            if callable(value):
                value = value()
            if value is NIL:
                raise TemplateError(
                    f'template: :1:{column}: executing "" at <{path}>: map has no entry for key "{before}"'
                )
            value = _field(_present(value), name, path, column)
            before = name
        return value

    return evaluate


def _field(value: Any, name: str, path: str, column: int) -> Any:
    where = f'template: :1:{column}: executing "" at <{path}>: '
    if isinstance(value, Headers):
        return value.get(name, "<no value>")
    if isinstance(value, Mapping):
        key = value.named(name) if isinstance(value, Struct) else name
        if key in value:
            return value[key]
        if isinstance(value, (Row, Struct)) and value.kind:
            raise TemplateError(f"{where}can't evaluate field {name} in type {value.kind}")
        if isinstance(value, Texts):
            return None
        return Missing(f'{where}map has no entry for key "{name}"')
    if value is None:
        return Missing(f'{where}nil data; no entry for key "{name}"')
    raise TemplateError(f"{where}can't evaluate field {name} in type {_go_type(value)}")


def _present(value: Any) -> Any:
    if isinstance(value, Missing):
        raise TemplateError(value.message)
    return value


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return {str: "string", int: "int", float: "float64", list: "[]interface {}"}.get(type(value), "interface {}")


def _constant(kind: str, text: str) -> Any:
    if kind == "number":
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            raise TemplateError(f"template: :1: bad number syntax: {text!r}") from None
    if text.startswith("`"):
        return text[1:-1]
    if kind == "char":
        return ord(_unescaped(text[1:-1]))
    return _unescaped(text[1:-1])


def _unescaped(text: str) -> str:
    names = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

    def one(match: re.Match[str]) -> str:
        found = match[1]
        if found[0] in "xuU":
            return chr(int(found[1:], 16))
        return chr(int(found, 8)) if found.isdigit() else names.get(found, found)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", one, text)


def _items(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yield text and actions (their inside and column), trimmed as `{{-` and `-}}` say."""
    end, trims = 0, False
    while (start := text.find("{{", end)) >= 0:
        match = _ACTION.match(text, start)
        if match is None:
            raise TemplateError("template: :1: unclosed action")
        before = text[end:start]
        before = before.lstrip() if trims else before
        yield before.rstrip() if match["left"] else before, 0, False
        body = match["body"]
        trims = bool(re.search(r"\s-$", body))
        body = body[:-1] if trims else body
        if not (body.strip().startswith("/*") and body.strip().endswith("*/")):
            if not body.strip():
                raise TemplateError("template: :1: missing value for command")
            yield body, match.start("body"), True
        end = match.end()
    yield text[end:].lstrip() if trims else text[end:], 0, False


def _write(nodes: Sequence[Write], scope: Scope, parts: list[str]) -> None:
    for node in nodes:
        node(scope, parts)


def _literal(text: str) -> Write:
    return lambda _, parts: parts.append(text)


def _raise(kind: type[Exception]) -> Write:
    def write(_: Scope, __: list[str]) -> None:
        raise kind

    return write


def _action(tokens: Tokens) -> Write:
    pipeline = parse_pipeline(tokens)
    tokens.finish()
    is_silent = getattr(pipeline, "is_assignment", False)

    def write(scope: Scope, parts: list[str]) -> None:
        value = pipeline(scope)
        if not is_silent:
            value = _present(value)
            parts.append("<no value>" if value is None else go_text(value))

    return write


def _choice(word: str, pipeline: Evaluate, body: list[Write], otherwise: list[Write]) -> Write:
    def write(scope: Scope, parts: list[str]) -> None:
        inner = Scope(scope.dot, scope.variables, scope.functions)
        depth = len(scope.variables)
        value = pipeline(inner)
        chosen = is_true(value)
        if word == "with" and chosen:
            inner.dot = value
        _write(body if chosen else otherwise, inner, parts)
        del scope.variables[depth:]

    return write


def _range(pipeline: Evaluate, names: list[str], body: list[Write], otherwise: list[Write]) -> Write:
    def write(scope: Scope, parts: list[str]) -> None:
        pairs = _pairs(_present(pipeline(scope)))
        depth = len(scope.variables)
        for key, value in pairs:
            inner = Scope(value, scope.variables, scope.functions)
            if names:
                scope.variables += zip(names, (value,) if len(names) == 1 else (key, value), strict=True)
            try:
                _write(body, inner, parts)
            except _Continue:
                pass
            except _Break:
                del scope.variables[depth:]
                return
            del scope.variables[depth:]
        if not pairs:
            _write(otherwise, scope, parts)

    return write


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None or value is NIL:
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(index, index) for index in range(value)]
    raise TemplateError(f"range can't iterate over {go_text(value)}")


_TRANSPARENT = ("json", "split", "join", "title", "lower", "upper", "pad", "truncate", "println", "printf", "print")


def _first(*values: Any) -> Any:
    return values[0] if values else ""
