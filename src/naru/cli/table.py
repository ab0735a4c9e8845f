"""Lists as Docker's CLI prints them: columns, `--format` templates, JSON lines, bare identifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naru.cli.flags import UsageError
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from naru.template.template import Template
    from naru.template.values import Row

_LEAST_WIDTH = 10
_GAP = 3


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Return a list's lines of cells as text, as wide as Docker's."""
    return aligned(lines, least=_LEAST_WIDTH, gap=_GAP)


def aligned(lines: Sequence[Sequence[str]], *, least: int, gap: int) -> str:
    """Return lines of cells as text: columns of `least` width, or of the widest cell and a gap; the last as it is."""
    count = max((len(line) for line in lines), default=0)
    widths = [
        max(least, *(_width(line[index]) + gap for line in lines if len(line) > index)) for index in range(count - 1)
    ]
    text = []
    for line in lines:
        cells = [cell + " " * (widths[index] - _width(cell)) for index, cell in enumerate(line[:-1])]
        text.append("".join([*cells, *line[-1:]]) + "\n")
    return "".join(text)


def print_rows(
    rows: Sequence[Row],
    headers: Mapping[str, str],
    default: Sequence[str],
    form: str,
    *,
    raw: Mapping[str, str] | None = None,
    quiet: str = "",
) -> None:
    """Print rows by `--format`: "" or `table` for the `default` fields, `table TEMPLATE`, `json`, or a template.

    `raw`: label to field for the format of that name, where a list has it. `quiet`: the field to print alone where no
    template is given. InvalidArgument: the template is wrong, in Docker's words.
    """
    form = form.replace("\\t", "\t").replace("\\n", "\n")
    if quiet and form in ("", "table"):
        for row in rows:
            print(row[quiet])
        return
    if form == "raw" and raw is not None:
        _print_raw(rows, {label: field for label, field in raw.items() if quiet in ("", field)}, is_short=bool(quiet))
        return
    if form in ("", "table"):
        lines = [[headers[field] for field in default]]
        lines += [[row.cell(field) for field in default] for row in rows]
        print(columns(lines), end="")
        return
    from naru.template.template import Template, TemplateError
    from naru.template.values import Headers

    is_table = form.startswith("table")
    body = form.removeprefix("table").strip(" ") if is_table else form
    try:
        template = Template("{{json .}}" if body == "json" else body, offset=len(form) - len(body))
    except TemplateError as error:
        raise InvalidArgument(f"failed to parse template: {error}") from None
    try:
        texts = [template.render(row) for row in rows]
        if is_table:
            titles = Headers(headers)
            titles["Label"] = lambda name: name  # `{{.Label "role"}}` heads its column by the label's name
            texts.insert(0, template.render(titles, is_header=True))
    except TemplateError as error:
        raise InvalidArgument(f"failed to execute template: {error}") from None
    if is_table:
        print(columns([line.split("\t") for text in texts for line in text.split("\n")]), end="")
    else:
        for text in texts:
            print(text)


def _print_raw(rows: Sequence[Row], fields: Mapping[str, str], *, is_short: bool) -> None:
    for row in rows:
        for label, field in fields.items():
            print(f"{label}: {row.cell(field)}".rstrip())
        if not is_short:
            print()


def print_value(value: Any, form: str, *, prefix: str = "template parsing error: ") -> None:
    """Print one document by a template; `json` is short for the template `{{json .}}`."""
    print(rendered(value, form, prefix=prefix))


def rendered(value: Any, form: str, *, prefix: str = "template parsing error: ") -> str:
    """Return one document as a template shows it. NotATemplate; InvalidArgument: it does not fit the document."""
    from naru.template.template import TemplateError

    template = parsed("{{json .}}" if form == "json" else form)
    try:
        return template.render(value)
    except TemplateError as error:
        raise InvalidArgument(f"{prefix}{error}") from None


def parsed(form: str) -> Template:
    """Return the template of one document. NotATemplate: it cannot be parsed."""
    from naru.template.template import Template, TemplateError

    try:
        return Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise NotATemplate(f"template parsing error: {error}") from None


class NotATemplate(InvalidArgument):
    """A document's --format cannot be parsed; the exit code is Docker's for this."""

    exit_code = 64


def filters(given: Sequence[str], label: str = "-f, --filter") -> dict[str, dict[str, bool]] | None:
    """Return the values of the flag `label` as the API takes filters. UsageError: one is not `name=value`."""
    found: dict[str, dict[str, bool]] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise UsageError(f'invalid argument "{one}" for "{label}" flag: bad format of filter (expected name=value)')
        found.setdefault(name.strip().lower(), {})[value.strip()] = True
    return found or None


def shortened(text: str, width: int) -> str:
    """Return `text` cut to `width` columns, with an ellipsis if it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(identifier: str) -> str:
    """Return an ID's first 12 digits, without its algorithm."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]


def yes(value: object) -> str:
    """Return a truth as Go prints it."""
    return "true" if value else "false"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
