"""Flags are read as the Docker CLI reads them, and mistakes are told in its words."""

from __future__ import annotations

import pytest

from naru.cli.container_flags import RUN_FLAGS
from naru.cli.flags import STRINGS, Flag, UsageError, Values, describe


def _run_flags(*arguments: str) -> tuple[Values, list[str]]:
    values = Values(RUN_FLAGS)
    return values, values.parse(arguments, interspersed=False)


def test_short_flags_combine_and_the_last_may_take_a_value() -> None:
    values, rest = _run_flags("-ditp", "80:80", "redis")
    assert (values.on("detach"), values.on("interactive"), values.on("tty")) == (True, True, True)
    assert (values.many("publish"), rest) == (["80:80"], ["redis"])


def test_a_value_may_stand_apart_after_equals_or_stick_to_a_short_flag() -> None:
    values, _ = _run_flags("--name", "a", "--hostname=b", "-eX=1", "-e=Y=2", "-e", "Z=3")
    assert (values.text("name"), values.text("hostname")) == ("a", "b")
    assert values.many("env") == ["X=1", "Y=2", "Z=3"]


def test_a_value_may_begin_with_a_dash() -> None:
    values, rest = _run_flags("--memory-swap", "-1", "--entrypoint", "-x", "redis")
    assert (values.number("memory-swap"), values.text("entrypoint"), rest) == (-1, "-x", ["redis"])


def test_booleans_take_a_value_only_after_equals() -> None:
    values, rest = _run_flags("--rm=false", "--init", "false")
    assert (values.on("rm"), values.given("rm"), values.on("init"), rest) == (False, True, True, ["false"])


def test_flags_after_the_image_belong_to_the_command() -> None:
    values, rest = _run_flags("-d", "redis", "redis-server", "--save", "60", "-d")
    assert rest == ["redis", "redis-server", "--save", "60", "-d"]
    assert not values.given("name")


def test_elsewhere_flags_may_follow_arguments_until_two_dashes() -> None:
    values = Values((Flag("force", "f"),))
    assert values.parse(["a", "-f", "--", "-b"], interspersed=True) == ["a", "-b"]
    assert values.on("force")


def test_comma_separated_values_add_up() -> None:
    values = Values((Flag("alias", "", STRINGS),))
    values.parse(["--alias", "a,b", "--alias", "c"], interspersed=True)
    assert values.many("alias") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-dZ"], "unknown shorthand flag: 'Z' in -Z"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["-m", "12x"], 'invalid argument "12x" for "-m, --memory" flag: invalid suffix: \'x\''),
        (
            ["--cpu-shares=abc"],
            'invalid argument "abc" for "-c, --cpu-shares" flag: strconv.ParseInt: parsing "abc": invalid syntax',
        ),
        (["-t=foo"], 'invalid argument "foo" for "-t, --tty" flag: strconv.ParseBool: parsing "foo": invalid syntax'),
    ],
)
def test_mistakes_are_told_in_dockers_words_and_exit_with_125(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        _run_flags(*arguments)
    assert (str(raised.value), raised.value.exit_code) == (message, 125)


def test_help_wraps_and_leaves_out_what_is_hidden() -> None:
    flags = (Flag("hidden", is_hidden=True), Flag("name", "n", "string", "one two three four five six seven"))
    assert describe(flags, 44) == [
        "  -n, --name string   one two three four five",
        "                      six seven",
    ]
