"""Who a command is, and what it may use: user and groups, umask, resource limits."""

import os
import pwd
import resource
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AttachSpec, ExecSpec, Exited, SessionProgram, Stdout
from ingle.api_server.model.limits import UNLIMITED, Limited, ResourceLimit
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent, Run, StartAgent
from .test_conversation import hello, refusal, request, talk

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else; VMs are tested elsewhere")


def limits_shown(text: bytes) -> dict[str, tuple[str, str]]:
    """Soft and hard limits by name, of /proc/PID/limits."""
    rows = [(line[:26].strip(), *line[26:].split()[:2]) for line in text.decode().splitlines()[1:]]
    return {name: (soft, hard) for name, soft, hard in rows}


@pytest.mark.parametrize("umask", [0, 0o27, 0o777])
async def test_umask(run: Run, umask: int) -> None:
    assert (await run("sh", "-c", "umask", umask=umask)).stdout == f"{umask:04o}\n".encode()


async def test_without_a_umask_it_is_the_agents(run: Run, agent: Agent) -> None:
    (line,) = [line for line in Path(f"/proc/{agent.process.pid}/status").read_text().splitlines() if "Umask" in line]
    assert (await run("sh", "-c", "umask")).stdout.decode().strip() == line.split()[1]


async def test_limits_soft_and_hard(run: Run) -> None:
    limits = (
        ResourceLimit(Limited.NOFILE, 100, 200),
        ResourceLimit(Limited.CORE, 0, 0),
        ResourceLimit(Limited.FSIZE, 4096, UNLIMITED),
        ResourceLimit(Limited.NPROC, 1000, 1001),
    )
    shown = limits_shown((await run("cat", "/proc/self/limits", limits=limits)).stdout)
    assert shown["Max open files"] == ("100", "200")
    assert shown["Max core file size"] == ("0", "0")
    assert shown["Max file size"] == ("4096", "unlimited")
    assert shown["Max processes"] == ("1000", "1001")


async def test_every_resource_is_the_one_it_says(run: Run) -> None:
    """Every limit is set to a value of its own, below what this test has."""
    names = {
        Limited.CPU: "Max cpu time",
        Limited.FSIZE: "Max file size",
        Limited.DATA: "Max data size",
        Limited.STACK: "Max stack size",
        Limited.CORE: "Max core file size",
        Limited.RSS: "Max resident set",
        Limited.NPROC: "Max processes",
        Limited.NOFILE: "Max open files",
        Limited.MEMLOCK: "Max locked memory",
        Limited.AS: "Max address space",
        Limited.LOCKS: "Max file locks",
        Limited.SIGPENDING: "Max pending signals",
        Limited.MSGQUEUE: "Max msgqueue size",
        Limited.NICE: "Max nice priority",
        Limited.RTPRIO: "Max realtime priority",
        Limited.RTTIME: "Max realtime timeout",
    }
    assert set(names) == set(Limited)
    for which, name in names.items():
        _, most = resource.getrlimit(which)
        value = (1 << 30) + 4096 if most == resource.RLIM_INFINITY else most // 2
        limits = (ResourceLimit(which, value, value),)
        assert limits_shown((await run("cat", "/proc/self/limits", limits=limits)).stdout)[name] == (str(value),) * 2


