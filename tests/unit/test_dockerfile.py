"""The Dockerfile language: what a file says, and what is wrong with one that says nothing sensible.

Golden files: `dockerfiles/NAME.Dockerfile` and the instructions it holds in `NAME.tree`, one a line. To accept a
change, run with NARU_ACCEPT=1 and read the difference.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from naru.build.changes import changed
from naru.build.dockerfile import parse, parse_duration, parse_trigger
from naru.build.expand import GlobalScope, Scope, expand, platform_arguments
from naru.build.instructions import Copy, Env, Instruction, Run
from naru.build.run_mount import RunMount, parse_run_mount
from naru.build.stages import ImageRef, StageRef, needed_stages, source_of, target_stage
from naru.build.syntax import DockerfileError, SyntaxProblem
from naru.build.words import Lexer
from naru.errors import InvalidArgument
from naru.oci.image import ContainerConfig, Platform

GOLDEN = Path(__file__).parent / "dockerfiles"


def only(text: str) -> Instruction:
    """Return the one instruction of a stage made of `text`."""
    (stage,) = parse(b"FROM scratch\n" + text.encode()).stages
    (instruction,) = stage.instructions
    return instruction


def shown(value: object) -> str:
    """Return an instruction on one line, without what it leaves at its default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [
            f"{field.name.rstrip('_')}={shown(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if field.name != "source" and getattr(value, field.name) != field.default
        ]
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple):
        return f"[{', '.join(shown(item) for item in value)}]"
    return repr(value)


