from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import ovpn
from chain.ovpn import OvpnError, Remote, parse, quote, words

SECRET = "s3cr3tMIIEvQ"
CA = "<ca>\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n</ca>\n"
KEY = f"<key>\n-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n</key>\n"
CERT = CA.replace("ca>", "cert>")
STATIC = "-----BEGIN OpenVPN Static key V1-----\n00\n-----END OpenVPN Static key V1-----\n"
LEAST = f"client\ndev tun\nremote vpn.example.org\nauth-user-pass\n{CA}"


def faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(OvpnError) as refused:
        parse(text)
    assert SECRET not in str(refused.value)
    assert not [fault for fault in refused.value.faults if SECRET in fault.what + fault.hint]
    return [(fault.line, fault.what) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("remote a 1194 # comment", ["remote", "a", "1194"]),
        ("remote a;b c", ["remote", "a;b", "c"]),
        ("a#b 'c'#d", ["a#b", "c"]),
        ('a "b c" d', ["a", "b c", "d"]),
        (r'a "say \"hi\" \\ there"', ["a", r'say "hi" \ there']),
        (r"a 'back\slash' b\ c", ["a", r"back\slash", "b c"]),
        ('"a"b', ["a", "b"]),
        ('a"b"', ['a"b"']),
        ('a ""', ["a", ""]),
        (r"\"a", ['"a']),
        ("\t a\v\f\r", ["a"]),
        ("; a", []),
        (r"\# a", []),
        ("", []),
    ],
)
def test_a_line_is_cut_as_openvpn_cuts_it(line: str, found: list[str]) -> None:
    assert words(line) == found


@pytest.mark.parametrize("line", ['a "b', "a 'b", r"a \b", "a\\", r'"a\b"', r"\'a", r"a'b\c"])
def test_a_line_that_openvpn_refuses_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="quotation is not closed, or a backslash"):
        words(line)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40), max_size=6))
def test_what_is_quoted_is_read_as_it_was(given_words: list[str]) -> None:
    assert words(" ".join(map(quote, given_words))) == given_words


def test_a_usual_file_is_understood() -> None:
    text = f"""\
# A provider's
client
dev tun
proto udp
remote one.example.org 1195
remote 192.0.2.7 443 tcp-client
remote-random
resolv-retry infinite
nobind
persist-key
cipher AES-256-CBC
auth SHA512
auth-user-pass
comp-lzo no
remote-cert-tls server
verify-x509-name "CN=one, O=x" subject
reneg-sec 0
redirect-gateway def1
setenv CLIENT_CERT 0
setenv opt block-outside-dns
ignore-unknown-option block-me
block-me now
--tls-cipher "DEFAULT:@SECLEVEL=0"
{CA}key-direction 1
<tls-auth>
#
# 2048 bit OpenVPN static key
#
{STATIC}</tls-auth>
"""
    profile = parse("\N{ZERO WIDTH NO-BREAK SPACE}" + text.replace("\n", "\r\n"))
    assert profile.remotes == (Remote("one.example.org", 1195, "udp"), Remote("192.0.2.7", 443, "tcp"))
    assert profile.shuffled
    assert profile.login
    assert profile.credentials is None
    assert profile.ciphers == ("AES-256-CBC",)
    assert profile.directives == (
        ("auth", "SHA512"),
        ("comp-lzo", "no"),
        ("remote-cert-tls", "server"),
        ("verify-x509-name", "CN=one, O=x", "subject"),
        ("reneg-sec", "0"),
        ("tls-cipher", "DEFAULT:@SECLEVEL=0"),
        ("key-direction", "1"),
    )
    assert set(profile.blocks) == {"ca", "tls-auth"}
    assert "\r" not in "".join(profile.blocks.values())
    noted = {note.directive for note in profile.notes}
    assert noted >= {"dev", "resolv-retry", "nobind", "redirect-gateway", "setenv", "block-outside-dns", "setenv opt"}


def test_ports_and_protocols_come_from_the_whole_file() -> None:
    assert parse(LEAST + "port 7\nproto tcp\n").remotes == (Remote("vpn.example.org", 7, "tcp"),)
    assert parse(LEAST).remotes == (Remote("vpn.example.org", 1194, "udp"),)


def test_connection_blocks_come_first_and_have_the_values_of_where_they_stand() -> None:
    first, second = (f"<connection>\nremote {name}\n</connection>\n" for name in ("a.example", "b.example"))
    profile = parse(f"port 5\n{first}port 6\nproto tcp\n{second}{LEAST}")
    assert profile.remotes == (Remote("a.example", 5, "udp"), Remote("b.example", 6, "tcp"))
    assert "remote" in {note.directive for note in profile.notes}


def test_servers_over_ipv6_are_left_out_and_noted() -> None:
    text = LEAST + "remote 2001:db8::7 1194\nremote six.example.org 1194 udp6\n"
    assert len(parse(text).remotes) == 1
    assert [note.line for note in parse(text).notes if note.directive == "remote"] == [10, 11]
    only = LEAST.replace("vpn.example.org", "2001:db8::7")
    assert faults(only) == [(0, "it names no server that can be reached")]


