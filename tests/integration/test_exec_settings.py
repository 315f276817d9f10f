"""What a command is and may do, where the agent is PID 1 and root: users, groups, umask, limits, detached commands."""

import time
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from harness import Server, refused
from ingle.v1 import guest_pb2, vm_pb2


def output(server: Server, vm: vm_pb2.Vm, script: str, **fields: Any) -> list[str]:
    """The words a shell script says."""
    code, out, err = server.run(vm.id, "sh", "-c", script, **fields)
    assert (code, err) == (0, b"")
    return out.decode().split()


def detached(server: Server, vm: vm_pb2.Vm, script: str, **fields: object) -> int:
    """Start it, and answer its pid."""
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", script], detach=True, **fields)  # type: ignore[arg-type]
    (response,) = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    return response.started.pid


def limit(resource: "guest_pb2.Resource.ValueType", soft: int, hard: int) -> guest_pb2.ResourceLimit:
    return guest_pb2.ResourceLimit(resource=resource, soft=soft, hard=hard)


@pytest.fixture(scope="module")
def ember(server: Server, shared_vm: vm_pb2.Vm) -> str:
    """A user with supplementary groups."""
    script = "groupadd -g 7001 hearth; groupadd -g 7002 coals; useradd -m -u 7000 -g hearth -G coals,video ember"
    assert server.run(shared_vm.id, "sh", "-c", script)[0] == 0
    return "ember"


def test_a_user_has_all_their_groups(server: Server, shared_vm: vm_pb2.Vm, ember: str) -> None:
    video = output(server, shared_vm, "getent group video | cut -d: -f3")
    for user in (ember, "7000"):
        for settings in ({}, {"umask": 0o22}):
            uid, gid, *groups = output(server, shared_vm, "id -u; id -g; id -G", user=user, **settings)
            assert (uid, gid, sorted(groups)) == ("7000", "7001", sorted(["7001", "7002", *video]))


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("ember:coals", ["7000", "7002"]),
        ("7000:7002", ["7000", "7002"]),
        ("4711", ["4711", "0"]),
        ("4711:4712", ["4711", "4712"]),
        ("root:adm", ["0", "4"]),
    ],
)
def test_a_user_with_a_group_has_that_alone(
    server: Server, shared_vm: vm_pb2.Vm, ember: str, user: str, shown: list[str]
) -> None:
    assert output(server, shared_vm, "id -u; id -G", user=user) == shown


def test_a_login_finds_its_own_surroundings(server: Server, shared_vm: vm_pb2.Vm, ember: str) -> None:
    script = "echo $HOME $USER $LOGNAME $SHELL; pwd; umask"
    home = "/home/ember"
    assert output(server, shared_vm, script, user=ember) == [home, ember, ember, "/bin/sh", home, "0022"]


def test_who_is_not_there_is_refused_with_what_to_do(server: Server, shared_vm: vm_pb2.Vm) -> None:
    user = refused(server.run, shared_vm.id, "true", user="ghost:root")
    assert (user.reason, "ghost" in user.message) == ("GUEST_USER_NOT_FOUND", True)
    group = refused(server.run, shared_vm.id, "true", user="root:ghosts")
    assert (group.reason, "ghosts" in group.message) == ("GUEST_GROUP_NOT_FOUND", True)
    assert "number" in user.remedy
    assert "number" in group.remedy


def test_numbers_do_without_any_account_database(server: Server, shared_vm: vm_pb2.Vm) -> None:
    """As in an image of nothing but busybox."""
    hide, show = "mv /etc/passwd /etc/group /root/", "mv /root/passwd /root/group /etc/"
    assert server.run(shared_vm.id, "sh", "-c", hide)[0] == 0
    try:
        script = "echo $(cat /proc/self/status | grep -E '^(Uid|Gid|Groups)' | cut -f 2); echo $HOME $USER; pwd"
        assert output(server, shared_vm, script, user="123:45") == ["123", "45", "45", "/", "123", "/"]
        assert output(server, shared_vm, script) == ["0", "0", "0", "/root", "root", "/root"]
        assert refused(server.run, shared_vm.id, "true", user="ember").reason == "GUEST_USER_NOT_FOUND"
        assert refused(server.run, shared_vm.id, "true", user="0:adm").reason == "GUEST_GROUP_NOT_FOUND"
    finally:
        assert server.run(shared_vm.id, "sh", "-c", show)[0] == 0


