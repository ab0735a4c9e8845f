"""`naru` beside Docker's CLI, on the same narud: the same arguments print the same, and end with the same code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import Daemon, Done
from programs import DOCKER, NARU, beside_docker

pytestmark = beside_docker

# How long ago something was may change between the two programs' calls; the programs' names may differ
_AGES = re.compile(r"(Less than a second|About a minute|About an hour|\d+ (second|minute|hour)s?)( ago)? *")

Both = Callable[[str], tuple[Done, Done]]


@pytest.fixture(scope="module")
def site(shared_narud: Daemon, busybox_root: Path) -> Iterator[Daemon]:
    """Containers, networks and volumes with something in each column; an image without labels, which Go shuffles."""
    narud = shared_narud
    packed = subprocess.run(["tar", "-C", str(busybox_root), "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    narud("import", "-", "plain", stdin=packed)
    narud("volume", "create", "--label", "a=b", "data")
    narud("network", "create", "--label", "x=y", "--subnet", "10.211.0.0/24", "front")
    options = "--name web --network front -p 8080:80 -p 127.0.0.1:5353:53/udp --expose 9000 -v data:/data -v /tmp:/host"
    narud("run", "-d", *options.split(), "--label", "role=web", "plain", "sleep", "1000")
    narud("run", "-d", "--name", "job", "plain", "sh", "-c", 'echo hello "quoted" world; exit 3')
    health = (
        "--health-cmd true --health-interval 1h --stop-timeout 3 --init --tmpfs /t --memory 100m --ulimit nofile=9:9"
    )
    narud("create", "--name", "idle", *health.split(), "plain", "sleep", "1")
    narud("wait", "job")
    yield narud
    narud.clear()
    narud("network", "rm", "front")
    narud("rmi", "plain")


@pytest.fixture(scope="module")
def both(site: Daemon) -> Both:
    """Runs a command line with Docker's CLI and with ours."""

    def run(line: str) -> tuple[Done, Done]:
        arguments = shlex.split(line)
        docker, ours = (_run([*program, *arguments], site.client_env) for program in (DOCKER, NARU))
        return docker, ours

    return run


def _run(command: list[str], env: dict[str, str]) -> Done:
    env = {"DOCKER_API_VERSION": "1.50", **env, "TZ": "Asia/Seoul", "COLUMNS": os.environ.get("COLUMNS", "100")}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return Done(done.returncode, _without_names(done.stdout), _without_names(done.stderr))


def _without_names(text: str) -> str:
    """Return the text without ages, and then without the widths of columns that they make."""
    text = text.replace("docker", "naru").replace("Docker", "naru")
    return re.sub(" {2,}", "  ", _AGES.sub("SOME TIME  ", text)) if _AGES.search(text) else text


