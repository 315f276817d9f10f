"""Commands that look and change: what they print, what they refuse, how they end."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import OP_ID, World
from ingle.v1 import error_pb2, operation_pb2, vm_pb2


async def test_lists_vms_as_a_table(ingle: Ingle, world: World) -> None:
    world.add_vm("web", image_name="debian:bookworm")
    listed = await ingle("vm", "list")
    assert (listed.code, listed.err) == (0, "")
    headings, row = listed.text.splitlines()
    assert headings.split() == ["NAME", "ID", "STATE", "IMAGE", "VCPUS", "MEMORY", "DISK", "AGE"]
    assert row.split()[:6] == ["web", "000000000001", "running", "debian:bookworm", "1", "256M"]


async def test_json_is_snake_case_with_numbers_as_numbers_and_nothing_left_out(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    (vm,) = json.loads((await ingle("vm", "list", "--json")).out)
    assert set(vm) == {field.name for field in vm_pb2.Vm.DESCRIPTOR.fields}
    assert vm["memory_bytes"] == 256 << 20
    assert vm["state"] == "running"
    assert vm["created_at"] == "2023-11-14T22:13:20Z"
    assert vm["started_at"] is None


async def test_every_call_tells_its_api_version(ingle: Ingle, world: World) -> None:
    await ingle("vm", "list")
    assert world.versions == {"1"}


async def test_aliases_do_the_same(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    tables = {(await ingle(*words)).text for words in (("vm", "list"), ("vm", "ls"), ("vm", "ps"), ("ps",))}
    assert len(tables) == 1


async def test_an_error_says_what_failed_and_what_to_type_and_its_op_id(ingle: Ingle) -> None:
    shown = await ingle("vm", "show", "ghost")
    assert shown.code == 1
    assert shown.out == b""
    assert shown.err.splitlines() == [
        "ingle: no VM is called 'ghost'",
        "  remedy: ingle vm list",
        f"  op_id:  {OP_ID}",
    ]


async def test_with_json_an_error_is_one_json_line_on_stderr(ingle: Ingle) -> None:
    shown = await ingle("vm", "show", "--json", "ghost")
    assert (shown.code, shown.out) == (1, b"")
    assert json.loads(shown.err) == {
        "error": {
            "reason": "VM_NOT_FOUND",
            "message": "no VM is called 'ghost'",
            "remedy": "ingle vm list",
            "op_id": OP_ID,
            "subject": "",
        }
    }


async def test_many_are_changed_side_by_side_each_once_though_one_fails(ingle: Ingle, world: World) -> None:
    for name in ("a", "b", "c"):
        world.add_vm(name)
    world.stops_together = 3
    stopped = await ingle("vm", "stop", "a", "b", "ghost", "a", "000000000002", "c")
    assert stopped.code == 1
    assert stopped.text.split() == ["a", "b", "c"]
    assert stopped.err.startswith("ingle: ghost: no VM is called 'ghost'\n")
    assert sorted(world.changes) == [("stop", "a"), ("stop", "b"), ("stop", "c")]


async def test_changes_of_many_as_json(ingle: Ingle, world: World) -> None:
    world.add_vm("a", vm_pb2.VM_STATE_STOPPED)
    started = await ingle("vm", "start", "--json", "a", "ghost")
    assert started.code == 1
    (answer,) = json.loads(started.out)
    assert (answer["reference"], answer["vm"]["state"]) == ("a", "running")
    assert json.loads(started.err)["error"]["subject"] == "ghost"


async def test_prune_spares_what_runs(ingle: Ingle, world: World) -> None:
    world.add_vm("alive")
    world.add_vm("done", vm_pb2.VM_STATE_STOPPED)
    world.add_vm("broken", vm_pb2.VM_STATE_ERROR)
    pruned = await ingle("vm", "prune", "-f")
    assert (pruned.code, pruned.text.split()) == (0, ["done", "broken"])
    assert world.looked_up == [], "by now their names may be others'"
    assert [vm.name for vm in world.vms.values()] == ["alive"]


async def test_prune_without_force_asks_and_nobody_there_is_no_yes(ingle: Ingle, world: World) -> None:
    world.add_vm("done", vm_pb2.VM_STATE_STOPPED)
    pruned = await ingle("vm", "prune")
    assert pruned.code == 1
    assert "ingle vm prune --force" in pruned.err
    assert len(world.vms) == 1


async def test_create_waits_and_prints_the_name_alone(ingle: Ingle, world: World) -> None:
    created = await ingle(
        "vm",
        "create",
        "--name",
        "web",
        "--memory",
        "1.5GiB",
        "--vcpu",
        "2",
        "-e",
        "A=b=c",
        "-e",
        "HOME",
        "--accel",
        "tcg",
        "--engine",
        "qemu",
    )
    assert (created.code, created.text) == (0, "web\n")
    (spec,) = world.created
    assert (spec.memory_bytes, spec.vcpus, dict(spec.env)) == (
        1536 << 20,
        2,
        {"A": "b=c", "HOME": ingle.environment["HOME"]},
    )
    assert spec.acceleration == vm_pb2.ACCELERATION_TCG
    assert spec.engine == "qemu"
    assert not spec.HasField("disk_bytes")


async def test_labels_are_keys_with_or_without_values(ingle: Ingle, world: World) -> None:
    assert (await ingle("vm", "create", "--name", "web", "-l", "team=a=b", "--label", "ci")).code == 0
    assert dict(world.created[0].labels) == {"team": "a=b", "ci": ""}
    world.vms[next(iter(world.vms))].labels.update(world.created[0].labels)
    assert "labels        ci, team=a=b" in (await ingle("vm", "show", "web")).text


async def test_labels_are_written_and_taken_away_on_the_vm_as_it_was_seen(ingle: Ingle, world: World) -> None:
    vm = world.add_vm("web")
    vm.labels.update({"team": "web", "ci": ""})
    vm.generation = 7
    assert (await ingle("vm", "update", "web", "-l", "team=db", "-l", "ci-", "-l", "new")).code == 0
    (request,) = world.updates
    assert dict(request.spec.labels) == {"team": "db", "new": ""}
    assert (list(request.update_mask.paths), request.expected_generation) == (["labels"], 7)


async def test_a_list_is_filtered_by_the_server(ingle: Ingle, world: World) -> None:
    assert (await ingle("vm", "list", "-f", "label=team=web", "-f", "state=running")).code == 0
    refused = await ingle("vm", "list", "--filter", "state=sleeping")
    assert (refused.code, "one of creating" in refused.err) == (2, True)


async def test_an_init_and_ssh_keys_from_files(ingle: Ingle, world: World, tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_text("ssh-ed25519 AAAA me\n")
    (tmp_path / "many").write_text("# mine\n\n  ssh-rsa BBBB\nssh-rsa CCCC two words\n")
    keys = [argument for name in ("a.pub", "many") for argument in ("--ssh-key", str(tmp_path / name))]
    created = await ingle("vm", "create", "--name", "web", "--init", "image", *keys)
    assert created.code == 0
    assert world.created[0].init == vm_pb2.INIT_IMAGE
    assert list(world.created[0].ssh_keys) == ["ssh-ed25519 AAAA me", "ssh-rsa BBBB", "ssh-rsa CCCC two words"]
    await ingle("vm", "create", "--name", "plain")
    assert (world.created[1].init, len(world.created[1].ssh_keys)) == (vm_pb2.INIT_UNSPECIFIED, 0)


@pytest.mark.parametrize("content", [None, "# nothing\n"])
async def test_a_key_file_without_keys_is_wrong_usage(
    ingle: Ingle, world: World, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    created = await ingle("vm", "create", "--ssh-key", str(tmp_path / "keys"))
    assert created.code == 2
    assert str(tmp_path / "keys") in " ".join(created.err.split())
    assert world.created == []


async def test_an_explicit_zero_reaches_the_server(ingle: Ingle, world: World) -> None:
    await ingle("vm", "create", "--vcpu", "0")
    assert world.created[0].HasField("vcpus")


async def test_what_takes_long_is_told_though_nobody_watches(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    process = await ingle.start("vm", "create")
    assert process.stderr is not None
    async with asyncio.timeout(60):
        said = [await process.stderr.readline()]
        while said[-1] != b"Booting the kernel\n":
            said.append(await process.stderr.readline())
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


async def test_verbose_leaves_a_line_per_stage_with_its_time(ingle: Ingle) -> None:
    created = await ingle("vm", "create", "-v")
    assert [line.split() for line in created.err.splitlines()[1:3]] == [
        ["0.25", "s", "disk", "Making", "the", "root", "disk"],
        ["1.50", "s", "boot", "Booting", "the", "kernel"],
    ]


async def test_a_failed_create_tells_why_as_any_error(ingle: Ingle, world: World) -> None:
    world.create_error = error_pb2.Failure(
        reason=error_pb2.ERROR_REASON_DISK_FULL, message="no space left", remedy="df -h", op_id=OP_ID
    )
    created = await ingle("vm", "create", "--json")
    assert created.code == 1
    error = json.loads(created.err)["error"]
    assert (error["reason"], error["remedy"], error["op_id"]) == ("DISK_FULL", "df -h", OP_ID)


async def test_set_changes_what_was_given_and_nothing_else(ingle: Ingle, world: World) -> None:
    world.add_vm("web", vm_pb2.VM_STATE_STOPPED)
    assert (await ingle("vm", "update", "web", "--memory", "1G")).code == 0
    (vm,) = world.vms.values()
    assert (vm.name, vm.memory_bytes, vm.vcpus) == ("web", 1 << 30, 1)


async def test_set_of_nothing_is_refused(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    refused = await ingle("vm", "update", "web")
    assert refused.code == 2
    assert "nothing to change" in refused.err


async def test_kill_takes_signals_by_any_of_their_names(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    for name in ("KILL", "sigterm", "2"):
        assert (await ingle("vm", "kill", "--signal", name, "web")).code == 0
    assert [what for what, _ in world.changes] == ["kill 9", "kill 15", "kill 2"]


async def test_usage_errors_end_with_2_and_say_the_allowed_form(ingle: Ingle, world: World) -> None:
    for arguments, said in (
        (("vm", "create", "--memory", "2XB"), "K, M, G or T"),
        (("vm", "create", "--vcpu", "-1"), "whole number"),
        (("vm", "create", "--vcpu", "99999999999"), "whole number"),
        (("vm", "create", "-e", "=x"), "KEY=VALUE"),
        (("vm", "create", "-e", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE=VALUE"),
        (("vm", "stop", "--timeout", "soon", "web"), "30s"),
        (("vm", "kill", "--signal", "NONSENSE", "web"), "KILL (9)"),
        (("vm", "run"), "give a command without --tty, or --detach"),
        (("vm", "run", "--rm"), "give a command without --tty, or --detach"),
        (("vm", "run", "--detach", "--rm"), "nothing was created"),
        (("vm", "run", "--detach", "-t", "--", "true"), "nothing was created"),
        (("vm", "run", "-t", "--", "true"), "no terminal on stdin and stdout"),
        (("vm", "exec", "web", "-u", "me", "ls"), "before"),
        (("vm", "lst"), "list"),
    ):
        refused = await ingle(*arguments)
        assert refused.code == 2, refused
        assert said in " ".join(refused.err.split()), refused
    assert world.created == []


async def test_operations_are_told_with_the_names_of_what_they_changed(ingle: Ingle, world: World) -> None:
    vm = world.add_vm("web")
    for target in (vm.id, "cd" * 32, "0123456789ab"):
        world.operations.append(operation_pb2.Operation(id=OP_ID, target_id=target))
    _, *rows = (await ingle("operation", "list")).text.splitlines()
    for row, name in zip(rows, ("web", "debian", "0123456789ab"), strict=True):
        assert name in row.split()
    assert f"web  {vm.id}" in (await ingle("operation", "show", OP_ID)).text


async def test_names_alone_and_json_are_two_wishes(ingle: Ingle) -> None:
    refused = await ingle("vm", "list", "-q", "--json")
    assert refused.code == 2
    assert "--quiet" in json.loads(refused.err)["error"]["message"]


async def test_logs_are_bytes(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    assert (await ingle("vm", "logs", "--tail", "2", "web")).out == b"line 0 \xff\nline 1 \xff\n"
    assert (await ingle("vm", "logs", "--tail", "1", "-t", "web")).out == b"1970-01-01T00:00:00.000Z line 0 \xff\n"


@pytest.mark.parametrize("arguments", [("vm", "list"), ("vm", "logs", "web"), ("vm", "list", "--json")])
async def test_output_that_cannot_be_written_is_told(
    ingle: Ingle, world: World, full_disk: int, arguments: tuple[str, ...]
) -> None:
    world.add_vm("web")
    process = await ingle.start(*arguments, stdout=full_disk)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert "writing the output: No space left on device" in said.decode()
    assert len(said.splitlines()) == 1


async def test_stats_of_all_that_run(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.add_vm("off", vm_pb2.VM_STATE_STOPPED)
    (answer,) = json.loads((await ingle("vm", "stats", "--json")).out)
    assert (answer["reference"], answer["vmm"]["cpu_time"]) == ("web", 1.5)
    assert answer["guest"]["memory_total_bytes"] == 1 << 40
    assert "web" in (await ingle("vm", "stats")).text


async def test_health_of_what_does_not_answer_is_exit_code_1(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    world.add_vm("off", vm_pb2.VM_STATE_STOPPED)
    assert (await ingle("vm", "health", "web")).code == 0
    assert (await ingle("vm", "health", "off")).code == 1


async def test_version_of_both_sides(ingle: Ingle, isolated: Ingle) -> None:
    assert json.loads((await ingle("version", "--json")).out)["server"] == {"version": "9.9", "api_version": 1}
    assert json.loads((await isolated("version", "--json")).out)["server"] is None


async def test_a_method_the_server_lacks_is_an_error_like_any_other(ingle: Ingle) -> None:
    listed = await ingle("kernel", "catalog")
    assert listed.code == 1
    assert listed.err.startswith("ingle: ")
    assert "Traceback" not in listed.err


async def test_what_is_not_utf8_is_refused(ingle: Ingle) -> None:
    refused = await ingle("vm", "show", "\udcff")
    assert refused.code == 2
    assert "UTF-8" in refused.err


async def test_of_an_image_that_others_have_too_it_is_told_that_it_stays(ingle: Ingle) -> None:
    deleted = await ingle("image", "delete", "base")
    assert (deleted.code, deleted.text) == (0, "base\n")
    assert deleted.err == "base: it stays for others, who have it too\n"
    (told,) = json.loads((await ingle("image", "delete", "--json", "base")).out)
    assert told == {"reference": "base", "stays": True, "untagged": False}