def test_umask_and_limits_though_the_agents_file_is_gone(server: Server, shared_vm: vm_pb2.Vm) -> None:
    """Its binary was in the initramfs, which is empty since the root was switched. Limits may go above PID 1's."""
    limits = [limit(guest_pb2.RESOURCE_NOFILE, 5000, 100_000), limit(guest_pb2.RESOURCE_CORE, 0, 2**64 - 1)]
    script = "umask; ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc; id -u"
    for user, uid in (("", "0"), ("daemon", "1")):
        said = output(server, shared_vm, script, user=user, umask=0o27, limits=limits, working_directory="/")
        assert said == ["0027", "5000", "100000", "0", "unlimited", uid]


def test_settings_change_nothing_else(server: Server, shared_vm: vm_pb2.Vm) -> None:
    script = "cat /proc/self/limits; grep -E '^(Sig[BIC]|Cap|Groups|Seccomp|NoNew)' /proc/self/status"
    for user in ("", "daemon"):
        plain = output(server, shared_vm, script, user=user)
        assert output(server, shared_vm, script, user=user, umask=0o22) == plain


def test_limits_that_make_no_sense_are_refused(server: Server, shared_vm: vm_pb2.Vm) -> None:
    twisted = refused(server.run, shared_vm.id, "true", limits=[limit(guest_pb2.RESOURCE_NOFILE, 2, 1)])
    assert (twisted.reason, "nofile" in twisted.message) == ("INVALID_ARGUMENT", True)
    too_many = refused(server.run, shared_vm.id, "true", limits=[limit(guest_pb2.RESOURCE_NOFILE, 1, 2**40)])
    assert (too_many.reason, "nofile" in too_many.message) == ("RESOURCE_LIMIT_REFUSED", True)


def test_a_detached_command_runs_on(server: Server, shared_vm: vm_pb2.Vm) -> None:
    pid = detached(server, shared_vm, "echo lost; exec >/tmp/detached.log; echo kept; exec sleep 4800")
    shown = output(server, shared_vm, f"readlink /proc/{pid}/fd/0 /proc/{pid}/fd/2; cat /proc/{pid}/comm")
    assert shown[:2] == ["/dev/null"] * 2
    wait = f"until grep -q sleep /proc/{pid}/comm; do sleep 0.05; done; cat /tmp/detached.log; kill -- -{pid}"
    assert output(server, shared_vm, wait) == ["kept"]
    gone(server, shared_vm, pid)


def test_a_timeout_ends_a_detached_command(server: Server, shared_vm: vm_pb2.Vm) -> None:
    script = "sleep 4801 & echo $! > /tmp/child; wait"
    pid = detached(server, shared_vm, script, timeout=Duration(seconds=1))
    gone(server, shared_vm, pid)
    child = output(server, shared_vm, "cat /tmp/child")[0]
    gone(server, shared_vm, int(child))


def test_a_detached_command_cannot_have_what_needs_a_caller(server: Server, shared_vm: vm_pb2.Vm) -> None:
    for field, word in (("open_stdin", "stdin"), ("delete_vm", "delete_vm")):
        fields = {field: True}
        start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["touch", "/tmp/never"], detach=True, **fields)  # type: ignore[arg-type]
        error = refused(list, server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)])))
        assert error.reason == "INVALID_ARGUMENT"
        assert word in error.message
    assert server.run(shared_vm.id, "test", "-e", "/tmp/never")[0] == 1


def gone(server: Server, vm: vm_pb2.Vm, pid: int) -> None:
    """Return when the guest has no such process, not even a zombie."""
    deadline = time.monotonic() + 20
    while server.run(vm.id, "test", "-e", f"/proc/{pid}")[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