def tree_of(data: bytes) -> str:
    dockerfile = parse(data)
    lines = [f"directives {shown(dockerfile.directives)}"]
    lines += [f"{argument.source.first}: {shown(argument)}" for argument in dockerfile.arguments]
    for stage in dockerfile.stages:
        lines.append(f"{stage.base.source.first}: {shown(stage.base)}")
        lines += [f"    {i.source.first}-{i.source.last}: {shown(i)}" for i in stage.instructions]
    lines += [f"warning: {warning!r}" for warning in dockerfile.warnings]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_a_dockerfile_is_read_as_its_golden_tree(path: Path) -> None:
    tree = tree_of(path.read_bytes())
    golden = path.with_suffix(".tree")
    if os.environ.get("NARU_ACCEPT"):
        golden.write_text(tree)
    assert tree == golden.read_text()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "file with no instructions"),
        ("# only a comment\n", 1, "file with no instructions"),
        ("FROM scratch\nRUNN x", 2, "unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM scratch\n\n# c\ncpy a b", 4, "unknown instruction: cpy (did you mean COPY?)"),
        ("FROM scratch\nFROBNICATE x", 2, "unknown instruction: FROBNICATE"),
        ("RUN x", 1, "no build stage in current context"),
        ("FROM", 1, "FROM requires either one or three arguments"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        ("FROM a IS b", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 1, 'invalid name for build stage: "1b", name can\'t start with a number or contain symbols'),
        ("FROM --platfrom=x a", 1, "unknown flag: --platfrom (did you mean platform?)"),
        ("FROM scratch\nCOPY --fro=x a b", 2, "unknown flag: --fro (did you mean from?)"),
        ("FROM scratch\nCOPY --from a b", 2, "missing a value on flag: --from"),
        ("FROM scratch\nCOPY --from=a --from=b a b", 2, "duplicate flag specified: --from"),
        ("FROM scratch\nCOPY --link=maybe a b", 2, "expecting boolean value for flag --link, not: maybe"),
        (
            "FROM scratch\nCOPY a",
            2,
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM scratch\nCOPY a <<E\nx\nE", 2, "COPY cannot accept a heredoc as a destination"),
        ("FROM scratch\nRUN <<E\nx", 2, "unterminated heredoc"),
        ("FROM scratch\nRUN", 2, "RUN requires at least one argument"),
        ("FROM scratch\nRUN --network=hst x", 2, 'unsupported network mode "hst" (did you mean host?)'),
        ("FROM scratch\nRUN --security=x y", 2, 'unsupported security mode "x"'),
        ("FROM scratch\nRUN --mount=type=cash,target=/x y", 2, 'unsupported mount type "cash" (did you mean cache?)'),
        ("FROM scratch\nRUN [1, 2]", 2, "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM scratch\nENV", 2, "ENV requires at least one argument"),
        ("FROM scratch\nENV a", 2, "ENV must have two arguments"),
        (
            "FROM scratch\nENV a=b c",
            2,
            'Syntax error - can\'t find = in "c". Must be of the form: name=value',
        ),
        ("FROM scratch\nENV =b", 2, "ENV names can not be blank"),
        ("FROM scratch\nARG =b", 2, "ARG names can not be blank"),
        ("FROM scratch\nARG", 2, "ARG requires at least one argument"),
        ("FROM scratch\nLABEL", 2, "LABEL requires at least one argument"),
        ("FROM scratch\nWORKDIR", 2, "WORKDIR requires exactly one argument"),
        ("FROM scratch\nUSER", 2, "USER requires exactly one argument"),
        ("FROM scratch\nEXPOSE", 2, "EXPOSE requires at least one argument"),
        ("FROM scratch\nVOLUME", 2, "VOLUME requires at least one argument"),
        ('FROM scratch\nVOLUME [""]', 2, "VOLUME specified can not be an empty string"),
        ("FROM scratch\nSHELL", 2, "SHELL requires at least one argument"),
        ("FROM scratch\nSHELL sh -c", 2, "SHELL requires the arguments to be in JSON form: SHELL sh -c"),
        ("FROM scratch\nHEALTHCHECK", 2, "HEALTHCHECK requires at least one argument"),
        ("FROM scratch\nHEALTHCHECK NONE x", 2, "HEALTHCHECK NONE takes no arguments"),
        ("FROM scratch\nHEALTHCHECK CMD", 2, "Missing command after HEALTHCHECK CMD"),
        ("FROM scratch\nHEALTHCHECK TCP x", 2, 'Unknown type "TCP" in HEALTHCHECK (try CMD)'),
        ("FROM scratch\nHEALTHCHECK --retries=-1 CMD x", 2, "--retries cannot be negative (-1)"),
        ("FROM scratch\nHEALTHCHECK --interval=5 CMD x", 2, 'time: missing unit in duration "5"'),
        ("FROM scratch\nHEALTHCHECK --interval=1us CMD x", 2, 'Interval "interval" cannot be less than 1ms'),
        ("FROM scratch\nONBUILD", 2, "ONBUILD requires at least one argument"),
        ("FROM scratch\nONBUILD ONBUILD RUN x", 2, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM scratch\nONBUILD FROM x", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM scratch\nONBUILD RUNN x", 2, "unknown instruction: RUNN (did you mean RUN?)"),
        ("# escape=x\nFROM scratch", 1, "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM scratch", 2, "only one escape parser directive can be used"),
    ],
)
def test_a_wrong_dockerfile_is_refused_with_its_line_and_a_suggestion(text: str, line: int, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text.encode(), file="sub/Dockerfile")
    error = caught.value
    assert (error.line, error.reason, error.file) == (line, reason, "sub/Dockerfile")
    assert str(error) == f"dockerfile parse error on line {line}: {reason}"


def test_a_file_that_is_not_utf8_names_the_line() -> None:
    with pytest.raises(DockerfileError, match="on line 2: the file is not valid UTF-8"):
        parse(b"FROM scratch\nRUN \xff\n")


