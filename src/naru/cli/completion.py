"""`naru completion bash|zsh|fish`: scripts for shells; and `naru __complete`, which they call at every tab.

What is known without the daemon (commands, flags, words that flags take) comes from the tables; names of containers,
images, networks and volumes from the daemon, which is never started for it. Errors complete to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from naru.cli import commands
from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, Flag, UsageError, Values
from naru.errors import NaruError

Found = list[tuple[str, str]]  # word, description
Query = Mapping[str, object]

_BASH = """\
# bash completion for naru: naru completion bash > /etc/bash_completion.d/naru
_naru() {
    local IFS=$'\\n'
    COMPREPLY=($(naru __complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o bashdefault -o default -F _naru naru
"""
_ZSH = """\
#compdef naru
# zsh completion for naru: naru completion zsh > a directory in fpath, as _naru
_naru() {
    local -a found
    found=(${(f)"$(naru __complete zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then
        _describe naru found
    else
        _files
    fi
}
if [ "$funcstack[1]" = _naru ]; then
    _naru "$@"
else
    compdef _naru naru
fi
"""
_FISH = """\
# fish completion for naru: naru completion fish > ~/.config/fish/completions/naru.fish
function __naru_complete
    set -l found (naru __complete fish (commandline -opc) (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c naru -f -a '(__naru_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_LOG_DRIVERS = "json-file local none syslog journald gelf fluentd splunk awslogs"
_WORDS = {  # what flags take, by name
    "pull": "always missing never",
    "restart": "no always unless-stopped on-failure",
    "network": "bridge host none",
    "cgroupns": "host private",
    "ipc": "private shareable host none",
    "pid": "host",
    "uts": "host",
    "userns": "host",
    "log-driver": _LOG_DRIVERS,
    "signal": "HUP INT QUIT KILL USR1 USR2 TERM STOP CONT",
    "stop-signal": "HUP INT QUIT KILL USR1 USR2 TERM",
    "log-level": "debug info warn error fatal",
    "platform": "linux/amd64 linux/arm64",
    "type": "container image network volume",
    "attach": "stdin stdout stderr",
    "progress": "auto plain tty",
}
_CAPABILITIES = (
    "ALL AUDIT_CONTROL AUDIT_WRITE BPF CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK KILL MKNOD NET_ADMIN"
    " NET_BIND_SERVICE NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_CHROOT SYS_NICE SYS_PTRACE"
    " SYS_RESOURCE SYS_TIME"
)
_RUNNING: Query = {"filters": {"status": {"running": True}}}
_STOPPED: Query = {"filters": {"status": {"created": True, "exited": True}}, "all": True}
_PAUSED: Query = {"filters": {"status": {"paused": True}}}
_ANY: Query = {"all": True}
# Which containers a command takes, by its verb
_CONTAINERS = {
    "attach": _RUNNING, "exec": _RUNNING, "kill": _RUNNING, "pause": _RUNNING, "stop": _RUNNING, "top": _RUNNING,
    "start": _STOPPED, "unpause": _PAUSED,
    **dict.fromkeys("commit diff export inspect logs port rename restart rm update wait stats".split(), _ANY),
}  # fmt: skip
_FIRST_ONLY = (
    "attach",
    "exec",
    "top",
    "commit",
    "diff",
    "export",
    "logs",
    "port",
    "rename",
    "run",
    "create",
    "history",
)


def run(call: Call) -> None:
    """Print the script of a shell."""
    print(_SCRIPTS[call.command.path.split()[1]], end="")


def complete(call: Call) -> None:
    """Print what could stand at the cursor, a line each, as the shell that asks wants it."""
    shell, *rest = call.arguments
    try:
        if shell == "bash":
            breaks, line = rest
            words = _split(line)
            found = _candidates(call, words[1:])
            cut = max((words[-1].rfind(char) for char in ":=" if char in breaks), default=-1) + 1
            print("".join(f"{word[cut:]}\n" for word, _ in found), end="")
            return
        found = _candidates(call, rest[1:])
    except (NaruError, IndexError, ValueError):
        return
    separator = "\t" if shell == "fish" else ":"
    for word, about in found:
        shown = word.replace(":", "\\:") if shell == "zsh" else word
        print(f"{shown}{separator}{about}" if about else shown)


def _split(line: str) -> list[str]:
    """Return the words of an unfinished command line, the last one perhaps empty."""
    words, quote, is_open = [""], "", False
    position = 0
    while position < len(line):
        char = line[position]
        position += 1
        if quote:
            if char == quote:
                quote = ""
            else:
                words[-1] += char
        elif char in "'\"":
            quote, is_open = char, True
        elif char == "\\" and position < len(line):
            words[-1] += line[position]
            position += 1
        elif char.isspace():
            if words[-1] or is_open:
                words.append("")
            is_open = False
        else:
            words[-1] += char
    return words


def _candidates(call: Call, words: Sequence[str]) -> Found:
    """Return what may replace the last of `words`, which follow the program's name."""
    from naru.cli.main import GLOBAL_FLAGS, make_call

    *before, current = words
    globals_ = Values(GLOBAL_FLAGS)
    try:
        typed = globals_.parse(before, interspersed=False)
    except UsageError as error:
        return _values(call, GLOBAL_FLAGS, before[-1], current) if "needs an argument" in str(error) else []
    call = make_call(call.command, globals_)
    if not typed:
        if current.startswith("-"):
            return _flags(GLOBAL_FLAGS, current)
        return _matching([(name, commands.about(name)) for name in [*commands.short_names(), *commands.NOUNS]], current)
    found = commands.find(typed)
    if found is None:
        if len(typed) == 1 and typed[0] in commands.NOUNS:
            return _matching([(verb, commands.about(path)) for verb, path in commands.verbs(typed[0]).items()], current)
        return []
    path, _, used = found
    return _of_command(call, commands.load(path), typed[used:], current)


def _of_command(call: Call, command: Command, typed: list[str], current: str) -> Found:
    """Return what may stand at the cursor of a command after the words `typed`."""
    values = Values(command.flags)
    try:
        arguments = values.parse(typed, interspersed=command.interspersed)
    except UsageError as error:
        return _values(call, command.flags, typed[-1], current) if "needs an argument" in str(error) else []
    is_over = "--" in typed or (not command.interspersed and bool(arguments))
    if current.startswith("-") and not is_over:
        name, equals, value = current.partition("=")
        if not equals:
            return _flags(command.flags, current)
        return [(f"{name}={word}", about) for word, about in _values(call, command.flags, name, value)]
    return _matching(_arguments(call, command, arguments), current)


def _arguments(call: Call, command: Command, before: list[str]) -> Found:
    """Return the names that a command takes after the arguments `before`."""
    noun, _, verb = command.path.rpartition(" ")
    _, most = command.count
    if (most is not None and len(before) >= most) or (verb in _FIRST_ONLY and before):
        return []
    if command.path == "network connect" or command.path == "network disconnect":
        return _containers(call, _ANY) if before else _networks(call)
    if command.path in ("container run", "container create"):
        return _images(call)
    if command.path == "container cp":
        return [(f"{name}:", about) for name, about in _containers(call, _ANY)]
    if command.path == "inspect":
        return [*_containers(call, _ANY), *_images(call), *_networks(call), *_volumes(call)]
    if noun == "container" and verb in _CONTAINERS:
        names = _containers(call, _CONTAINERS[verb])
    elif noun == "image" and verb in ("history", "inspect", "ls", "push", "rm", "save", "tag", "pull"):
        names = _images(call)
    elif noun == "network" and verb in ("inspect", "rm"):
        names = _networks(call)
    elif noun == "volume" and verb in ("inspect", "rm", "update"):
        names = _volumes(call)
    elif noun == "context" and verb in ("export", "inspect", "rm", "update", "use"):
        names = _contexts(call)
    elif command.path == "logout":
        names = [(server, "") for server in call.config.servers()]
    else:
        names = []
    return [(name, about) for name, about in names if name not in before]


def _flags(flags: Sequence[Flag], current: str) -> Found:
    shown = [flag for flag in flags if not flag.is_hidden]
    longs = [(f"--{flag.long}", flag.about) for flag in sorted(shown, key=lambda flag: flag.long)]
    if current == "-":
        longs += [(f"-{flag.short}", flag.about) for flag in shown if flag.short]
    return _matching([*longs, ("--help", "Print this text")], current)


def _values(call: Call, flags: Sequence[Flag], typed: str, current: str) -> Found:
    """Return the values of the flag that the word `typed` ends with."""
    name = typed.removeprefix("--") if typed.startswith("--") else typed[-1:]
    flag = next((one for one in flags if name in (one.long, one.short) and one.kind != BOOL), None)
    if flag is None:
        return []
    words: Found = [(word, "") for word in _WORDS.get(flag.long, "").split()]
    live: dict[str, Callable[[], Found]] = {
        "context": lambda: _contexts(call),
        "network": lambda: [one for one in _networks(call) if (one[0], "") not in words],
        "volumes-from": lambda: _containers(call, _ANY),
        "link": lambda: _containers(call, _ANY),
        "volume": lambda: [(f"{name}:", about) for name, about in _volumes(call)],
        "cap-add": lambda: [(word, "") for word in _CAPABILITIES.split()],
        "cap-drop": lambda: [(word, "") for word in _CAPABILITIES.split()],
        "cache-from": lambda: _images(call),
    }
    if flag.long in live:
        words += live[flag.long]()
    return _matching(words, current)


def _matching(words: Found, current: str) -> Found:
    return [(word, about) for word, about in words if word.startswith(current)]


def _containers(call: Call, query: Query) -> Found:
    found = call.connect().get("/containers/json", query)
    return sorted((one["Names"][0].removeprefix("/"), one["Image"]) for one in found if one.get("Names"))


def _images(call: Call) -> Found:
    found = call.connect().get("/images/json")
    tags = sorted(tag for image in found for tag in image.get("RepoTags") or () if tag != "<none>:<none>")
    latest = [tag.removesuffix(":latest") for tag in tags if tag.endswith(":latest")]
    return [(name, "") for name in sorted([*tags, *latest])]


def _networks(call: Call) -> Found:
    return sorted((one["Name"], one["Driver"]) for one in call.connect().get("/networks"))


def _volumes(call: Call) -> Found:
    found = call.connect().get("/volumes")["Volumes"] or ()
    return sorted((one["Name"], one["Driver"]) for one in found)


def _contexts(call: Call) -> Found:
    from naru.cli.context_store import DEFAULT, ContextStore

    return [(name, "") for name in sorted([DEFAULT, *ContextStore(call.config_directory).names()])]


def _script(shell: str) -> Command:
    return Command(f"completion {shell}", "", f"Print the completion script for {shell}.", run)


COMMANDS = (
    *(_script(shell) for shell in _SCRIPTS),
    Command("__complete", "SHELL [WORD...]", "Used by the scripts.", complete, count=(1, None), interspersed=False),
)
