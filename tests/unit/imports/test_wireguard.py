"""Small matters of wg-quick's files; whole ones are in tests/imports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.wireguard import MOST_LINES, MOST_NETWORKS, MOST_PEERS, read, recognises

NOW = datetime(2026, 9, 1, tzinfo=UTC)
KEY = "aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs="
PEER = f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example.com:51820\n"


def file(interface: str = "", peer: str = PEER) -> str:
    return f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.2/32\n{interface}{peer}"


def taken(text: str) -> Imported:
    (item,) = read(text, NOW)
    assert isinstance(item.found, Imported), item.found
    return item.found


def refused(text: str) -> str:
    (item,) = read(text, NOW)
    assert isinstance(item.found, RefusedError)
    return str(item.found)


def test_a_section_makes_it_a_file_of_this_kind() -> None:
    assert recognises("# x\n  [interface]  \r\n")
    assert not recognises("[Peer]\nthe [Interface]\n")


def test_a_comment_ends_a_line_for_both_programs() -> None:
    found = taken(file("MTU = 1280 # 1420\n# PostUp = id\n#DNS = 10.0.0.1\n"))
    assert found.settings["mtu"] == 1280
    assert "dns" not in found.settings


def test_wg_takes_white_space_out_of_its_lines_and_wg_quick_does_not() -> None:
    assert taken(file(peer=PEER.replace("PublicKey", "Public Key"))).settings["public_key"] == KEY
    assert "there are several" in refused(file().replace("10.9.0.2/32", "10.9.0.2 /32"))  # two words, to the shell
    assert "nor wg knows" in refused(file("M TU = 1280\n"))


def test_what_wg_quick_does_not_take_for_a_section_keeps_its_lines_from_it() -> None:
    text = file().replace("[Interface]", "[ Interface ]")
    assert "nor wg knows" in refused(text)  # Address is wg-quick's


@pytest.mark.parametrize("key", ["PostUp", "preup", "POSTDOWN", " PreDown "])
def test_programs_are_not_run(key: str) -> None:
    assert "a program run" in refused(file(f"{key}=hunter2 | sh\n"))
    assert "hunter2" not in refused(file(f"{key}=hunter2 | sh\n"))


@pytest.mark.parametrize(
    ("given", "mtu", "keepalive"),
    [("", None, None), ("PersistentKeepalive = off\n", None, 0), ("PersistentKeepalive = 65535\n", None, 65535)],
)
def test_numbers(given: str, mtu: int | None, keepalive: int | None) -> None:
    found = taken(file(peer=PEER + given))
    assert (found.settings.get("mtu"), found.settings.get("keepalive")) == (mtu, keepalive)


@pytest.mark.parametrize("line", ["PersistentKeepalive = 65536", "PersistentKeepalive = -1", "PersistentKeepalive = ٣"])
def test_numbers_that_wg_does_not_take(line: str) -> None:
    assert "up to 65535, or off" in refused(file(peer=f"{PEER}{line}\n"))


def test_of_resolvers_the_private_one_is_kept() -> None:
    found = taken(file("DNS = 198.51.100.1, 10.9.0.1, example.com\n"))
    assert found.settings["dns"] == "10.9.0.1"
    assert [warning.where for warning in found.warnings] == ["DNS"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Table = off", "routes of its own"),
        ("FwMark = 0x1", "marks packets"),
        ("SaveConfig = true", "nothing is written back"),
        ("ListenPort = 7", "sends from any port"),
        ("IncludedApplications = com.example", "apps of the device"),
        ("Address = 2001:db8::1/128", "IPv6 one is left out"),
    ],
)
def test_what_does_no_harm_is_left_out_with_a_word(line: str, words: str) -> None:
    (warning,) = taken(file(f"{line}\n")).warnings
    assert words in warning.what


@pytest.mark.parametrize("line", ["Table = auto", "FwMark = off", "SaveConfig = false", "Jc = 0", "H4 = 4"])
def test_what_changes_nothing_is_not_worth_a_word(line: str) -> None:
    assert taken(file(f"{line}\n")).warnings == ()


def test_there_are_limits() -> None:
    networks = PEER.replace("0.0.0.0/0", ", ".join(["1.0.0.0/8"] * (MOST_NETWORKS + 1)))
    assert "more than" in refused(file(peer=networks))
    assert "more than" in refused(file(peer=PEER * (MOST_PEERS + 1)))
    with pytest.raises(RefusedError, match="more than"):
        read(file("\n" * MOST_LINES), NOW)


def test_two_peers_of_which_none_has_everything_are_two_exits() -> None:
    peer = PEER.replace("0.0.0.0/0", "8.0.0.0/8")
    assert [isinstance(item.found, Imported) for item in read(file(peer=peer + peer), NOW)] == [True, True]


def test_a_key_to_be_filled_in_is_left_out_and_no_reason_to_refuse() -> None:
    assert taken(file().replace(f"PrivateKey = {KEY}", "PrivateKey =")).secrets == {}
