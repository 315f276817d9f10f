"""The policy file: root's alone, and every mistake in it is told with what is allowed."""

import os
import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from ingle.host_helper.policy import BadPolicy, Policy, Range, load, parse

GOOD = 'user = "4242"\n'

BAD = {
    "uesr = 1": "unknown key 'uesr'; did you mean 'user'?",
    "user = 4242\nmax_tap = 3": "did you mean 'max_taps'?",
    "": 'add: user = "ingle"',
    'user = "no such user"': "there is no such user",
    "user = true": "a user's name or number is allowed",
    'user = "99999999999"': "at most",
    'user = "root"': "the API server never runs as root",
    "user = 0": "the API server never runs as root",
    'user = 7\nstate_root = "var"': "an absolute path without '..' is allowed",
    'user = 7\nstate_root = "/var/../etc"': "an absolute path without '..' is allowed",
    'user = 7\nipv4_pool = "8.8.0.0/16"': "a private network of /16 to /24 is allowed",
    'user = 7\nipv4_pool = "10.0.0.0/8"': "a private network of /16 to /24 is allowed",
    'user = 7\nipv4_pool = "10.0.0.1/16"': "has host bits set",
    'user = 7\nipv6_pool = "2001:db8::/48"': "a unique local network of /48 is allowed",
    'user = 7\nipv6_pool = "fd00::/64"': "a unique local network of /48 is allowed",
    "user = 7\nipv4_pool = 10": "a text in quotes is allowed",
    "user = 7\nmax_taps = 0": "a whole number of 1 to 65536 is allowed",
    "user = 7\nmax_taps = true": "a whole number of 1 to 65536 is allowed",
    'user = 7\nmax_taps = "9"': "a whole number of 1 to 65536 is allowed",
    "user = 7\nvm_uids = [0, 5]": "a whole number of 1000",
    "user = 7\nvm_uids = [3000, 2000]": "FIRST comes before LAST",
    "user = 7\nvm_uids = 3000": "[FIRST, LAST] is allowed",
    "user = 3000\nvm_uids = [2000, 4000]": "has the API server's own uid 3000 in it",
    "user = 7\npublish_ports = [0, 80]": "a whole number of 1 to 65535 is allowed",
    "user =": "helper.toml: Invalid value",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "helper.toml"
    path.write_text(GOOD)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=BAD)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can own a policy")
def test_a_mistake_is_told(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(BadPolicy, match=re.escape(words)) as raised:
        load(file)
    assert str(raised.value).startswith(str(file))


def test_keys_are_read_and_have_defaults() -> None:
    policy = parse({"user": 4242, "ipv4_pool": "192.168.0.0/20", "vm_uids": [5000, 5009]}, "here")
    assert policy == Policy(
        user="4242", uid=4242, gid=4242, ipv4_pool=IPv4Network("192.168.0.0/20"), vm_uids=Range(5000, 5009)
    )
    assert parse({"user": "nobody"}, "here").uid == 65534
    assert parse({"user": 7, "ipv6_pool": ""}, "here").ipv6_pool is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can own a policy")
class TestWhoseItIs:
    def test_roots_is_read(self, file: Path) -> None:
        assert load(file).uid == 4242

    def test_anothers_is_refused(self, file: Path) -> None:
        os.chown(file, 1000, 0)
        with pytest.raises(BadPolicy, match="belongs to uid 1000, not to root"):
            load(file)

    @pytest.mark.parametrize("mode", [0o664, 0o646])
    def test_one_that_others_can_write_is_refused(self, file: Path, mode: int) -> None:
        file.chmod(mode)
        with pytest.raises(BadPolicy, match="can be written to by others"):
            load(file)

    def test_one_in_a_directory_that_others_can_write_is_refused(self, file: Path) -> None:
        file.parent.chmod(0o777)
        with pytest.raises(BadPolicy, match="can be written to by others"):
            load(file)

    def test_a_link_a_fifo_and_nothing_at_all_are_refused(self, file: Path) -> None:
        link, fifo = file.with_name("link"), file.with_name("fifo")
        link.symlink_to(file)
        os.mkfifo(fifo)
        for path in (link, fifo, file.with_name("none")):
            with pytest.raises(BadPolicy, match=re.escape(str(path))):
                load(path)
