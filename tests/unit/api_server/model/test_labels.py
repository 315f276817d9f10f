"""Labels: from who asks for a VM into it, and to who looks at it."""

from dataclasses import replace

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.spec import Defaults, VmChange
from ingle.api_server.rpc import convert
from ingle.v1 import vm_pb2
from unit.api_server.vmms import IMAGE, KERNEL, VM


def test_labels_that_were_asked_for_are_those_of_the_vm_and_told_with_it() -> None:
    wish = convert.vm_spec(vm_pb2.VmSpec(labels={"team": "web", "ci": ""})).with_defaults(Defaults())
    settings = wish.settings(IMAGE, KERNEL, engine="qemu", disk_backend="copy", network="user")
    assert dict(convert.vm(replace(VM, settings=settings)).labels) == {"team": "web", "ci": ""}


LABELLED = replace(VM, settings=replace(VM.settings, labels={"team": "web", "ci": ""}))


@pytest.mark.parametrize(
    ("request_", "taken"),
    [
        (vm_pb2.ListVmsRequest(), True),
        (vm_pb2.ListVmsRequest(labels=["team"]), True),
        (vm_pb2.ListVmsRequest(labels=["team=web", "ci="]), True),
        (vm_pb2.ListVmsRequest(labels=["team=db"]), False),
        (vm_pb2.ListVmsRequest(labels=["team=web", "else"]), False),
        (vm_pb2.ListVmsRequest(states=[vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_CREATING]), True),
        (vm_pb2.ListVmsRequest(labels=["team"], states=[vm_pb2.VM_STATE_RUNNING]), False),
    ],
)
def test_a_list_has_the_vms_with_all_of_the_labels_in_one_of_the_states(
    request_: vm_pb2.ListVmsRequest, taken: bool
) -> None:
    assert convert.vm_filter(request_).takes(LABELLED) is taken


@pytest.mark.parametrize("labels", [["a=1", "a=2"], ["a", "a=1"]])
def test_a_label_with_two_values_is_no_filter(labels: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="two values"):
        convert.vm_filter(vm_pb2.ListVmsRequest(labels=labels))


def test_an_unknown_state_is_no_filter() -> None:
    with pytest.raises(InvalidArgument, match="state 0"):
        convert.vm_filter(vm_pb2.ListVmsRequest(states=[vm_pb2.VM_STATE_UNSPECIFIED]))


def test_a_change_replaces_all_labels_and_none_of_them_is_a_value() -> None:
    request = vm_pb2.UpdateVmRequest(spec=vm_pb2.VmSpec(labels={"ci": "1"}))
    request.update_mask.paths.append("labels")
    assert convert.vm_change(request).applied(LABELLED).settings.labels == {"ci": "1"}
    request.spec.labels.clear()
    assert convert.vm_change(request).applied(LABELLED).settings.labels == {}
    assert VmChange(nat=True).applied(LABELLED).settings.labels == LABELLED.settings.labels
