"""Who is told which name."""

from dataclasses import replace

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from ingle.api_server.adapters.dns import wire
from ingle.api_server.adapters.dns.answers import Answers, Directory, Forward, Host

HOSTS = (
    Host("web", "default", "10.213.0.2", nat=False),
    Host("db", "default", "10.213.0.3", nat=True, address6="fd69:6e67::3"),
    Host("other", "backend", "10.213.1.2", nat=True),
    Host("web", "default", "10.213.2.2", nat=False, owner=1000),
    Host("hers", "default", "10.213.2.3", nat=False, owner=1000),
)
DIRECTORY = Directory()
for host in HOSTS:
    DIRECTORY.tell(f"id of {host.address}", host)
ANSWERS = Answers("vm", DIRECTORY)
WEB, DB, OTHER, HER_WEB, HERS = (host.address for host in HOSTS)
HOST = "127.0.0.1"
STRANGER = "192.0.2.1"


def ask(name: str, kind: str = "A", asker: str = WEB) -> DNSRecord:
    return asked_of(ANSWERS, name, kind, asker)


def asked_of(answers: Answers, name: str, kind: str = "A", asker: str = WEB) -> DNSRecord:
    question = DNSRecord.question(name, kind)
    reply = DNSRecord.parse(answers.to(wire.parse(question.pack()), asker))
    assert (reply.header.id, reply.questions) == (question.header.id, question.questions)
    return reply


def data(reply: DNSRecord) -> list[str]:
    return [str(answer.rdata) for answer in reply.rr]


@pytest.mark.parametrize("name", ["db.vm", "DB.VM", "db.vm."])
def test_a_vm_knows_the_names_of_its_network(name: str) -> None:
    reply = ask(name)
    assert data(reply) == [DB]
    assert reply.header.rcode == RCODE.NOERROR
    assert reply.header.aa


@pytest.mark.parametrize("name", ["other.vm", "nobody.vm", "a.db.vm", "xn--db.vm", "hers.vm", "hers.1000.vm"])
def test_it_knows_no_others_and_may_remember_that(name: str) -> None:
    reply = ask(name)
    assert reply.header.rcode == RCODE.NXDOMAIN
    assert data(reply) == []
    assert [authority.rtype for authority in reply.auth] == [QTYPE.SOA]


def test_networks_of_two_owners_have_nothing_in_common_but_their_names() -> None:
    assert data(ask("web.vm", asker=HERS)) == [HER_WEB]
    assert data(ask("web.vm", asker=DB)) == [WEB]
    assert data(ask("db.vm", asker=HERS)) == []
    assert ask("3.2.213.10.in-addr.arpa", "PTR", WEB).header.rcode == RCODE.REFUSED


def test_on_the_host_a_vm_is_told_to_who_says_whose_it_is() -> None:
    for host in HOSTS:
        assert data(ask(f"{host.name}.{host.owner}.vm", asker=HOST)) == [host.address]
    for name in ("db.vm", "hers.vm", "hers.0.vm", "hers.01000000000.vm", "hers.x.vm", "1000.vm"):
        assert ask(name, asker=HOST).header.rcode == RCODE.NXDOMAIN
    with pytest.raises(Forward):
        ask("3.0.213.10.in-addr.arpa", "PTR", HOST)


def test_an_ipv6_address_is_told_where_there_is_one() -> None:
    assert data(ask("db.vm", "AAAA")) == ["fd69:6e67::3"]
    assert data(ask("db.vm", "ANY")) == [DB, "fd69:6e67::3"]
    reply = ask("web.vm", "AAAA", DB)
    assert (reply.header.rcode, data(reply)) == (RCODE.NOERROR, [])


@pytest.mark.parametrize("kind", ["MX", "TXT", "HTTPS"])
def test_a_name_that_is_there_without_such_a_record_is_not_denied(kind: str) -> None:
    reply = ask("db.vm", kind)
    assert (reply.header.rcode, data(reply)) == (RCODE.NOERROR, [])
    assert [authority.rtype for authority in reply.auth] == [QTYPE.SOA]


