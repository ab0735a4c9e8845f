"""Try a user's credentials at a registry. Engine API, SystemAuth; distribution's token authentication specification"""

from __future__ import annotations

from collections.abc import Collection
from http.client import responses

from naru.api.system import AuthConfig
from naru.distribution.challenge import Credentials
from naru.distribution.client import RegistryClient, passing
from naru.distribution.loop import run
from naru.distribution.refusal import RegistryError
from naru.errors import Unauthorized, Unavailable


def login(domain: str, auth: AuthConfig, *, insecure_registries: Collection[str] = ()) -> str:
    """Return the identity token that the registry gives for the credentials in `auth`; empty where it gives none.

    Unauthorized, in Docker's words: they are refused. Unavailable: the registry does not answer.
    """
    return run(_login(domain, Credentials.of(auth), insecure_registries))


async def _login(domain: str, credentials: Credentials, insecure_registries: Collection[str]) -> str:
    async with RegistryClient(
        domain,
        "",
        credentials=credentials,
        insecure_registries=insecure_registries,
        scopes=(),
        wants_identity_token=True,
    ) as client:
        address = f"{client.base}/v2/"
        try:
            async with client.exchange("GET", ""):
                return client.authorizer.identity_token
        except Unauthorized as error:
            raise Unauthorized(f'Get "{address}": {error}') from error
        except RegistryError as error:
            said = f"login attempt to {address} failed with status: {error.status} {responses.get(error.status, '')}"
            raise (Unauthorized(said) if error.status in (401, 403) else Unavailable(said)) from error
        except passing() as error:
            raise Unavailable(client.unreachable(error)) from error
