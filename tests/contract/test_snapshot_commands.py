"""What `ingle snapshot` does and tells, with VMs whose machine is a stand-in."""

from contract.test_engines import create
from contract.test_snapshot_chains import chain, web
from contract.test_snapshots import ingle, server
from harness import Server
from ingle.v1 import vm_pb2

__all__ = ["server", "web"]  # the fixtures


def test_the_command_line_keeps_forks_and_puts_back(server: Server) -> None:
    create(server, "web", "red")
    made = ingle(server, "snapshot", "create", "web", "before", "-l", "keep=yes")
    assert made.stdout == "before\n"
    assert made.stderr.startswith("web stood still for ")
    assert ingle(server, "snapshot", "create", "--disk", "web", "--json").stdout.count('"memory": false') == 1
    (before, other) = server.snapshot_list()
    ingle(server, "snapshot", "delete", other.id[:7])
    head, row = (line.split() for line in ingle(server, "snapshot", "list").stdout.splitlines())
    assert head[:4] == ["NAME", "ID", "OF", "WITH"]
    assert row[:5] == ["before", before.id, "web", "memory,", "disk"]
    assert ingle(server, "snapshot", "ls", "-q", "-f", "vm=web", "-f", "label=keep").stdout == "before\n"
    assert ingle(server, "snapshot", "ls", "-q", "-f", "vm=db").stdout == ""
    assert ingle(server, "vm", "fork", "before", "-n", "2", "--name", "try-{}").stdout == "try-1\ntry-2\n"
    assert "try-1 try-2" in ingle(server, "snapshot", "show", "before").stdout
    assert ingle(server, "vm", "restore", "web", "before").stdout == "web\n"
    assert ["snapshot", before.id] in [line.split() for line in ingle(server, "vm", "show", "web").stdout.splitlines()]
    now = ingle(server, "vm", "fork", "web", "--name", "now")
    assert now.stdout == "now\n"
    assert "web stood still for " in now.stderr, "and on a busy host what takes long"
    unknown = ingle(server, "vm", "fork", "wbe", code=1).stderr
    assert ("no VM 'wbe'" in unknown, "no snapshot 'wbe'" in unknown) == (True, True)
    told = ingle(server, "operation", "list", "--filter", "kind=create_snapshot").stdout
    assert "before" in told
    gone = ingle(server, "snapshot", "rm", "before")
    assert (gone.stdout, "try-1, try-2, web rest on it no more" in gone.stderr) == ("before\n", True)
    assert ingle(server, "snapshot", "list").stdout.splitlines()[1].split()[:2] == ["<none>", before.id]


def test_the_command_line_tells_of_parents_and_what_is_freed(server: Server, web: vm_pb2.Vm) -> None:
    (first, _), *_ = chain(server, web, 3)
    rows = [line.split() for line in ingle(server, "snapshot", "list").stdout.splitlines()]
    assert "PARENT" in rows[0]
    assert first.id in rows[2]
    shown = ingle(server, "snapshot", "show", "number-2").stdout
    assert "and 1 more" in shown
    assert ingle(server, "snapshot", "flatten", "number-1").stdout == "number-1\n"
    freed = ingle(server, "snapshot", "delete", "number-0")
    assert "are free again" in freed.stderr
    kept = ingle(server, "snapshot", "delete", "number-1")
    assert "it has no name any more" in kept.stderr
    assert ingle(server, "snapshot", "create", "web", "full", "--full").stdout == "full\n"
    assert ingle(server, "snapshot", "create", "web", "more", "--parent", "full").stdout == "more\n"
    assert ingle(server, "snapshot", "show", "--format", "{{.depth}}", "more").stdout == "1\n"
