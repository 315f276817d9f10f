"""What snapshots and forks take of a quota."""

import os

from contract.test_snapshots import disk, forks, server, stopped, taken
from harness import Server, refused
from ingle.v1 import vm_pb2

__all__ = ["server"]


def test_what_a_quota_has_room_for_counts_a_snapshot_that_is_forked_but_once(server: Server) -> None:
    web = stopped(server, "web")
    with disk(server, web.id).open("r+b") as file:
        file.write(os.urandom(8 << 20))
    size = taken(server, "web", "before").size_bytes
    assert size >= 8 << 20
    config = server.root / "config" / "ingle" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[quotas.users."{os.getuid()}"]\ndisk_bytes = {2 * web.disk_bytes + size}\n')
    try:
        server.stop()
        server.start()
        assert len(forks(server, snapshot="before")) == 1
        error = refused(server.vms.ForkVm, vm_pb2.ForkVmRequest(snapshot="before"))
        assert error.reason == "QUOTA_EXCEEDED"
    finally:
        config.unlink()
        server.stop()
        server.start()