async def test_settings_leave_all_other_limits_as_they_are(start_agent: StartAgent) -> None:
    """Also that of open files, which Go raises for itself when it is below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    try:
        agent = start_agent()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    async def limits(umask: int | None) -> bytes:
        async with agent.channel().exec(ExecSpec(("cat", "/proc/self/limits"), umask=umask)) as session:
            return b"".join([event.data async for event in session.events() if isinstance(event, Stdout)])

    plain = await limits(None)
    assert limits_shown(plain)["Max open files"] == (str(hard // 2), str(hard))
    assert await limits(0o22) == plain


async def test_a_limit_too_small_for_the_agent_itself_holds_for_the_command(run: Run) -> None:
    """The step in between is a Go program, with an address space of a gigabyte and threads."""
    tight = (
        ResourceLimit(Limited.AS, 16 << 20, 16 << 20),
        ResourceLimit(Limited.DATA, 8 << 20, 8 << 20),
        ResourceLimit(Limited.NOFILE, 4, 4),
        ResourceLimit(Limited.STACK, 256 << 10, 256 << 10),
    )
    for _ in range(20):
        result = await run("sh", "-c", "ulimit -v; ulimit -n; exit 9", limits=tight)
        assert (result.stdout, result.exited) == (b"16384\n4\n", Exited(9))


async def test_a_limit_is_enforced(run: Run, tmp_path: Path) -> None:
    limits = (ResourceLimit(Limited.FSIZE, 1024, 1024),)
    result = await run("sh", "-c", f"exec head -c 4096 /dev/zero > {tmp_path}/file", limits=limits)
    assert result.exited == Exited(153, signal=25)  # SIGXFSZ
    assert (tmp_path / "file").stat().st_size == 1024


async def test_a_command_with_settings_is_like_any_other(run: Run, tmp_path: Path) -> None:
    script = "cat; echo err >&2; pwd; echo $COLOUR $0 $1; cut -d' ' -f 1,5,6 /proc/$$/stat; ls /proc/$$/fd; exit 42"
    settings = {
        "env": {"COLOUR": "red", "GOMEMLIMIT": "nonsense", "GODEBUG": "x=y"},
        "working_directory": str(tmp_path),
    }
    result = await run("sh", "-c", script, "zero", "", stdin=b"in\n", umask=0o22, **settings)
    first, pwd_line, words, numbers, *descriptors = result.stdout.decode().splitlines()
    assert (first, pwd_line, words, result.stderr) == ("in", str(tmp_path), "red zero", b"err\n")
    assert numbers == f"{result.pid} {result.pid} {result.pid}"
    assert set(descriptors) <= {"0", "1", "2", "10", "255"}  # 10, 255: the shell's
    assert result.exited == Exited(42)


async def test_a_command_with_settings_finds_no_signal_blocked_or_ignored(run: Run) -> None:
    def masks(text: bytes) -> list[str]:
        return [line for line in text.decode().splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]

    plain = await run("cat", "/proc/self/status")
    assert masks((await run("cat", "/proc/self/status", umask=0)).stdout) == masks(plain.stdout)


@pytest.mark.parametrize(
    ("argv", "reason", "says"),
    [
        (("no-such-command",), Reason.COMMAND_NOT_FOUND, "no-such-command"),
        (("/etc/passwd",), Reason.COMMAND_NOT_EXECUTABLE, "/etc/passwd"),
    ],
)
async def test_what_cannot_start_is_told_as_for_any_other(
    run: Run, argv: tuple[str, ...], reason: Reason, says: str
) -> None:
    with pytest.raises(GuestError, match=says) as caught:
        await run(*argv, umask=0o22)
    assert caught.value.reason is reason


async def test_a_file_that_only_looks_executable_is_told_as_for_any_other(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(GuestError, match="interpreter") as caught:
        await run(str(script), umask=0o22)
    assert caught.value.reason is Reason.COMMAND_NOT_EXECUTABLE


async def test_what_the_kernel_refuses_is_told_by_name(run: Run) -> None:
    too_many = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    with pytest.raises(GuestError, match=f"nofile to 1:{too_many}") as caught:
        await run("true", limits=(ResourceLimit(Limited.NOFILE, 1, too_many),))
    assert caught.value.reason is Reason.RESOURCE_LIMIT_REFUSED
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"umask": 0o1000}, "umask"),
        ({"limits": [agent_pb2.ResourceLimit(resource=16)]}, "0 to 15"),
        ({"limits": [agent_pb2.ResourceLimit(resource=2**32 - 1)]}, "0 to 15"),
        ({"limits": [agent_pb2.ResourceLimit(resource=7, soft=2, hard=1)]}, "nofile: soft 2 is above hard 1"),
        ({"limits": [agent_pb2.ResourceLimit(resource=4)] * 2}, "core: given twice"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(agent: Agent, fields: dict[str, object], says: str) -> None:
    wanted = agent_pb2.ExecRequest(argv=["true"], **fields)  # type: ignore[arg-type]
    error = refusal(await talk(agent, hello() + request(wanted)))
    assert error.code == agent_pb2.ERROR_CODE_BAD_REQUEST
    assert says in error.message


async def test_a_session_has_them_too(channel: GuestChannel, tmp_path: Path) -> None:
    limits = (ResourceLimit(Limited.CORE, 0, 0),)
    script = f"umask > {tmp_path}/said; ulimit -c >> {tmp_path}/said; tty | cut -c -9 >> {tmp_path}/said; exit 3"
    program = SessionProgram(("sh", "-c", script), umask=0o37, limits=limits)
    async with channel.attach_session(AttachSpec("", create=program)) as attachment:
        events = [event async for event in attachment.events()]
    assert events[-1] == Exited(3)
    assert (tmp_path / "said").read_text().split() == ["0037", "0", "/dev/pts/"]


@as_root
async def test_another_users_command_has_them_and_no_more_rights(run: Run) -> None:
    nobody = pwd.getpwnam("nobody")
    limits = (ResourceLimit(Limited.NOFILE, 64, 64), ResourceLimit(Limited.NPROC, 512, 512))
    script = "umask; ulimit -n; id -u; id -g; id -G; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status"
    result = await run("sh", "-c", script, user="nobody", umask=0o77, limits=limits, working_directory="/")
    umask, files, uid, gid, groups, _, capabilities, *_ = result.stdout.decode().split()
    assert (umask, files, uid, gid) == ("0077", "64", str(nobody.pw_uid), str(nobody.pw_gid))
    assert (groups.split(), int(capabilities, 16)) == ([str(nobody.pw_gid)], 0)


@as_root
async def test_another_user_cannot_enter_a_directory_with_the_agents_rights(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for settings in ({}, {"umask": 0o22}):
        with pytest.raises(GuestError, match="permission denied") as caught:
            await run("true", user="nobody", working_directory=str(tmp_path), **settings)
        assert caught.value.reason is Reason.COMMAND_NOT_EXECUTABLE


@as_root
@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("nobody:daemon", "65534 1 1"),
        ("nobody:1", "65534 1 1"),
        ("65534:4711", "65534 4711 4711"),
        ("4711", "4711 0 0"),
        ("4711:4712", "4711 4712 4712"),
        (":daemon", "0 1 1"),
    ],
)
async def test_a_user_with_a_group_has_that_group_alone(run: Run, user: str, shown: str) -> None:
    result = await run("sh", "-c", "echo $(id -u; id -g; id -G)", user=user, working_directory="/")
    assert result.stdout.decode().strip() == shown


async def test_a_group_that_is_not_there_is_told_with_what_to_do(run: Run) -> None:
    with pytest.raises(GuestError, match="no-such-group") as caught:
        await run("true", user="0:no-such-group")
    assert caught.value.reason is Reason.GUEST_GROUP_NOT_FOUND
    assert "number" in caught.value.remedy
    with pytest.raises(GuestError) as caught:
        await run("true", user="no-such-user:0")
    assert caught.value.reason is Reason.GUEST_USER_NOT_FOUND
    assert "number" in caught.value.remedy


async def test_a_refused_detached_command_is_told_too(channel: GuestChannel) -> None:
    with pytest.raises(GuestError) as caught:
        async with channel.exec(ExecSpec(("true",), user="0:no-such-group", detach=True)):
            pass
    assert caught.value.reason is Reason.GUEST_GROUP_NOT_FOUND