VARIABLES = {"a": "x", "e": "", "path": "/usr/local/bin/run.tar.gz", "sp": "one two", "star": "a*c"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a", "x"),
        ("${a}b", "xb"),
        ("$ab", ""),
        ("$a$a", "xx"),
        ("\\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a"', "x"),
        ('"\\$a"', "$a"),
        ('"a\\b"', "a\\b"),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("$1x", "x"),
        ("${a:-d}", "x"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${u-d}", "d"),
        ("${u:-$a}", "x"),
        ("${u:-'q q'}", "q q"),
        ("${a:+d}", "d"),
        ("${e:+d}", ""),
        ("${e+d}", "d"),
        ("${u+d}", ""),
        ("${a?gone}", "x"),
        ("${path#*/}", "usr/local/bin/run.tar.gz"),
        ("${path##*/}", "run.tar.gz"),
        ("${path%.*}", "/usr/local/bin/run.tar"),
        ("${path%%.*}", "/usr/local/bin/run"),
        ("${path#nothing}", "/usr/local/bin/run.tar.gz"),
        ("${path/local/share}", "/usr/share/bin/run.tar.gz"),
        ("${path//\\//-}", "-usr-local-bin-run.tar.gz"),
        ("${path/r?n/R}", "/usr/local/bin/R.tar.gz"),
        ("${star/\\*/+}", "a+c"),
        ("${star#a\\*}", "c"),
    ],
)
def test_a_word_is_expanded_as_a_shell_would(text: str, result: str) -> None:
    assert Lexer().expand(text, VARIABLES) == result


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${a", "unexpected end|missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${a:-x", "syntax error: missing '}'"),
        ("${a^}", r"unsupported modifier \(\^\) in substitution"),
        ("${u?}", "u: is not allowed to be unset"),
        ("${e:?}", "e: is not allowed to be empty"),
        ("${u:?set me}", "u: set me"),
        ("'x", "looking for matching single-quote"),
        ('"x', "looking for matching double-quote"),
        ("${a/x}", "missing '/' in"),
    ],
)
def test_a_malformed_word_says_what_is_missing(text: str, problem: str) -> None:
    with pytest.raises(SyntaxProblem, match=problem):
        Lexer().expand(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b", ["a", "b"]),
        ("$sp", ["one", "two"]),
        ('"$sp"', ["one two"]),
        ("a'b c'd", ["ab cd"]),
        ("a\\ b c", ["a b", "c"]),
        ("$u a", ["a"]),
    ],
)
def test_words_split_at_blanks_that_no_quote_holds(text: str, words: list[str]) -> None:
    assert Lexer().split(text, VARIABLES) == words


def test_a_backtick_can_be_the_escape_character() -> None:
    run = parse(b"# escape=`\nFROM scratch\nRUN dir C:\\ `\n  /s\n").stages[0].instructions[0]
    assert isinstance(run, Run)
    assert run.command.args == ("dir C:\\   /s",)


def test_directives_end_at_the_first_comment_that_is_none() -> None:
    dockerfile = parse(b"# hello\n# escape=`\nFROM scratch\nRUN a\\\n b\n")
    assert dockerfile.directives.escape == "\\"