def test_files_beside_it_are_named() -> None:
    profile = parse("client\nremote a.example\nca ca.crt\ncert [inline]\nkey 'my key.pem'\ntls-auth ta.key 1\n" + CERT)
    assert profile.files == {"ca": "ca.crt", "key": "my key.pem", "tls-auth": "ta.key"}
    assert ("key-direction", "1") in profile.directives


def test_credentials_may_stand_in_it() -> None:
    text = LEAST.replace("auth-user-pass", "<auth-user-pass>\nme\npass word\n</auth-user-pass>")
    assert parse(text).credentials == ("me", "pass word")
    assert "pass word" not in repr(parse(text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up /etc/openvpn/update-resolv-conf", "`up` is refused: it runs a program"),
        ("down 'sh -c x'", "`down` is refused: it runs a program"),
        ("--tls-verify x", "`tls-verify` is refused: it runs a program"),
        ("setenv opt up x", "`up` is refused: it runs a program"),
        ("iproute /bin/x", "`iproute` is refused: it runs a program"),
        ("plugin x.so", "`plugin` is refused: it loads code"),
        ("providers legacy", "`providers` is refused: it loads code"),
        ("management 127.0.0.1 7505", "`management` is refused: it opens a socket"),
        ("log /tmp/x", "`log` is refused: it writes"),
        ("status x 10", "`status` is refused: it writes"),
        ("writepid /run/x", "`writepid` is refused: it writes"),
        ("config other.conf", "`config` is refused: it reads other files"),
        ("http-proxy 192.0.2.1 8080 auth.txt basic", "`http-proxy` is refused: it reaches the server through another"),
        ("socks-proxy 192.0.2.1", "`socks-proxy` is refused"),
        ("mark 7", "`mark` is refused"),
        ("pkcs12 x.p12", "`pkcs12` is refused"),
        ("tls-remote x", "`tls-remote` is refused: today's OpenVPN has it no more; `verify-x509-name NAME name`"),
        ("pkcs11-id x", "`pkcs11-id` is refused"),
        ("static-challenge Code 1", "`static-challenge` is refused"),
        ("server 10.8.0.0 255.255.255.0", "`server` is refused: it is a server's"),
        ("secret static.key", "`secret` is refused"),
        ("dev tap", "the tunnel is one of Ethernet (tap)"),
        ("dev-type tap", "the tunnel is one of Ethernet (tap)"),
        ("cipher none", "`cipher` names none"),
        ("data-ciphers AES-256-GCM:none", "`data-ciphers` is not followed by what belongs there"),
        ("auth none", "`auth` is not followed by what belongs there"),
        ("remote a.example 0", "the port is not between 1 and 65535"),
        ("remote a.example 1194 sctp", "the protocol is none that a client speaks"),
        ("remote -x", "`remote` names no host and no address"),
        ("remote 999.1.1.1", "`remote` names no host and no address"),
        ("remote", "`remote` is not followed by what belongs there"),
        ("tls-auth a b c", "`tls-auth` is not followed by what belongs there"),
        ("remote-cert-tls client", "`remote-cert-tls` is not followed by what belongs there"),
        ("crl-verify crl.pem", "`crl-verify` names a file"),
        (SECRET, "this directive is unknown"),
        (f"<{SECRET}>\n</{SECRET}>", "a block of an unknown name"),
        (f"<{SECRET}>", "a block is never closed"),
        (f'verb "{SECRET}', "this line can't be read"),
        (f"remote a\x01{SECRET}", "this line can't be read: it has a character"),
        (f"remote a\0 {SECRET}", "this line can't be read: it has a character"),
        (f"remote {'a' * 255}", "this line can't be read: it is longer than 254 bytes"),
        (f"verify-x509-name '{SECRET} {chr(92) * 130}'", "this line can't be read: it is too long"),
        (" ".join("a" * 17), "this line can't be read: it has too many words"),
        (f"<key>\n{SECRET}\n</key>", "<key> can't be used: nothing in it says PRIVATE KEY-----"),
        (f"<key>\n{SECRET * 30}\n</key>", "<key> can't be used: a line of it is longer"),
        (f"<key>\n{SECRET}\x01\n</key>", "<key> can't be used: it has a character that can't stand there (U+0001)"),
        (f"<key>\n{SECRET}\n</key> up", "something stands behind the end of a block"),
        (f"<auth-user-pass>\n{SECRET}\n</auth-user-pass>", "<auth-user-pass> has not two lines"),
        ("<plugin>\n</plugin>", "`plugin` is refused: it loads code"),
        (CA.rstrip(), "`ca` stands twice"),
        ("ca other.crt", "`ca` stands twice"),
        ("<connection>\nremote a.example\nhttp-proxy x\n</connection>", "`http-proxy` is refused"),
        ("<connection>\nremote a.example\nca x\n</connection>", "this can't be said of one connection alone"),
        ("<connection>\n</connection>", "<connection> has not one `remote`"),
    ],
)
def test_what_is_refused_is_told_by_its_line_and_shows_nothing(line: str, said: str) -> None:
    found = faults(LEAST + line + "\n")
    assert any(what.startswith(said) for _, what in found), found
    assert any(at >= 10 for at, what in found if what.startswith(said))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is no client's file"),
        (LEAST.replace("client\n", ""), "it is no client's file"),
        (LEAST.replace("client\n", "pull\n"), "it is no client's file"),
        (LEAST.replace("remote vpn.example.org\n", ""), "it names no server"),
        (LEAST.replace(CA, ""), "nothing says how the server is known"),
        (LEAST + KEY, "of `cert` and `key` one is missing"),
        (LEAST.replace("auth-user-pass\n", ""), "nothing says who the client is"),
        (f"{LEAST}tls-crypt a\ntls-auth b\n", "of `tls-auth`, `tls-crypt` and `tls-crypt-v2` there is more than one"),
        ("#" * (ovpn.MOST_BYTES + 1), "it is larger than"),
    ],
)
def test_what_is_missing_is_told(text: str, said: str) -> None:
    assert [what for line, what in faults(text) if line == 0 and what.startswith(said)]


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert [line for line, _ in faults(f"up x\n{LEAST}\nlog y\nfoo\n")] == [1, 12, 13]


