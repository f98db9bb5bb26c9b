from __future__ import annotations

from chain import ovpn
from chain.contract import MARK_TUNNEL
from chain.node.kinds.openvpn import config

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
FILE = f"client\nremote a.example 443 tcp\nremote b.example\nauth-user-pass\n<ca>\n{CA}\n</ca>\n"


def document(text: str, *, remote: int = 0, beside: dict[str, str] | None = None) -> str:
    profile = ovpn.parse(text)
    return config.document(profile, beside or {}, profile.remotes[remote], "192.0.2.7", "/run/x")


def lines(text: str) -> list[list[str]]:
    return [ovpn.words(line) for line in text.partition("<")[0].splitlines()]


def test_it_says_one_server_by_its_address_and_how_it_is_reached() -> None:
    found = lines(document(FILE))
    assert ["remote", "192.0.2.7", "443"] in found
    assert ["proto", "tcp4-client"] in found
    assert ["mark", str(MARK_TUNNEL)] in found
    assert ["disable-dco"] in found
    assert ["auth-user-pass"] in found
    assert ["explicit-exit-notify", "1"] not in found
    found = lines(document(FILE, remote=1))
    assert ["remote", "192.0.2.7", "1194"] in found
    assert ["proto", "udp4"] in found
    assert ["explicit-exit-notify", "1"] in found


def test_a_server_decides_no_routes_and_nothing_runs() -> None:
    found = lines(
        document(
            FILE + "route 0.0.0.0 0.0.0.0\nredirect-gateway def1\nscript-security 1\npull-filter ignore auth-token\n"
        )
    )
    assert [line for line in found if line[0] in ("route", "redirect-gateway")] == []
    assert [line for line in found if line[0] == "script-security"] == [["script-security", "0"]]
    assert ["route-noexec"] in found
    assert ["ifconfig-noexec"] in found
    filters = [line[1:] for line in found if line[0] == "pull-filter"]
    assert filters[0] == ["ignore", "auth-token"]
    assert filters[-1] == ["ignore", ""]
    assert ["accept", "ifconfig "] in filters
    assert not [line for line in filters if line[0] == "accept" and "ifconfig-ipv6 ".startswith(line[1])]
    assert not [line for line in filters if line[0] == "accept" and "route 0.0.0.0".startswith(line[1])]


def test_what_goes_with_datagrams_only_is_left_out_over_tcp() -> None:
    text = FILE + "fragment 1300\nexplicit-exit-notify 3\n"
    assert not [line for line in lines(document(text)) if line[0] in ("fragment", "explicit-exit-notify")]
    found = lines(document(text, remote=1))
    assert ["fragment", "1300"] in found
    assert [line for line in found if line[0] == "explicit-exit-notify"] == [["explicit-exit-notify", "3"]]


def test_a_cipher_of_old_is_offered() -> None:
    text = FILE + "cipher AES-256-CBC\n"
    found = lines(document(text))
    assert ["data-ciphers", "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305:AES-256-CBC"] in found
    assert ["data-ciphers-fallback", "AES-256-CBC"] in found
    assert [line for line in lines(document(text + "data-ciphers AES-128-CBC\n")) if line[0] == "data-ciphers"] == [
        ["data-ciphers", "AES-128-CBC"]
    ]


def test_what_is_sent_is_never_compressed() -> None:
    assert ["allow-compression", "asym"] in lines(document(FILE + "comp-lzo\n"))
    assert ["allow-compression", "asym"] not in lines(document(FILE))
    assert ["allow-compression", "no"] in lines(document(FILE + "compress\nallow-compression no\n"))


def test_keys_of_the_file_and_beside_it_are_blocks() -> None:
    text = document(FILE + "tls-crypt tc.key\n", beside={"tls-crypt": "-----BEGIN OpenVPN Static key V1-----\n00\n\n"})
    assert text.endswith(f"<ca>\n{CA}\n</ca>\n<tls-crypt>\n-----BEGIN OpenVPN Static key V1-----\n00\n</tls-crypt>\n")


def test_what_it_says_can_be_read_again() -> None:
    text = FILE + "verify-x509-name 'C=CH, CN=\"a\\b\"' subject\n"
    assert ["verify-x509-name", 'C=CH, CN="a\\b"', "subject"] in lines(document(text))