LINES = r"""
ps
ps -a
ps -aq
ps -aq --no-trunc
ps -a --no-trunc
ps -as
ps -l
ps -n 2
ps extra
ps --foo
ps -a --filter status=exited
ps -a --filter label=role=web
ps -a --filter foo
ps -a --filter foo=bar
ps -a --format json
ps -a --format '{{json .}}'
ps -a --format raw
ps -aq --format raw
ps -aq --format x
ps -a --format table
ps -a --format 'table {{.ID}}\t{{.Names}}\t{{.Size}}'
ps -a --format 'table {{.Names}}\t{{.Label "role"}}'
ps -a --format 'table {{.State}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}\t{{.Platform}}'
ps -a --format '{{upper .Names}} {{title .State}} {{pad .Names 2 3}}|{{truncate .Names 2}}'
ps -a --format '{{printf "%-9s|%5s|%q" .Names .State .Image}} {{println .Names 1}}'
ps -a --format '{{if eq .State "running"}}R{{else if ne .State "exited"}}X{{else}}E{{end}}'
ps -a --format '{{with .Ports}}{{.}}{{else}}none{{end}} {{and .Names .Ports}} {{not .Ports}}'
ps -a --format '{{$n := .Names}}{{len $n | printf "%03d"}} {{join (split .Image "b") "-"}}'
ps -a --format '{{define "x"}}<{{.}}>{{end}}{{template "x" .Names}}'
ps -a --format '{{.Foo}}'
ps -a --format 'table {{.Foo}}'
ps -a --format '{{.Names'
ps -a --format '{{foo .}}'
ps -a --format '{{if}}'
images
images -q --no-trunc
images --digests
images --format json
images --format raw
images nosuch
images --format '{{.Repository}}:{{.Tag}} {{.Size}} {{.VirtualSize}} {{.Digest}} {{.CreatedAt}}'
history busybox
history -q busybox
history -H=false --no-trunc busybox
history --format json busybox
network ls
network ls -q
network ls --no-trunc
network ls --format json
network ls --format raw
network ls --format 'table {{.Name}}\t{{.Internal}}\t{{.IPv6}}\t{{.Label "x"}}\t{{.CreatedAt}}'
network inspect front
network inspect nosuch front
network inspect front --format '{{.IPAM}} {{json .}}'
volume ls
volume ls -q
volume ls --format json
volume inspect data --format '{{.Options}} {{json .}}'
volume ls --format '{{.Name}} {{.Links}} {{.Size}} {{.Mountpoint}} {{.Labels}}'
volume inspect nosuch data
inspect web
inspect nosuch web
inspect --format json web
inspect --type image web
inspect busybox
inspect --format '{{json .}}' web
inspect --format '{{json .}}' idle
inspect --format '{{json .HostConfig}}' idle
inspect --format '{{.State}} {{.Config.Healthcheck}} {{.HostConfig.Binds}} {{json .State.Health}}' web
inspect --format '{{.HostConfig.PortBindings}} {{.Config.Labels}} {{.NetworkSettings.Ports}}' web
inspect --format '{{index .Config.Labels "role"}} {{index .Config.Labels "none"}} {{len .Mounts}}' web
inspect --format '{{range $i, $m := .Mounts}}{{$i}}={{$m.Destination}} {{end}}' web
inspect --format '{{.State.Health.Status}}' web
inspect --format '{{.Foo}}' web idle
inspect --format '{{' web
port web
port web 80
port web 99
port idle
top web
top idle
diff job
logs job
logs nosuch
logs --since foo job
stats --no-stream --format '{{.Name}} {{.Container}}'
stats --no-stream nosuch
system df
system df -v
system df --format json
system df --format raw
info --format '{{.Swarm}}'
version --format '{{json .Server}}'
version --format '{{.Client.APIVersion}} {{.Server.APIVersion}}'
events --since 1h --until 0s --filter container=job
events --since 1h --until 0s --format '{{.Foo}}'
events --since 1h --until 0s --filter container=job --format '{{.ID}} {{.Status}} {{.TimeNano}} {{json .}}'
run
run --memory x busybox
run --rm busybox nosuch
run --rm busybox /etc
run --rm busybox false
run --rm busybox sh -c 'exit 42'
run --rm --name web busybox
run --restart always --rm busybox true
run -it busybox true
run --rm --sysctl foo busybox
run --rm --pid foo busybox
run --rm Busybox
run --pull never nosuch
run -d -a stdout busybox
create --pull never nosuch
exec web nosuch
exec web false
exec job true
exec -it web true
start nosuch job
stop nosuch
kill job
rm web
rm -f nosuch
rename web job
attach job
cp a b
update web
tag nosuch x
tag busybox Foo
rmi nosuch
load -i /nosuch
network create front
network rm -f nosuch
volume create 'a b'
volume rm data
container foo
-H ftp://x ps
-c nosuch ps
-l foo ps
-H a -H b ps
help nosuch
save nosuch
export web x y
system prune -f --volumes --filter until=1h
""".strip().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_prints_what_it_prints_with_docker(both: Both, line: str) -> None:
    docker, ours = both(line)
    assert ours.out == docker.out
    assert ours.err == docker.err
    assert ours.code == docker.code
