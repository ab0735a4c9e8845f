"""`naru search`: images of a registry."""

from __future__ import annotations

from naru.cli import reference
from naru.cli.command import Call, Command
from naru.cli.config_file import encoded
from naru.cli.flags import BOOL, INT, LIST, STRING, Flag
from naru.cli.table import filters, print_rows, shortened
from naru.template.values import Row

_HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}


class SearchRow(Row):
    """One image found."""

    kind = "*formatter.searchContext"


def run(call: Call) -> None:
    """Search by a term."""
    flags, term = call.flags, call.arguments[0]
    credential = call.config.credentials(reference.registry(term))
    query = {"term": term, "limit": flags.number("limit") or None, "filters": filters(flags.many("filter"))}
    headers = {"X-Registry-Auth": encoded(credential)} if credential else None
    with call.client.open("GET", "/images/search", query, headers=headers) as response:
        import json

        found = json.loads(response.read())
    rows = []
    for item in found:
        text = " ".join(str(item.get("description") or "").split())
        rows.append(
            SearchRow(
                Name=item["name"],
                Description=text if flags.on("no-trunc") else shortened(text, 45),
                StarCount=str(item.get("star_count", 0)),
                IsOfficial="[OK]" if item.get("is_official") else "",
            )
        )
    print_rows(rows, _HEADERS, list(_HEADERS), flags.text("format"))


COMMANDS = (
    Command(
        "search",
        "[OPTIONS] TERM",
        "Search a registry for images.",
        run,
        (
            Flag("filter", "f", LIST, "Only those that match (is-official=true)", shown="filter"),
            Flag("format", "", STRING, "table, json, 'table TEMPLATE' or a Go TEMPLATE"),
            Flag("limit", "", INT, "Most results"),
            Flag("no-trunc", "", BOOL, "Do not shorten anything"),
        ),
        count=(1, 1),
    ),
)
