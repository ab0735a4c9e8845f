"""The table of all commands: which module defines which, and what each is for. A module is imported when used."""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.cli.command import Command

# Management form: (module of naru.cli, what it does in a few words)
COMMANDS: dict[str, tuple[str, str]] = {
    "builder prune": ("prune", "Remove cached build steps"),
    "completion bash": ("completion", "Print the completion script for bash"),
    "completion fish": ("completion", "Print the completion script for fish"),
    "completion zsh": ("completion", "Print the completion script for zsh"),
    "container attach": ("attach", "Join your terminal to a running container's input and output"),
    "container commit": ("commit", "Make an image of a container's changes"),
    "container cp": ("cp", "Copy files between a container and this machine"),
    "container create": ("run", "Create a container without starting it"),
    "container diff": ("container_views", "List what changed in a container's filesystem"),
    "container exec": ("exec", "Run a command in a running container"),
    "container export": ("container_views", "Write a container's filesystem as a tar archive"),
    "container inspect": ("inspect", "Show everything about containers"),
    "container kill": ("lifecycle", "Send a signal to running containers"),
    "container logs": ("logs", "Show what a container has printed"),
    "container ls": ("ps", "List containers"),
    "container pause": ("lifecycle", "Freeze all processes of containers"),
    "container port": ("container_views", "List a container's published ports"),
    "container prune": ("prune", "Remove all stopped containers"),
    "container rename": ("lifecycle", "Rename a container"),
    "container restart": ("lifecycle", "Stop and start containers"),
    "container rm": ("lifecycle", "Remove containers"),
    "container run": ("run", "Create a container from an image and start it"),
    "container start": ("start", "Start stopped containers"),
    "container stats": ("stats", "Show what containers use, live"),
    "container stop": ("lifecycle", "Stop running containers"),
    "container top": ("container_views", "List the processes of a container"),
    "container unpause": ("lifecycle", "Thaw the processes of containers"),
    "container update": ("update", "Change the limits of containers"),
    "container wait": ("lifecycle", "Wait until containers stop and print their exit codes"),
    "context create": ("context", "Name a daemon"),
    "context export": ("context", "Write a context as a tar archive"),
    "context import": ("context", "Create a context of an exported one"),
    "context inspect": ("context", "Show everything about contexts"),
    "context ls": ("context", "List contexts"),
    "context rm": ("context", "Remove contexts"),
    "context show": ("context", "Print the current context's name"),
    "context update": ("context", "Change a context"),
    "context use": ("context", "Make a context the current one"),
    "image build": ("build", "Build an image from a Dockerfile"),
    "image history": ("images", "Show how an image was made"),
    "image import": ("image_archive", "Make an image of a tar archive of a filesystem"),
    "image inspect": ("inspect", "Show everything about images"),
    "image load": ("image_archive", "Load images from a tar archive or standard input"),
    "image ls": ("images", "List images"),
    "image prune": ("prune", "Remove unused images"),
    "image pull": ("pull", "Download an image from a registry"),
    "image push": ("pull", "Upload an image to a registry"),
    "image rm": ("images", "Remove images"),
    "image save": ("image_archive", "Write images to a tar archive"),
    "image tag": ("images", "Give an image another name"),
    "network connect": ("network", "Connect a container to a network"),
    "network create": ("network", "Create a network"),
    "network disconnect": ("network", "Disconnect a container from a network"),
    "network inspect": ("inspect", "Show everything about networks"),
    "network ls": ("network", "List networks"),
    "network prune": ("prune", "Remove unused networks"),
    "network rm": ("network", "Remove networks"),
    "system df": ("system_df", "Show what takes disk space"),
    "system dial-stdio": ("dial_stdio", "Join standard input and output to the daemon's connection"),
    "system events": ("events", "Follow what happens in the daemon"),
    "system info": ("system", "Show the daemon and its host"),
    "system prune": ("prune", "Remove everything unused"),
    "volume create": ("volume", "Create a volume"),
    "volume inspect": ("inspect", "Show everything about volumes"),
    "volume ls": ("volume", "List volumes"),
    "volume prune": ("prune", "Remove unused volumes"),
    "volume rm": ("volume", "Remove volumes"),
    "volume update": ("volume", "Change a cluster volume"),
    "inspect": ("inspect", "Show everything about containers, images, volumes or networks"),
    "login": ("login", "Store credentials for a registry"),
    "logout": ("login", "Forget credentials for a registry"),
    "search": ("search", "Search a registry for images"),
    "__complete": ("completion", ""),
    "version": ("system", "Show the versions of client and daemon"),
}

NOUNS = {
    "builder": "Manage builds and their cache",
    "completion": "Print scripts that complete command lines in shells",
    "container": "Manage containers",
    "context": "Manage names for daemons",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage the daemon",
    "volume": "Manage volumes",
}

# Other spellings of a management form, with the same flags
ALIASES = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "context list": "context ls",
    "context remove": "context rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "builder build": "image build",
    "ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "info": "system info",
    "events": "system events",
}
_SHORT = {
    "container": "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop"
    " top unpause update wait",
    "image": "build history import load pull push save tag",
}
ALIASES.update({verb: f"{noun} {verb}" for noun, verbs in _SHORT.items() for verb in verbs.split()})

COMMON = ("run", "exec", "ps", "logs", "stop", "rm", "build", "pull", "images", "inspect", "version", "info")


def find(words: Sequence[str]) -> tuple[str, str, int] | None:
    """Return management form, name as typed, and number of words used, or None. `words` are the arguments."""
    for count in (2, 1):
        name = " ".join(words[:count])
        path = ALIASES.get(name, name)
        if len(words) >= count and path in COMMANDS:
            return path, name, count
    return None


def load(path: str) -> Command:
    """Import the module that defines a command and return it."""
    module = __import__(f"naru.cli.{COMMANDS[path][0]}", fromlist=["COMMANDS"])
    command: Command = next(command for command in module.COMMANDS if command.path == path)
    return command


def short_names() -> list[str]:
    """Return the commands of one word, sorted."""
    names = {name for name in [*ALIASES, *COMMANDS] if " " not in name}
    return sorted(name for name in names if not name.startswith("_"))


def verbs(noun: str) -> dict[str, str]:
    """Return the management forms of a noun's commands by verb, sorted; `builder build` is `image build`."""
    found = {path.split()[1]: path for path in COMMANDS if path.startswith(f"{noun} ")}
    foreign = {name.split()[1]: path for name, path in ALIASES.items() if name.startswith(f"{noun} ")}
    found |= {verb: path for verb, path in foreign.items() if not path.startswith(f"{noun} ")}
    return dict(sorted(found.items()))


def about(path: str) -> str:
    """Return what a command, by any name, or a noun is for, in a few words."""
    return NOUNS.get(path) or COMMANDS[ALIASES.get(path, path)][1]


def names_of(path: str) -> list[str]:
    """Return all spellings of a command, its management form first."""
    return [path, *sorted(alias for alias, meant in ALIASES.items() if meant == path)]


def similar(words: Sequence[str]) -> list[str]:
    """Return commands spelled much like `words`, likeliest first."""
    import difflib

    if words[0] in NOUNS and len(words) > 1:
        return [f"{words[0]} {verb}" for verb in difflib.get_close_matches(words[1], verbs(words[0]), n=3, cutoff=0.6)]
    return difflib.get_close_matches(words[0], [*short_names(), *NOUNS], n=3, cutoff=0.6)
