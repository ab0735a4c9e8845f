"""aiohttp without its client, until somebody wants the client."""

from __future__ import annotations

import subprocess
import sys


def run_python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_daemon_is_imported_without_the_http_client() -> None:
    loaded = run_python(
        "from naru.daemon.lean_aiohttp import postpone_client; postpone_client()\n"
        "import naru.daemon.run, sys\n"
        "print('aiohttp.web' in sys.modules, 'aiohttp.client' in sys.modules)"
    )

    assert loaded == "True False"


def test_the_client_is_there_when_it_is_wanted() -> None:
    whole = run_python(
        "from naru.daemon.lean_aiohttp import postpone_client; postpone_client()\n"
        "import aiohttp, aiohttp.web\n"
        "session = aiohttp.ClientSession\n"
        "import aiohttp.client\n"
        "print(session is aiohttp.client.ClientSession, aiohttp.__version__ != '', aiohttp.web.Request.__name__)"
    )

    assert whole == "True True Request"


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    answers = run_python(
        "from naru.daemon.lean_aiohttp import postpone_client; postpone_client()\n"
        "import aiohttp\n"
        "print(hasattr(aiohttp, 'Nonsense'), hasattr(aiohttp, 'nonsense'))"
    )

    assert answers == "False False"