def test_instructions_are_known_in_any_case_and_windows_lines_and_a_bom_are_taken() -> None:
    (stage,) = parse(b"\xef\xbb\xbffrom scratch\r\nrun a \\\r\n b\r\n").stages
    assert stage.instructions[0].source.text == "run a  b"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", RunMount(target="/x")),
        ("type=bind,from=s,src=/a,dst=/b,rw", RunMount(from_="s", source="/a", target="/b", read_only=False)),
        (
            "type=cache,id=c,target=/c,sharing=locked,uid=1,gid=2,mode=0700",
            RunMount("cache", "/c", read_only=False, id="c", sharing="locked", uid=1, gid=2, mode=0o700),
        ),
        ("type=cache,target=/c,readonly", RunMount("cache", "/c", read_only=True)),
        ("type=tmpfs,target=/t,size=1m", RunMount("tmpfs", "/t", read_only=False, size_bytes=1 << 20)),
        ("type=secret,id=k,required=true", RunMount("secret", id="k", required=True)),
        ("type=secret,id=k,env=KEY", RunMount("secret", id="k", env="KEY")),
        ("type=ssh", RunMount("ssh")),
        ('"target=/a,b"', RunMount(target="/a,b")),
    ],
)
def test_a_run_mount_is_read(text: str, mount: RunMount) -> None:
    assert parse_run_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type=bind", "target is required"),
        ("type=bind,target=/x,mode=1", 'mode not allowed for "bind" type mounts'),
        ("type=cache,target=/x,sharing=yes", 'unsupported sharing value "yes"'),
        ("type=bind,target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=secret", "one of source, target required"),
        ("type=secret,from=x,id=y", "secret mount should not have a from"),
        ("target=/x,tagret=/y", r"unexpected key 'tagret' in 'tagret=/y' \(did you mean target\?\)"),
        ("target=/x,from=$s", "'from' doesn't support variable expansion"),
        ("target=/x,readonly=maybe", "invalid value for readonly: maybe"),
        ("target=/x,hello", "invalid field 'hello' must be a key=value pair"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size: big"),
    ],
)
def test_a_wrong_run_mount_says_why(text: str, problem: str) -> None:
    with pytest.raises(SyntaxProblem, match=problem):
        parse_run_mount(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1m30s", 90 * 10**9), ("1.5s", 15 * 10**8), ("0", 0), ("2h", 7200 * 10**9)]
)
def test_a_duration_is_gos(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


# --- scopes -----------------------------------------------------------------------------------------------------------

AMD64 = Platform(os="linux", architecture="amd64")


def passed(text: str, **given: str) -> tuple[Scope, list[Instruction]]:
    """Pass the one stage of `text` as the solver does, and return its scope and expanded instructions."""
    dockerfile = parse(text.encode())
    scope = Scope(GlobalScope(dockerfile.arguments, given, platform_arguments(AMD64, AMD64)))
    expanded = []
    for written in dockerfile.stages[-1].instructions:
        instruction = expand(written, scope)
        expanded.append(instruction)
        if isinstance(instruction, Env):
            scope.environment.update(instruction.pairs)
        elif type(instruction).__name__ == "Arg":
            scope.declare(instruction)
    return scope, expanded


def test_a_global_argument_reaches_a_stage_only_when_declared_there() -> None:
    scope, _ = passed("ARG v=1\nARG w=2\nFROM scratch\nARG v\n")
    assert scope.variables == {"v": "1"}


def test_a_build_argument_wins_over_defaults_and_is_counted_as_used() -> None:
    scope, _ = passed("FROM scratch\nARG v=1\n", v="9", other="x")
    assert scope.variables == {"v": "9"}
    assert scope.global_scope.unused == ["other"]


def test_env_wins_over_arg_and_run_sees_no_argument_of_that_name() -> None:
    scope, _ = passed("FROM scratch\nENV v=env\nARG v=arg\n", v="given")
    assert scope.variables["v"] == "env"
    assert scope.run_arguments() == {}


def test_platform_arguments_exist_but_must_be_declared() -> None:
    assert passed("FROM scratch\n")[0].variables == {}
    assert passed("FROM scratch\nARG TARGETPLATFORM\n")[0].variables == {"TARGETPLATFORM": "linux/amd64"}
    scope = GlobalScope((), {}, platform_arguments(AMD64, AMD64))
    assert scope.expand("img-${TARGETARCH}", only("RUN x")) == "img-amd64"


def test_a_proxy_argument_reaches_run_undeclared_and_stays_out_of_what_is_cached() -> None:
    scope, _ = passed("FROM scratch\n", http_proxy="http://p")
    assert (scope.run_proxies(), scope.run_arguments()) == ({"http_proxy": "http://p"}, {})
    declared, _ = passed("FROM scratch\nARG http_proxy\n", http_proxy="http://p")
    assert (declared.run_proxies(), declared.run_arguments()) == ({}, {"http_proxy": "http://p"})


def test_all_pairs_of_one_env_see_the_environment_before_it() -> None:
    _, (_, env) = passed("FROM scratch\nENV a=1\nENV a=2 b=$a\n")
    assert isinstance(env, Env)
    assert env.pairs == (("a", "2"), ("b", "1"))


def test_copy_expands_paths_owner_and_unquoted_heredocs() -> None:
    _, (_, copy, quoted) = passed(
        "FROM scratch\nENV d=/x u=7\nCOPY --chown=$u a$u <<E ${d}/\nis '$d'\nE\nCOPY <<'E' /y\n$d\nE\n"
    )
    assert isinstance(copy, Copy)
    assert isinstance(quoted, Copy)
    assert (copy.sources, copy.destination, copy.chown, copy.inline[0].text) == (("a7",), "/x/", "7", "is '/x'\n")
    assert quoted.inline[0].text == "$d\n"


def test_a_malformed_variable_names_the_line_it_is_on() -> None:
    with pytest.raises(DockerfileError, match="on line 3: failed to process"):
        passed("FROM scratch\nENV a=1\nWORKDIR ${a\n")


def test_a_trigger_is_parsed_with_its_own_name_in_errors() -> None:
    assert isinstance(parse_trigger("RUN echo hi", image="base"), Run)
    with pytest.raises(DockerfileError, match="unknown instruction: RUNN"):
        parse_trigger("RUNN x", image="base")


# --- stages -----------------------------------------------------------------------------------------------------------

STAGES = b"""FROM a AS one
FROM b AS two
COPY --from=one / /
FROM c AS unused
FROM two AS last
RUN --mount=from=0,target=/x true
"""


def test_only_the_stages_that_the_target_uses_are_needed_users_last() -> None:
    dockerfile = parse(STAGES)
    bases = {stage.index: stage.base.image for stage in dockerfile.stages}
    assert needed_stages(dockerfile, target_stage(dockerfile, ""), bases) == [0, 1, 3]
    assert needed_stages(dockerfile, target_stage(dockerfile, "UNUSED"), bases) == [2]


def test_from_names_a_stage_by_name_or_number_or_else_an_image() -> None:
    dockerfile = parse(STAGES)
    assert source_of(dockerfile, "Two", line=1) == StageRef(1)
    assert source_of(dockerfile, "2", line=1) == StageRef(2)
    assert source_of(dockerfile, "debian:12", line=1) == ImageRef("debian:12")
    with pytest.raises(DockerfileError, match="invalid stage index 9"):
        source_of(dockerfile, "9", line=1)


def test_an_unknown_target_gets_a_suggestion() -> None:
    with pytest.raises(InvalidArgument, match=r'target stage "tow" could not be found \(did you mean two\?\)'):
        target_stage(parse(STAGES), "tow")


def test_a_stage_that_needs_itself_is_refused() -> None:
    dockerfile = parse(b"FROM x AS a\nCOPY --from=b / /\nFROM y AS b\nCOPY --from=a / /\n")
    with pytest.raises(DockerfileError, match="circular dependency detected on stage"):
        needed_stages(dockerfile, dockerfile.stages[-1], {0: "x", 1: "y"})


# The instructions of a --change


def test_changes_act_on_a_copy_of_the_config_in_order() -> None:
    before = ContainerConfig(env=["A=1"], cmd=["old"], labels={"a": "b"})
    after = changed(before, ["ENV B=$A", "env C=$B", "ENTRYPOINT run $C", "LABEL c=d"])
    assert after.env == ["A=1", "B=1", "C=1"]
    assert after.entrypoint == ["/bin/sh", "-c", "run $C"] and after.cmd is None
    assert after.labels == {"a": "b", "c": "d"}
    assert before == ContainerConfig(env=["A=1"], cmd=["old"], labels={"a": "b"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("RUN true", "run is not a valid change command"),
        ("copy a b", "copy is not a valid change command"),
        ("FROM x", "from is not a valid change command"),
        ("SHELL []", "shell is not a valid change command"),
        ("NOPE", "nope is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("EXPOSE x", "invalid containerPort: x"),
    ],
)
def test_what_cannot_be_changed_is_refused_in_dockers_words(change: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        changed(ContainerConfig(), ["USER 1", change])
    assert str(refused.value) == reason
