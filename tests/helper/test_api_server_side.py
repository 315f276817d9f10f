"""The API server's side of the helper: what it asks for is there, and what goes wrong is told as its own error."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from free_ports import free_port
from helper.process import Helper, vm
from ingle.api_server.adapters.helper import AbsentNetwork, HelperDevices, HelperNetwork
from ingle.api_server.adapters.vmm import boot
from ingle.api_server.host.context import current_operation
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import VmState
from ingle.helper.v1 import helper_pb2 as pb
from unit.api_server.vmms import VM

SHARED = replace(VM, id=vm(1), slot=2, settings=replace(VM.settings, network="default", nat=False))
OTHER = replace(VM, id=vm(2), name="other", slot=3, settings=replace(VM.settings, network="default", nat=True))


def listed(helper: Helper) -> pb.ListResponse:
    response: pb.ListResponse = helper.stub.List(pb.ListRequest())
    return response


@pytest.fixture
async def network(helper: Helper, tmp_path: Path) -> AsyncIterator[HelperNetwork]:
    """On a host that forwards IPv6."""
    found = HelperNetwork(helper.socket, sysctls=sysctls(tmp_path, ipv6=1))
    yield found
    found.close()


def sysctls(directory: Path, *, ipv6: int) -> Path:
    """Those of a host that forwards IPv6, or not."""
    name = directory / "ipv6/conf/all/forwarding"
    name.parent.mkdir(parents=True)
    name.write_text(f"{ipv6}\n")
    return directory


async def test_there_is_no_way_out_by_ipv6_where_it_leads_nowhere(helper: Helper, tmp_path: Path) -> None:
    link = await HelperNetwork(helper.socket, sysctls=sysctls(tmp_path, ipv6=0)).connect(SHARED)
    assert (link.address6, link.gateway6) == ("fd69:6e67:6c65::2", "")


async def test_connecting_makes_everything_a_start_takes_and_can_be_repeated(
    helper: Helper, network: HelperNetwork
) -> None:
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    ports = (PublishedPort(tcp, 80), PublishedPort(udp, 53, Protocol.UDP))
    wanted = replace(SHARED, settings=replace(SHARED.settings, nat=True, ports=ports))
    link = await network.connect(wanted)
    assert await network.connect(wanted) == link
    assert (link.address, link.prefix_length, link.gateway) == ("10.213.0.2", 24, "10.213.0.1")
    (tap,), (made,) = listed(helper).taps, listed(helper).networks
    assert (link.address6, link.gateway6) == (tap.ipv6, made.ipv6_gateway) == ("fd69:6e67:6c65::2", "fd69:6e67:6c65::1")
    found = listed(helper)
    assert [(tap.vm_id, tap.interface, tap.mac, tap.nat, tap.present) for tap in found.taps] == [
        (wanted.id, link.interface, link.mac, True, True)
    ]
    assert {(port.host_port, port.vm_port, port.protocol) for port in found.ports} == {
        (tcp, 80, pb.PROTOCOL_TCP),
        (udp, 53, pb.PROTOCOL_UDP),
    }


async def test_ports_of_one_that_is_asleep_lead_nowhere_until_it_is_awake(
    helper: Helper, network: HelperNetwork
) -> None:
    ports = (PublishedPort(free_port(), 80), PublishedPort(free_port(socket.SOCK_DGRAM), 53, Protocol.UDP))
    awake = replace(SHARED, settings=replace(SHARED.settings, ports=ports))
    asleep = replace(awake, state=VmState.PAUSED, asleep_since=VM.created_at)
    for led, wanted in ((2, awake), (0, asleep), (0, asleep), (2, awake), (2, awake)):
        await network.connect(wanted)
        assert len(listed(helper).ports) == led
    for led, wanted in ((0, asleep), (2, awake)):
        await network.reconcile([wanted])
        assert len(listed(helper).ports) == led


async def test_nat_is_changed_by_connecting_again(helper: Helper) -> None:
    network = HelperNetwork(helper.socket)
    for nat in (False, True, False):
        await network.connect(replace(SHARED, settings=replace(SHARED.settings, nat=nat)))
        assert [tap.nat for tap in listed(helper).taps] == [nat]


async def test_dns_is_led_anew_after_whatever_has_led_it_back(helper: Helper) -> None:
    network = HelperNetwork(helper.socket)
    for _ in range(2):
        await network.connect(SHARED)
        await network.lead_dns(0, 20053)
        assert "udp . 53 : 20053" in helper.namespace.rules()
        await network.connect(OTHER)
        assert "udp . 53 : 20053" in helper.namespace.rules()
        await network.reconcile([SHARED])
        assert "udp . 53 : 10053" in helper.namespace.rules()
        await network.lead_dns(0, 20053)
        for slot, vm_id in (2, SHARED.id), (3, OTHER.id):
            await network.disconnect(slot, vm_id)


async def test_the_network_goes_with_its_last_vm_and_absent_is_fine(helper: Helper) -> None:
    network = HelperNetwork(helper.socket)
    for each in (SHARED, OTHER):
        await network.connect(each)
    await network.disconnect(2, SHARED.id)
    assert [tap.vm_id for tap in listed(helper).taps] == [OTHER.id]
    assert len(listed(helper).networks) == 1
    for _ in range(2):
        await network.disconnect(3, OTHER.id)
        assert listed(helper).networks == []


async def test_reconciling_leaves_exactly_what_is_wanted(helper: Helper, network: HelperNetwork) -> None:
    await network.connect(SHARED)
    taken = free_port()
    await network.reconcile([replace(OTHER, settings=replace(OTHER.settings, ports=(PublishedPort(taken, 80),)))])
    assert [(tap.vm_id, tap.nat) for tap in listed(helper).taps] == [(OTHER.id, True)]
    assert [port.host_port for port in listed(helper).ports] == [taken]
    await network.reconcile([])
    assert listed(helper) == pb.ListResponse()


async def test_what_leads_nowhere_has_no_address_is_no_vms_and_goes_when_it_is_given_back(
    helper: Helper, network: HelperNetwork
) -> None:
    links = [await network.connect_nowhere(vm_id) for vm_id in (SHARED.id, OTHER.id, SHARED.id)]
    assert (links[0] == links[2], links[0].interface == links[1].interface) == (True, False)
    assert [boot.shared_networks(link) for link in links] == [()] * 3
    assert {tap.interface for tap in listed(helper).taps} == {link.interface for link in links}
    for _ in range(2):
        await network.disconnect_nowhere(SHARED.id)
    assert [tap.vm_id for tap in listed(helper).taps] == [OTHER.id]
    assert (await network.connect_nowhere(SHARED.id)) == links[0]
    next_server = HelperNetwork(helper.socket)
    await next_server.disconnect_nowhere(OTHER.id)  # of which it knows nothing
    await next_server.reconcile([])
    assert listed(helper) == pb.ListResponse()
    assert (await next_server.connect_nowhere(OTHER.id)).interface == links[0].interface


async def test_a_refusal_is_an_error_of_the_helpers_reason_and_remedy(helper: Helper, network: HelperNetwork) -> None:
    taken = free_port()
    await network.connect(replace(SHARED, settings=replace(SHARED.settings, ports=(PublishedPort(taken, 80),))))
    with pytest.raises(HostProblem, match=f"port {taken}/tcp is published") as refused:
        await network.connect(replace(OTHER, settings=replace(OTHER.settings, ports=(PublishedPort(taken, 80),))))
    assert refused.value.reason is Reason.IN_USE
    assert refused.value.remedy
    assert [tap.vm_id for tap in listed(helper).taps] == [SHARED.id]  # all of a call, or none of it


async def test_the_operation_is_in_the_helpers_audit(helper: Helper) -> None:
    token = current_operation.set("op-0123456789ab")
    try:
        await HelperNetwork(helper.socket).connect(SHARED)
    finally:
        current_operation.reset(token)
    assert [(line["verb"], line["op_id"]) for line in helper.audit()] == [("Apply", "op-0123456789ab")]


async def test_a_helper_that_is_gone_is_told_and_the_next_one_is_found(own_helper: Helper) -> None:
    network = HelperNetwork(own_helper.socket, patience=0.0)
    await network.connect(SHARED)
    own_helper.kill()
    assert "does not answer" in await network.problem()
    own_helper.start()
    assert await network.problem() == ""
    assert [tap.vm_id for tap in listed(own_helper).taps] == [SHARED.id]


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_call_waits_for_a_helper_that_is_restarted(own_helper: Helper, how: str) -> None:
    network = HelperNetwork(own_helper.socket, patience=60.0)
    await network.connect(SHARED)
    getattr(own_helper, how)()
    waiting = [asyncio.create_task(network.connect(each)) for each in (SHARED, OTHER)]
    await asyncio.sleep(0.3)
    assert not any(each.done() for each in waiting)
    await asyncio.to_thread(own_helper.start)
    await asyncio.gather(*waiting)
    assert {tap.vm_id for tap in listed(own_helper).taps} == {SHARED.id, OTHER.id}


async def test_calls_survive_any_number_of_helpers_killed_under_them(own_helper: Helper) -> None:
    """A call may be on its way, half done, or done and not yet answered when its helper is killed."""
    network = HelperNetwork(own_helper.socket, patience=60.0)
    stopping = asyncio.Event()
    calls = 0

    async def work() -> None:
        nonlocal calls
        while not stopping.is_set():
            await network.connect(OTHER)
            await network.disconnect(3, OTHER.id)
            calls += 2

    working = asyncio.create_task(work())
    for _ in range(5):
        before = calls
        while calls < before + 4 and not working.done():
            await asyncio.sleep(0.001)
        assert own_helper.process is not None
        own_helper.process.kill()
        await asyncio.to_thread(own_helper.kill)
        await asyncio.to_thread(own_helper.start)
    stopping.set()
    await working
    assert listed(own_helper).taps == []


async def test_who_has_waited_in_vain_does_not_wait_again_until_a_helper_answers(own_helper: Helper) -> None:
    network = HelperNetwork(own_helper.socket, patience=60.0)
    own_helper.kill()
    network._helper._wait = 0.0  # as after a minute in vain
    with pytest.raises(HostProblem, match="does not answer"):
        await asyncio.wait_for(network.connect(SHARED), 30)
    own_helper.start()
    await network.connect(SHARED)
    own_helper.kill()
    waiting = asyncio.create_task(network.connect(SHARED))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    waiting.cancel()


async def test_no_helper_is_a_problem_that_says_what_to_type(tmp_path: Path) -> None:
    network = HelperNetwork(tmp_path / "helper.sock", patience=0.0)
    assert "does not listen" in await network.problem()
    with pytest.raises(HostProblem, match="does not listen") as refused:
        await network.connect(SHARED)
    assert "systemctl restart ingle-helper" in refused.value.remedy
    with pytest.raises(HostProblem) as absent:
        await AbsentNetwork().connect(SHARED)
    assert absent.value.remedy == "sudo ingle system install"


async def test_a_helper_that_was_never_started_is_not_waited_for(tmp_path: Path) -> None:
    devices = HelperDevices(tmp_path / "run" / "helper.sock", patience=3600.0)
    async with asyncio.timeout(60):
        problem = await devices.problem()
    assert "does not listen" in problem
    assert "sudo systemctl restart ingle-helper-dm" in problem
