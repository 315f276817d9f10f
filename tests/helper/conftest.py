"""Fixtures: the root helper, in a network namespace of its own."""

import os
from collections.abc import Iterator

import pytest

from helper.process import Helper, helper_in_namespace
from ingle.helper.v1 import helper_pb2 as pb


@pytest.fixture(scope="session")
def shared_helper() -> Iterator[Helper]:
    """Starting one takes longer than most tests do."""
    if os.getuid() != 0:
        pytest.skip("only root can make network namespaces and taps")
    with helper_in_namespace() as running:
        yield running


@pytest.fixture
def helper(shared_helper: Helper) -> Helper:
    """One that runs, and has nothing."""
    shared_helper.stub.Reconcile(pb.ReconcileRequest())
    shared_helper.forget_audit()
    return shared_helper


@pytest.fixture
def own_helper() -> Iterator[Helper]:
    """One to stop, to kill and to start again."""
    if os.getuid() != 0:
        pytest.skip("only root can make network namespaces and taps")
    with helper_in_namespace() as running:
        yield running
