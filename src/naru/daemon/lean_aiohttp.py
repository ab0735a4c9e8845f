"""aiohttp's server without its client: 4 MB that narud needs only for its first pull.

`import aiohttp` runs the package's __init__, which imports the whole client, and there is no other door to
`aiohttp.web`. So the package is made known without running it; the first name that only __init__ can give (every class
of the client) runs it after all. docs/adr/0010-aiohttp-and-hijack.md
"""

from __future__ import annotations

import importlib.util
import sys
import threading


def postpone_client() -> None:
    """Make `aiohttp` a package whose __init__ runs when it is needed. Call it before anything imports aiohttp."""
    spec = importlib.util.find_spec("aiohttp")
    assert spec is not None and spec.loader is not None
    loader = spec.loader
    package = importlib.util.module_from_spec(spec)
    lock = threading.RLock()
    is_loaded = False

    def load(name: str) -> object:
        # Submodules in lower case are imported by their importer, as always; so are dunder names that are not there.
        if name.islower() or name.startswith("__"):
            raise AttributeError(f"module 'aiohttp' has no attribute {name!r}")
        nonlocal is_loaded
        with lock:
            if not is_loaded:
                loader.exec_module(package)
                is_loaded = True
        return getattr(package, name)  # its own __getattr__ has taken the place of this one

    package.__dict__["__version__"] = ""  # for the Server header, which is ours
    package.__dict__["__getattr__"] = load
    sys.modules["aiohttp"] = package
