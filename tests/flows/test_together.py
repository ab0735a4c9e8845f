"""Many clients at once, and many daemons."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from daemon import Daemon, Done

pytestmark = pytest.mark.root


def at_once(count: int, action: Callable[[int], Done]) -> Sequence[Done]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(action, range(count)))


def test_of_creates_with_one_name_exactly_one_wins(narud: Daemon) -> None:
    done = at_once(8, lambda _n: narud.docker("create", "--name", "wanted", "busybox"))
    assert Counter(one.code for one in done) == {0: 1, 1: 7}
    assert all('The container name "/wanted" is already in use' in one.err for one in done if one.code)
    assert len(narud("ps", "-aq").split()) == 1


def test_starts_of_one_container_start_it_once(narud: Daemon) -> None:
    narud("create", "--name", "box", "busybox", "sh", "-c", "echo started; sleep 1000")
    done = at_once(6, lambda _n: narud.docker("start", "box"))
    assert {one.code for one in done} == {0}
    assert narud("logs", "box") == "started"


def test_removals_of_one_container_remove_it_once(narud: Daemon) -> None:
    narud("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    done = at_once(6, lambda _n: narud.docker("rm", "-f", "box"))
    assert {one.code for one in done} <= {0, 1}
    assert any(one.code == 0 for one in done)
    assert narud("ps", "-aq") == ""


def test_stops_and_starts_and_removals_mixed_end_in_one_clear_state(narud: Daemon) -> None:
    narud("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    verbs = [["stop", "-t", "0"], ["start"], ["restart", "-t", "0"], ["kill"], ["pause"], ["unpause"], ["rm", "-f"]]
    done = at_once(len(verbs) * 2, lambda n: narud.docker(*verbs[n % len(verbs)], "box"))
    assert {one.code for one in done} <= {0, 1}
    assert all(one.err.count("Error response from daemon") <= 1 and "Traceback" not in one.err for one in done)
    assert narud.docker("rm", "-f", "box").code == 0
    assert narud("ps", "-aq") == ""


def test_eight_at_a_time_every_run_gets_an_address_and_an_exit_code_of_its_own(narud: Daemon) -> None:
    script = "ip -4 -o address show eth0 | tr -s ' ' | cut -d' ' -f4; sleep 0.5; exit $0"
    done = at_once(8, lambda n: narud.docker("run", "--rm", "busybox", "sh", "-c", script, str(n)))
    assert [one.code for one in done] == list(range(8))
    assert len({one.out for one in done}) == 8


def test_two_pulls_of_one_image_make_it_once(narud: Daemon) -> None:
    done = at_once(2, lambda _n: narud.docker("pull", "--quiet", "busybox"))
    assert [one.code for one in done] == [0, 0]


def test_a_second_daemon_on_the_same_data_is_refused(own_narud: Daemon) -> None:
    second = own_narud.spawn()
    assert second.wait(20) == 1
    said = own_narud.log.read_text().splitlines()[-1]
    assert said.startswith(f"narud: another narud works on {own_narud.data}")
    assert own_narud("run", "--rm", "busybox", "echo", "unharmed") == "unharmed"


def test_without_root_the_daemon_says_so(own_narud: Daemon) -> None:
    command = [*own_narud.program, f"--data-root={own_narud.directory}/other"]
    done = subprocess.run(command, cwd="/", env=own_narud.program_env, user="nobody", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["narud: needs to be started as root"]


def test_without_permission_for_the_socket_the_client_says_so(narud: Daemon) -> None:
    done = subprocess.run(
        ["docker", "ps"], env=narud.client_env | {"HOME": "/"}, user="nobody", capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "permission denied" in done.stderr


def test_a_container_that_ends_while_it_is_removed_is_removed(narud: Daemon) -> None:
    names = [narud("create", "busybox", "sleep", f"0.0{n % 10}") for n in range(40)]
    narud("start", *names)
    done = at_once(4, lambda n: narud.docker("rm", "-f", *names[n::4]))
    assert [(one.code, one.err) for one in done] == [(0, "")] * 4
    assert narud("ps", "-aq") == ""
