"""Building images. Engine API, ImageBuild and BuildPrune."""

from __future__ import annotations

import msgspec

from naru.api.host import Ulimit
from naru.api.system import AuthConfig
from naru.api.wire import Wire, always


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of ImageBuild. A build argument whose value is None takes the builder's own environment's."""

    dockerfile: str = "Dockerfile"
    tags: list[str] = []
    extra_hosts: list[str] = []
    remote: str = ""
    quiet: bool = False
    no_cache: bool = False
    cache_from: list[str] = []
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_period: int = 0
    cpu_quota: int = 0
    cgroup_parent: str = ""
    build_args: dict[str, str | None] = {}
    shm_size: int = 0
    ulimits: list[Ulimit] = []
    squash: bool = False
    labels: dict[str, str] = {}
    network_mode: str = ""
    platform: str = ""
    target: str = ""
    outputs: str = ""
    security_opt: list[str] = []
    build_id: str = ""
    session: str = ""
    version: str = "1"
    auth_configs: dict[str, AuthConfig] = {}


class BuildCache(Wire):
    """One record of the build cache; times RFC 3339."""

    id: str = always("", name="ID")
    parents: list[str] | None = None
    type: str = always("regular")
    description: str = always("")
    in_use: bool = always(False)
    shared: bool = always(False)
    size: int = always(0)
    created_at: str = always("")
    last_used_at: str | None = always(None)
    usage_count: int = always(0)


class BuildPruneReport(Wire):
    caches_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)
