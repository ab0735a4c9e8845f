"""Answers as templates see them: zero values, Go's printing and encoding; and the CLI's tables about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from naru.cli import commands
from naru.cli.command import Call
from naru.cli.config_file import ConfigFile
from naru.cli.documents import document
from naru.cli.environment import with_proxies
from naru.cli.examples import EXAMPLES
from naru.cli.flags import UsageError, Values
from naru.cli.manual import with_commands
from naru.client.address import resolve
from naru.errors import NaruError
from naru.template.template import Template, TemplateError
from naru.template.values import go_duration

CONTAINER = {
    "Id": "abc",
    "State": {"Running": True, "Status": "running"},
    "HostConfig": {"Binds": None, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}, "Init": None},
    "Config": {"Labels": {"b": "2", "a": "1"}, "Healthcheck": {"Test": ["CMD", "x"], "Interval": 90_000_000_000}},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}} {{.Id}} {{.RestartCount}}", "abc abc 0"),
        ("{{.HostConfig.Binds}} {{json .HostConfig.Binds}} {{len .HostConfig.Binds}}", "[] null 0"),
        ("{{.State.Health}} {{json .State.Health}}", "<nil> null"),
        ("{{if .State.Health}}x{{else}}no check{{end}}", "no check"),
        ("{{.State}}", "{running true false false false false 0 0    <nil>}"),
        ("{{.HostConfig.PortBindings}}", "map[80/tcp:[{ 80}]]"),
        ("{{.Config.Healthcheck}} {{.Config.Healthcheck.Interval}}", "{[CMD x] 1m30s 0s 0s 0s 0} 1m30s"),
        ("{{json .Config.Healthcheck}}", '{"Test":["CMD","x"],"Interval":90000000000}'),
        ('{{index .Config.Labels "a"}}{{index .Config.Labels "none"}}{{.Config.Labels.none}}', "1<no value>"),
        ("{{json .Config.Labels}} {{.Mounts}} {{.SizeRw}}", '{"a":"1","b":"2"} [] <nil>'),
    ],
)
def test_a_container_is_seen_as_by_docker(template: str, text: str) -> None:
    assert Template(template).render(document("Container", CONTAINER)) == text


def test_fields_are_encoded_in_dockers_order_and_new_ones_last() -> None:
    sent = {"New": 1, "Scope": "local", "Name": "data", "Driver": "local"}
    assert list(json.loads(Template("{{json .}}").render(document("Volume", sent)))) == [
        "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope", "New",
    ]  # fmt: skip


def test_times_lose_their_zeros() -> None:
    network = document("Network", {"Created": "2026-01-02T03:04:05.120000Z"})
    assert Template("{{.Created}}").render(network) == "2026-01-02 03:04:05.12 +0000 UTC"
    assert '"Created":"2026-01-02T03:04:05.12Z"' in Template("{{json .}}").render(network)


def test_what_docker_knows_no_field_of_is_an_error() -> None:
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*events.Message"):
        Template("{{.Foo}}").render(document("Event", {"id": "a"}, kind="*events.Message"))
    with pytest.raises(TemplateError, match='map has no entry for key "Health"'):
        Template("{{.State.Health.Status}}").render(document("Container", CONTAINER))


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1_500_000_000, "1.5s"), (20_000_000, "20ms"), (3_600_000_000_000, "1h0m0s"), (1_500, "1.5µs")],
)
def test_durations_are_told_as_go_tells_them(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


def test_templates_may_be_named() -> None:
    assert Template('{{define "x"}}<{{.}}>{{end}}{{template "x" .a}}{{block "y" .b}}[{{.}}]{{end}}').render(
        {"a": 1, "b": 2}
    ) == ("<1>[2]")


def test_every_command_has_examples_and_they_belong_to_commands() -> None:
    assert set(EXAMPLES) == {path for path in commands.COMMANDS if not path.startswith("_")}


def test_the_examples_flags_are_the_commands_flags() -> None:
    lines = [(path, line.split("|")[0].split(">")[0]) for path, lines in EXAMPLES.items() for line, _ in lines]
    assert {path: problem for path, line in lines if (problem := _problem(path, line))} == {}


def _problem(path: str, line: str) -> str:
    import shlex

    command = commands.load(path)
    values = Values(command.flags)
    try:
        command.check_count(path, values.parse(shlex.split(line.split("<")[0]), interspersed=command.interspersed))
    except UsageError as error:
        return str(error)
    return ""


def test_the_manuals_list_of_commands_is_up_to_date() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/naru.md").read_text()
    assert page == with_commands(page), "run ./dev manual"


def test_a_mistyped_flag_is_told_with_those_that_are_like_it() -> None:
    with pytest.raises(UsageError) as raised:
        Values(commands.load("container run").flags).parse(["--detatch"], interspersed=False)
    assert list(raised.value.similar) == ["--detach"]


def test_proxies_and_headers_come_from_the_settings(tmp_path: Path) -> None:
    proxies = {"default": {"httpProxy": "http://p"}, "tcp://far": {"allProxy": "socks://q"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies, "HttpHeaders": {"X-Me": "1"}}))
    config = ConfigFile(str(tmp_path))
    assert config.proxies("unix:///here") == {"HTTP_PROXY": "http://p", "http_proxy": "http://p"}
    assert config.proxies("tcp://far") == {"ALL_PROXY": "socks://q", "all_proxy": "socks://q"}
    assert config.headers() == {"X-Me": "1"}
    assert with_proxies(["HTTP_PROXY=mine"], config.proxies("x")) == ["HTTP_PROXY=mine", "http_proxy=http://p"]


def test_the_settings_and_the_environment_reach_every_request(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"X-Me": "1"}}))
    command = commands.load("container ls")

    def headers(environment: dict[str, str]) -> dict[str, str]:
        call = Call(
            command,
            name="ps",
            flags=Values(command.flags),
            arguments=[],
            context=lambda _: "default",
            address=lambda _: resolve("unix:///nowhere", {}),
            config_directory=str(tmp_path),
            environment=environment,
        )
        return call.connect().headers

    assert headers({}) == {"X-Me": "1"}
    assert headers({"DOCKER_CUSTOM_HEADERS": 'a=b,"c=d,e"'}) == {"a": "b", "c": "d,e"}


def test_the_settings_filters_for_prunes_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pruneFilters": ["label!=keep"]}))
    assert ConfigFile(str(tmp_path)).prune_filters() == ["label!=keep"]


def test_settings_that_cannot_be_read_are_warned_of_and_not_overwritten(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"psFormat": ')
    config = ConfigFile(str(tmp_path))
    assert config.text("psFormat") == ""
    assert capfd.readouterr().err.startswith(f"WARNING: Error parsing config file ({tmp_path}/config.json): ")
    with pytest.raises(NaruError, match="is not what it should be"):
        config.set("currentContext", "web")
    assert (tmp_path / "config.json").read_text() == '{"psFormat": '
