"""What the server uses is what is told; what it doesn't use is told, too."""

import json
import os
import subprocess
import sys

import pytest

from harness import Server, refused, running_server, server_directory
from ingle.v1 import system_pb2, vm_pb2


def _values(server: Server) -> dict[str, tuple[str, str]]:
    told = server.system.GetSettings(system_pb2.GetSettingsRequest()).settings
    return {setting.name: (setting.value, setting.origin) for setting in told}


def _differences(server: Server, **environment: str) -> list[str]:
    return list(server.system.GetSettings(system_pb2.GetSettingsRequest(environment=environment)).differences)


def _ingle(server: Server, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    env = {key: value for key, value in server.env.items() if not key.startswith("INGLE_")}
    argv = [sys.executable, "-m", "ingle.cli", *arguments]
    env |= {"INGLE_MODE": "user", **variables}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_the_file_is_read_again_when_it_has_changed_and_the_environment_is_the_servers_own() -> None:
    with server_directory() as root, running_server(root, {"INGLE_VCPUS": "1"}) as server:
        file = root / "config" / "ingle" / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text('memory_bytes = "300M"\nvcpus = 2\ndomain = "other"\n')
        values = _values(server)
        assert values["memory_bytes"] == ("300 MiB", str(file))
        assert values["vcpus"] == ("1", "$INGLE_VCPUS")
        assert values["domain"][1] == "built-in"
        assert any(said.startswith("domain is") and "other" in said for said in _differences(server, INGLE_VCPUS="1"))

        said = "\n".join(_differences(server, INGLE_VCPUS="2", INGLE_MEMROY_BYTES="1G"))
        assert "vcpus is 1 for the server ($INGLE_VCPUS), and 2 by $INGLE_VCPUS" in said
        assert "$INGLE_MEMROY_BYTES means nothing; is $INGLE_MEMORY_BYTES meant?" in said
        assert "INGLE_VCPUS" in _differences(server, INGLE_VCPUS="many")[-1]

        file.write_text("vcpu = 2\n")
        error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest())
        assert error.reason == "INVALID_ARGUMENT"
        assert str(file) in error.message
        assert _values(server)["memory_bytes"] == ("300 MiB", str(file))


def test_of_variables_that_mean_nothing_the_first_are_told_and_very_many_are_refused() -> None:
    with server_directory() as root, running_server(root, {"INGLE_WARM": "true"}) as server:  # as for who says nothing
        said = _differences(server, **{f"INGLE_{number:04}": "" for number in range(1000)})
        assert len(said) == 21
        assert said[-1] == "980 more variables INGLE_… mean nothing"
        for environment in ({f"INGLE_{number}": "" for number in range(1001)}, {"INGLE_DOMAIN": "a." * 40_000}):
            error = refused(server.system.GetSettings, system_pb2.GetSettingsRequest(environment=environment))
            assert (error.reason, error.message.partition(":")[0]) == ("INVALID_ARGUMENT", "environment")


@pytest.mark.parametrize("kind", ["fifo", "endless", "nested", "directory", "bytes"])
def test_whatever_is_in_the_place_of_the_file_is_told_and_holds_nothing_up(kind: str) -> None:
    with server_directory() as root, running_server(root) as server:
        file = root / "config" / "ingle" / "config.toml"
        file.parent.mkdir(parents=True)
        match kind:
            case "fifo":
                os.mkfifo(file)
            case "endless":
                file.symlink_to("/dev/zero")
            case "nested":
                file.write_text("image = " + "[" * 10_000)
            case "directory":
                file.mkdir()
            case _:
                file.write_bytes(b"\xff\xfe")
        error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest())
        assert error.reason == "INVALID_ARGUMENT"
        assert str(file) in error.message
        assert _values(server)["vcpus"] == ("1", "built-in")
        assert any(str(file) in said for said in _differences(server))
        assert server.stop() == 0
        told = _ingle(server, "vm", "list")
        assert told.returncode == 1
        assert str(file) in told.stderr


@pytest.mark.parametrize("running", [True, False])
def test_doctor_shows_what_the_server_uses_and_what_it_does_not(running: bool) -> None:
    with server_directory() as root, running_server(root) as server:
        if not running:
            assert server.stop() == 0
        report = json.loads(_ingle(server, "doctor", "--json", INGLE_DISK_BYTES="3G", INGLE_VCPU="1").stdout)
        disk = next(setting for setting in report["settings"] if setting["name"] == "disk_bytes")
        assert disk["origin"] == ("built-in" if running else "$INGLE_DISK_BYTES")
        said = [check["detail"] for check in report["checks"] if check["name"] == "settings"]
        assert any("$INGLE_VCPU means nothing; is $INGLE_VCPUS meant?" in each for each in said)
        assert any("by $INGLE_DISK_BYTES" in each for each in said) == running


def test_a_command_whose_environment_differs_says_so_and_a_restart_takes_it_over() -> None:
    with server_directory() as root, running_server(root) as server:
        said = _ingle(server, "vm", "list", INGLE_DISK_BYTES="3G")
        assert said.returncode == 0
        assert "disk_bytes" in said.stderr
        assert "$INGLE_DISK_BYTES" in said.stderr
        assert _ingle(server, "vm", "list").stderr == ""
        assert server.process is not None
        again = _ingle(server, "server", "restart", INGLE_DISK_BYTES="3G")
        assert again.returncode == 0, again.stderr
        assert str(server.process.pid) not in again.stdout
        assert _ingle(server, "vm", "list", INGLE_DISK_BYTES="3G").stderr == ""
        assert _ingle(server, "server", "stop").returncode == 0
        server.process.wait(60)
