"""`--format` is a Go template on JSON, with Go's output and Docker's errors."""

from __future__ import annotations

import pytest

from naru.template.template import Template, TemplateError
from naru.template.values import Headers, Row

CONTAINER = {
    "Id": "abc",
    "Name": "/web",
    "State": {"Status": "running", "Running": True, "Pid": 42, "Error": ""},
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"b": "2", "a": "1"}, "Cmd": None},
    "NetworkSettings": {"Networks": {"front": {"IPAddress": "10.0.0.2"}, "back": {"IPAddress": "10.0.1.2"}}},
    "Ports": {"80/tcp": [{"HostPort": "8080"}]},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Id}} {{.State.Status}}", "abc running"),
        ("{{json .Config.Env}}", '["A=1","B=2"]'),
        (
            "{{.Config.Env}} {{.Config.Labels}} {{.Config.Cmd}} {{.State.Running}}",
            "[A=1 B=2] map[a:1 b:2] <no value> true",
        ),
        ("{{range .Config.Env}}{{.}};{{end}}", "A=1;B=2;"),
        ("{{range $i, $e := .Config.Env}}{{$i}}={{$e}} {{end}}", "0=A=1 1=B=2 "),
        (
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}:{{$v.IPAddress}} {{end}}",
            "back:10.0.1.2 front:10.0.0.2 ",
        ),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.1.210.0.0.2"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .State.Status "exited" "running"}}yes{{else if .Id}}id{{end}}', "yes"),
        ('{{if eq .State.Status "dead"}}a{{else if eq .Id "abc"}}b{{else}}c{{end}}', "b"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}", "no check"),
        ("{{with .State}}{{.Pid}}{{end}}", "42"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{index .Config.Env 1}} {{len .Config.Env}} {{slice .Id 1}}", "B=2 2 bc"),
        ('{{join .Config.Env ","}} {{upper .Id}} {{title "ab cd"}} {{split "a:b" ":"}}', "A=1,B=2 ABC Ab Cd [a b]"),
        ("{{and .Id .Name}} {{or .State.Error .Id}} {{not .State.Error}}", "/web abc true"),
        ('{{if and (gt .State.Pid 1) (ne .Id "x")}}ok{{end}}', "ok"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("{{ $x := .Id }}{{ $x }}{{ $.Name }}", "abc/web"),
        ('{{range .Config.Env}}{{if eq . "B=2"}}{{break}}{{end}}{{.}}{{end}}', "A=1"),
        ("{{println .Id}}", "abc\n"),
        ("{{pad .Id 1 2}}|{{truncate .Id 2}}", " abc  |ab"),
        ('{{"}}"}}', "}}"),
    ],
)
def test_a_template_gives_what_go_gives(template: str, text: str) -> None:
    assert Template(template).render(CONTAINER) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Id.Foo}}", 'template: :1:5: executing "" at <.Id.Foo>: can\'t evaluate field Foo in type string'),
    ],
)
def test_a_field_that_is_not_there_is_an_error(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        Template(template).render(CONTAINER)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.ID", "template: :1: unclosed action"),
        ("{{nosuch .Id}}", 'template: :1: function "nosuch" not defined'),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
    ],
)
def test_what_is_no_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        Template(template)
    assert str(raised.value) == message


def test_a_row_names_its_type_and_its_methods_take_arguments() -> None:
    row = Row(ID="abc", Label=lambda name: {"a": "1"}.get(name, ""))
    assert Template('{{.ID}} {{.Label "a"}}').render(row) == "abc 1"
    assert Template("{{json .}}").render(row) == '{"ID":"abc"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*formatter.Context"):
        Template("{{.Foo}}").render(row)


def test_a_header_shows_titles_through_any_function() -> None:
    headers = Headers({"ID": "CONTAINER ID"})
    assert Template("{{upper .ID}}\t{{.Foo}}").render(headers, is_header=True) == "CONTAINER ID\t<no value>"