def test_the_domain_itself_is_there_and_has_no_address() -> None:
    reply = ask("vm")
    assert (reply.header.rcode, data(reply)) == (RCODE.NOERROR, [])


def test_addresses_have_their_names_back() -> None:
    assert data(ask("3.0.213.10.in-addr.arpa", "PTR")) == ["db.vm."]
    assert data(ask("3." + 23 * "0." + "7.6.e.6.9.6.d.f.ip6.arpa", "PTR")) == ["db.vm."]


def test_the_rest_is_for_others_where_a_vm_may_reach_beyond_its_network() -> None:
    for name, kind in (("debian.org", "A"), ("2.1.213.10.in-addr.arpa", "PTR"), ("vm.example", "A"), (".", "NS")):
        with pytest.raises(Forward):
            ask(name, kind, DB)
        with pytest.raises(Forward):
            ask(name, kind, HOST) if kind != "PTR" else ask(name, kind, DB)


@pytest.mark.parametrize(
    "name", ["debian.org", "secret.of.mine.example", "9.9.9.9.in-addr.arpa", "ip6.arpa", "3.ip6.arpa"]
)
def test_a_vm_without_nat_gets_no_question_out(name: str) -> None:
    assert ask(name, asker=WEB).header.rcode == RCODE.REFUSED


def test_strangers_are_told_nothing() -> None:
    for name in ("db.vm", "debian.org"):
        reply = ask(name, asker=STRANGER)
        assert (reply.header.rcode, data(reply)) == (RCODE.REFUSED, [])


def test_another_domain() -> None:
    answers = Answers("Sandbox.internal", DIRECTORY)
    assert data(asked_of(answers, "db.sandbox.internal")) == [DB]
    assert data(asked_of(answers, "3.0.213.10.in-addr.arpa", "PTR")) == ["db.sandbox.internal."]
    with pytest.raises(Forward):
        asked_of(answers, "db.vm", asker=DB)


def test_who_is_gone_is_known_no_more() -> None:
    directory = Directory()
    answers = Answers("vm", directory)
    for name in ("old", "new"):
        directory.tell("an id", Host(name, "default", WEB, nat=False))
        assert data(asked_of(answers, f"{name}.vm")) == [WEB]
    assert asked_of(answers, "old.vm").header.rcode == RCODE.NXDOMAIN
    for _ in range(2):
        directory.tell("an id", None)
        assert asked_of(answers, "new.vm").header.rcode == RCODE.REFUSED


def test_a_neighbour_alone_wakes_one_that_is_asleep_and_by_asking_for_its_address() -> None:
    directory = Directory()
    for number, host in enumerate(HOSTS):
        directory.tell(str(number), host)
    directory.tell("1", replace(HOSTS[1], sleeper="1"))
    answers = Answers("vm", directory)

    def woken(name: str, kind: str = "A", asker: str = WEB) -> str:
        return answers.sleeper(wire.parse(DNSRecord.question(name, kind).pack()), asker)

    assert [woken("DB.vm", kind) for kind in ("A", "AAAA", "ANY")] == ["1"] * 3
    assert data(asked_of(answers, "db.vm")) == [DB], "and is told it at once"
    assert [woken("db.vm", kind) for kind in ("MX", "HTTPS", "PTR")] == [""] * 3
    assert woken("3.0.213.10.in-addr.arpa", "PTR") == ""
    for name in ("other.vm", "nobody.vm", "vm", "db", "db.0.vm", "debian.org"):
        assert woken(name) == ""
    for asker in (OTHER, HERS, HER_WEB, STRANGER):
        assert woken("db.vm", asker=asker) == ""
    assert woken("db.0.vm", asker=HOST) == woken("db.vm", asker=HOST) == ""