def test_a_server_that_anybody_could_pose_as_is_noted() -> None:
    assert any(note.directive == "remote-cert-tls" for note in parse(LEAST).notes)
    assert not any(note.directive == "remote-cert-tls" for note in parse(f"{LEAST}remote-cert-tls server\n").notes)


def test_less_of_what_a_server_pushes_may_be_taken_and_never_more() -> None:
    given = [
        "ignore auth-token",
        "ignore 'ping-restart 60'",
        "accept ''",
        "ignore ''",
        "ignore ifconfig",
        "reject ping",
    ]
    profile = parse(LEAST + "".join(f"pull-filter {words}\n" for words in [*given, "ignore", "ignore ping x", ""]))
    assert profile.directives == (
        ("pull-filter", "ignore", "auth-token"),
        ("pull-filter", "ignore", "ping-restart 60"),
    )
    assert [note.line for note in profile.notes if note.directive == "pull-filter"] == [12, 13, 14, 15, 16, 17, 18]


def test_compressing_what_is_sent_is_left_out() -> None:
    assert ("allow-compression", "asym") in parse(f"{LEAST}allow-compression yes\n").directives


def test_a_cipher_that_is_broken_is_left_out_and_noted() -> None:
    profile = parse(f"{LEAST}cipher BF-CBC\n")
    assert profile.ciphers == ()
    assert "cipher" in {note.directive for note in profile.notes}


def test_a_key_with_a_password_is_known() -> None:
    assert parse(LEAST + CERT + KEY.replace(" PRIVATE", " ENCRYPTED PRIVATE")).encrypted_key
    assert not parse(LEAST + CERT + KEY).encrypted_key


@given(st.text(max_size=400))
def test_nothing_makes_it_stumble(text: str) -> None:
    for whole in (text, LEAST + text, f"{LEAST}<key>\n{text}\n</key>\n"):
        try:
            profile = parse(whole)
        except OvpnError:
            continue
        assert all(word.isprintable() for line in profile.directives for word in line)


def test_files_of_credentials_are_named_and_where() -> None:
    profile = parse(LEAST.replace("auth-user-pass", "auth-user-pass login.txt") + "askpass 'key pass.txt'\n")
    assert profile.credential_files == {"auth-user-pass": "login.txt", "askpass": "key pass.txt"}
    assert profile.lines == {"auth-user-pass": 4, "askpass": 10}
    assert [note.line for note in profile.notes if note.directive in profile.lines] == [4, 10]
    assert parse("client\nremote a.example\nauth-user-pass\nca ca.crt\n").lines == {"ca": 4}


@pytest.mark.parametrize("later", ["auth-user-pass", "auth-user-pass stdin"])
def test_the_last_line_says_whether_credentials_are_asked_for(later: str) -> None:
    text = LEAST.replace("auth-user-pass", "auth-user-pass login.txt")
    profile = parse(f"{text}{later}\n")
    assert profile.login
    assert profile.credential_files == {}
    assert parse(f"{LEAST}auth-user-pass login.txt\n").credential_files == {"auth-user-pass": "login.txt"}


def test_what_openvpn_has_given_up_but_files_still_have_is_left_out() -> None:
    assert {note.directive for note in parse(LEAST + "keysize 256\nncp-disable\n").notes} >= {"keysize", "ncp-disable"}


def test_a_web_address_is_no_host() -> None:
    found = faults(LEAST.replace("vpn.example.org", f"https://a.example/{SECRET}"))
    assert (3, "`remote` names no host and no address") in found
