"""Why a tunnel does not come up, is lost, or carries less than it should: all that people are told about it. Pure.

docs/troubleshooting.md is made of this table (`make docs`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """What was found: the cause with its evidence, and what to try. `key`: its row in the table, if it is of there."""

    cause: str
    advice: str = ""
    key: str = ""


@dataclass(frozen=True)
class Cause:
    """One row. `{…}` in sentence and advice stands for evidence; `kind` is empty for what every kind can meet."""

    kind: str
    key: str
    sentence: str
    advice: str

    def found(self, **evidence: object) -> Diagnosis:
        return Diagnosis(self.sentence.format(**evidence), self.advice.format(**evidence), self.key)


# Of every kind

NAME = Cause(
    "",
    "name",
    "the server's name can't be resolved ({reasons})",
    "`no such name`: look for a typing error in it; `no answer`: this machine does not reach the resolvers of"
    " `bootstrap_dns`, name others there",
)
NO_WAY = Cause(
    "",
    "no-way",
    "there is no way to the server by the uplink: {error}",
    "look at the exit's `uplink`: its network must exist and its gateway must be right; without one, look whether the"
    " host itself has a way out",
)
NO_CARRIER = Cause(
    "",
    "no-carrier",
    "the uplink has no carrier: its network's other end is down",
    "look at the network that the exit's `uplink` names, or at the host's Docker; it dials when there is one again",
)
UNREACHABLE = Cause(
    "",
    "unreachable",
    "the network says that the server can't be reached: {sender} answers `{word}` about {protocol} port {port}",
    "check the server's address and port; `Connection refused`: the machine is there, but no VPN server on it",
)
MUTE = Cause(
    "",
    "mute",
    "the tunnel stands, but nothing answers through it ({asked} asked)",
    "the provider may answer no pings: name an address that does with `probe: {{targets: [ADDRESS]}}`; or the account"
    " lets nothing through, which the provider has to say",
)
LOST = Cause(
    "",
    "lost",
    "no answer through the tunnel any more ({asked} asked)",
    "the exit dials again by itself; the server, or the way to it, is down",
)
MTU = Cause(
    "",
    "mtu",
    "packets of {full} bytes, the tunnel's full size, get lost, and those of up to {passing} bytes pass ({target} was"
    " asked, {tries} times each)",
    "`mtu: {passing}` on this exit, and `chain up`: some link on the way is smaller than the tunnel was made for, and"
    " loses what has to be cut in pieces",
)

PARENT = Cause(
    "",
    "parent",
    "exit {parent}, which this one runs through, is not up: {why}",
    "`chain status` says what to try about exit {parent}; this one dials as soon as that one is up",
)

DIRECT_MUTE = Cause(
    "direct",
    "direct-mute",
    "nobody answers by this machine's own uplink ({asked} asked)",
    "look whether the host itself has a way out, and at this exit's `uplink`; where the network lets no pings out, name"
    " somebody near with `probe: {{targets: [ADDRESS]}}`",
)

# L2TP/IPsec: IKE

NO_ANSWER = Cause(
    "l2tp",
    "no-answer",
    "no answer from the server on UDP port 500 (IKE): {sent} packets sent, none came back",
    "check the server's address; ask another network, such as a phone's, whether it answers there: then this one blocks"
    " UDP 500 and 4500",
)
NO_IKE_PROPOSAL = Cause(
    "l2tp",
    "no-ike-proposal",
    "the server accepts none of the offered ciphers for IKE ({notify})",
    "`crypto: legacy` on this exit, for an old server; else `ike: {{proposals: […]}}` with what the provider names, or"
    " `ike: {{version: {other}}}`",
)
NO_ESP_PROPOSAL = Cause(
    "l2tp",
    "no-esp-proposal",
    "the server accepts none of the offered ciphers for ESP ({notify}), after IKE came about",
    "`crypto: legacy` on this exit, for an old server; else `esp: {{proposals: […]}}` with what the provider names",
)
KEY = Cause(
    "l2tp",
    "key",
    "the server refuses the pre-shared key, or the identity it was shown ({notify})",
    "compare `secrets/…vpn_ipsec_psk` with what the provider says, letter by letter; then `chain up`",
)
KEY_GUESSED = Cause(
    "l2tp",
    "key-guessed",
    "most likely the pre-shared key is wrong: the server answered until the key came into play, and then {evidence}",
    "compare `secrets/…vpn_ipsec_psk` with what the provider says, letter by letter, then `chain up`; with IKEv1 hardly"
    " any server says so in words, so that it may be something else: `chain logs exit-NAME`",
)
IDENTITY = Cause(
    "l2tp",
    "identity",
    "the server proves to be somebody else than `ike.remote_id` says ({line})",
    "leave `ike.remote_id` out, unless you know better: then anybody with the pre-shared key will do",
)
IKE_REFUSED = Cause(
    "l2tp",
    "ike-refused",
    "the server refuses to begin ({notify})",
    "`ike: {{version: {other}}}` may be what it expects",
)
IKE_STOPPED = Cause(
    "l2tp",
    "ike-stopped",
    "the server began to answer over IKE and then fell silent, before the pre-shared key mattered",
    "`ike: {{version: {other}}}` may be what it expects; if it worked before, the way to the server loses packets",
)
CHILD_SILENT = Cause(
    "l2tp",
    "child-silent",
    "IKE stands, so the pre-shared key is right, but the server never answers the request for ESP ({evidence})",
    "try `crypto: legacy`, then `ike: {{version: {other}}}`: some servers answer nothing to what they do not like",
)
CHILD_REFUSED = Cause(
    "l2tp",
    "child-refused",
    "IKE stands, so the pre-shared key is right, but the server refuses ESP ({notify})",
    "the provider has to say what it expects; `esp: {{encapsulation: udp}}` and `ike: {{version: {other}}}` are worth a"
    " try",
)
IKE_ENDED = Cause(
    "l2tp",
    "ike-ended",
    "the server ended the IPsec connection",
    "the exit dials again by itself; if it happens all the time, another device may use the same account",
)
IKE_LOST = Cause(
    "l2tp",
    "ike-lost",
    "the server no longer answers over IKE",
    "the exit dials again by itself; the server, or the way to it, is down",
)
IPSEC_GONE = Cause(
    "l2tp",
    "ipsec-gone",
    "the IPsec connection ended",
    "the exit dials again by itself; `chain logs exit-NAME` shows what strongSwan said",
)
IPSEC_ERROR = Cause(
    "l2tp",
    "ipsec-error",
    "IPsec could not be set up: {error}",
    "`chain doctor` says whether the host's kernel has what IPsec needs; `chain logs exit-NAME` shows more",
)

# L2TP/IPsec: L2TP and PPP

ESP_BLOCKED = Cause(
    "l2tp",
    "esp-blocked",
    "IKE and ESP stand, but L2TP is not answered, and nothing at all came back through ESP ({received} bytes received,"
    " {sent} sent): IP protocol 50 is blocked on the way, or the server runs no L2TP",
    "try `esp: {{encapsulation: udp}}` on this exit, which hides ESP in UDP port 4500; if that fails too, ask the"
    " provider whether this server speaks L2TP",
)
NO_L2TP = Cause(
    "l2tp",
    "no-l2tp",
    "IKE and ESP stand, both by UDP port 4500, but L2TP is not answered, and nothing at all came back through ESP"
    " ({received} bytes received, {sent} sent): most likely the server runs no L2TP",
    "ask the provider whether this server speaks L2TP, not IKEv2 alone; packets of UDP port 4500 may also get lost on"
    " the way in one direction",
)
L2TP_SILENT = Cause(
    "l2tp",
    "l2tp-silent",
    "the server does not answer over L2TP, though packets come back through ESP ({received} bytes received, {sent}"
    " sent)",
    "the server may hold an old session of this account: wait some minutes; then try `esp: {{encapsulation: udp}}`, in"
    " case ESP passes in one direction only",
)
L2TP_REFUSED = Cause(
    "l2tp",
    "l2tp-refused",
    "the server closed the L2TP tunnel ({reason})",
    "it is for the provider to say why: the account may be at its limit of sessions",
)
CALL_REFUSED = Cause(
    "l2tp",
    "call-refused",
    "the server closed the L2TP call ({reason})",
    "it is for the provider to say why: the account may be at its limit of sessions",
)
CREDENTIALS = Cause(
    "l2tp",
    "credentials",
    "the server refuses the user name or the password (PPP: {line})",
    "compare `secrets/…vpn_username` and `…vpn_password` with what the provider says, then `chain up`; some providers"
    " want a password of its own for VPN devices",
)
PPP_AUTH = Cause(
    "l2tp",
    "ppp-auth",
    "the server wants a way to prove the password that `ppp.auth` does not allow (PPP: {line})",
    "`ppp: {{auth: [mschap-v2, chap, pap]}}` on this exit; pap sends the password itself, though inside IPsec",
)
NO_ADDRESS = Cause(
    "l2tp",
    "no-address",
    "the server took the password, but gave no address (PPP: {line})",
    "it is for the provider to say why: its addresses may be used up, or the account has none",
)
PPP_SILENT = Cause(
    "l2tp",
    "ppp-silent",
    "the server does not answer over PPP ({line})",
    "the exit dials again by itself; if it stays so, the provider has to look: its L2TP server answers, and PPP behind"
    " it does not",
)
PPP_LOST = Cause(
    "l2tp",
    "ppp-lost",
    "the server no longer answers over PPP ({line})",
    "the exit dials again by itself; the server, or the way to it, is down",
)
PPP_ENDED = Cause(
    "l2tp",
    "ppp-ended",
    "the server ended the PPP connection ({line})",
    "the exit dials again by itself; if it happens all the time, another device may use the same account",
)
NO_PPP = Cause(
    "l2tp",
    "no-ppp",
    "this container can't use /dev/ppp ({line})",
    "the kernel of the engine's host needs the module ppp_generic; `chain doctor` says how to load it",
)
NO_KERNEL_L2TP = Cause(
    "l2tp",
    "no-kernel-l2tp",
    "the kernel has no L2TP ({line})",
    "the kernel of the engine's host needs the module l2tp_ppp; `chain doctor` says how to load it",
)
DAEMON_DIED = Cause(
    "",
    "daemon-died",
    "a program of the exit ended by itself: {what}",
    "the exit starts it again by itself; `chain logs exit-NAME` shows its last words",
)

# Xray

XRAY_REFUSES = Cause(
    "xray",
    "xray-refuses",
    "Xray does not take these settings: {line}",
    "compare the exit's fields with the provider's link; `chain logs exit-NAME` shows all that Xray says",
)
XRAY_NO_ANSWER = Cause(
    "xray",
    "xray-no-answer",
    "no answer from the server on TCP port {port}",
    "check the server's address and port; ask another network, such as a phone's, whether it answers there: then this"
    " one blocks it",
)
XRAY_HANDSHAKE = Cause(
    "xray",
    "xray-handshake",
    "the server's TCP port {port} is open, but what this exit says there is never answered",
    "compare the port, `transport` and `reality` or `tls` with the provider's link; where all are right, something on"
    " the way may swallow such connections: another `server_name`, `fingerprint` or port is worth a try",
)
XRAY_DIAL = Cause(
    "xray",
    "xray-dial",
    "no connection with the server comes about ({reason})",
    "compare `transport`, `reality` or `tls`, and the port with the provider's link; `chain logs exit-NAME` shows all"
    " that Xray says",
)
XRAY_REALITY = Cause(
    "xray",
    "xray-reality",
    "the server does not take this exit for one of its own, and shows the site whose name it borrows ({reason})",
    "compare `reality: {{public_key: …, short_id: …}}` with the provider's link (pbk, sid), letter by letter; the clock"
    " of the engine's host must be right; where all is, somebody on the way shows a certificate of theirs",
)
XRAY_BORROWED = Cause(
    "xray",
    "xray-borrowed",
    "the server borrows no site of this name ({reason})",
    "compare `reality: {{server_name: …}}` with the provider's link (sni)",
)
XRAY_NAME = Cause(
    "xray",
    "xray-name",
    "the server's certificate is one for another name ({reason})",
    "`tls: {{server_name: …}}` on this exit, with what the provider's link has as sni",
)
XRAY_EXPIRED = Cause(
    "xray",
    "xray-expired",
    "the server's certificate is out of date ({reason})",
    "look at the clock of the engine's host; if it is right, the provider has to renew the certificate",
)
XRAY_AUTHORITY = Cause(
    "xray",
    "xray-authority",
    "the server's certificate is signed by nobody that is trusted ({reason})",
    "`tls: {{ca: …}}` for an authority of the provider's own, or `tls: {{pinned_sha256: […]}}` for a certificate that"
    " signs itself; if the provider uses neither, somebody on the way shows a certificate of theirs",
)
XRAY_PIN = Cause(
    "xray",
    "xray-pin",
    "the server's certificate is none of those in `tls.pinned_sha256`",
    "ask the provider whether the certificate was renewed; if it was not, somebody on the way shows one of theirs",
)
XRAY_PATH = Cause(
    "xray",
    "xray-path",
    "there is a web server, but what was asked of it is not an entrance ({status})",
    "compare `path`, `host` or `service_name`, and `transport`, with the provider's link",
)
XRAY_BEHIND = Cause(
    "xray",
    "xray-behind",
    "the web server in front has nobody behind it ({status})",
    "it is for the provider to start the server behind; with a name that many servers share, compare `host` with the"
    " provider's link",
)
XRAY_CLOSES = Cause(
    "xray",
    "xray-closes",
    "the server lets this exit in and then closes each connection without a word",
    "compare the id or password and `flow` with the provider's link, letter by letter: the account may be unknown or at"
    " its end; with grpc look at `service_name` too; or what was asked can't be reached by TCP port 53 from there:"
    " `probe: {{targets: [ADDRESS]}}` with a resolver that can",
)
XRAY_SILENT = Cause(
    "xray",
    "xray-silent",
    "the server takes all and answers nothing ({asked} asked)",
    "compare the id or password and the cipher with the provider's link: servers of shadowsocks and vmess fall silent"
    " at a wrong one; or what was asked does not answer by TCP port 53: `probe: {{targets: [ADDRESS]}}` with a resolver"
    " that does",
)

# WireGuard

NO_HANDSHAKE = Cause(
    "wireguard",
    "no-handshake",
    "no handshake: the server answers nothing ({sent} bytes were sent in the last seconds); a wrong key and a server"
    " that can't be reached look alike",
    "compare endpoint, public key, private key and preshared key with the provider's file; if all are right, the server"
    " is down, or a network on the way blocks UDP port {port}",
)
HANDSHAKE_LOST = Cause(
    "wireguard",
    "handshake-lost",
    "the server no longer answers: {asked} gave no answer, and a new handshake had none either",
    "the keys were right a while ago, so the server, or the way to it, is down; the exit goes on trying by itself",
)
HANDSHAKE_ONLY = Cause(
    "wireguard",
    "handshake-only",
    "the handshake was answered, so the keys are right, but nothing comes back through the tunnel ({asked} asked)",
    "compare `address` with the provider's file: another one is dropped by the server; if it is right, name an address"
    " that answers pings with `probe: {{targets: [ADDRESS]}}`",
)
NO_WIREGUARD = Cause(
    "wireguard",
    "no-wireguard",
    "WireGuard could not be set up: {error}",
    "`chain doctor` says whether the host's kernel has what it needs; `chain logs exit-NAME` shows more",
)

# OpenVPN

OPENVPN_REFUSES = Cause(
    "openvpn",
    "openvpn-refuses",
    "OpenVPN does not take this file: {line}",
    "compare `secrets/…ovpn_config` with the provider's file; `chain logs exit-NAME` shows all that OpenVPN says",
)
OPENVPN_KEY_PASSWORD = Cause(
    "openvpn",
    "openvpn-key-password",
    "the private key can't be opened: {reason}",
    "compare `secrets/…ovpn_key_password` with what the provider says, then `chain up`",
)
OPENVPN_NO_ANSWER = Cause(
    "openvpn",
    "openvpn-no-answer",
    "no answer from the server on {protocol} port {port}, where the file has {remotes} server(s) to try",
    "check the server's address and port; a server also falls silent when <tls-auth> or <tls-crypt> is not its own, so"
    " compare those with a new file of the provider's; or a network on the way blocks this port",
)
OPENVPN_HANDSHAKE = Cause(
    "openvpn",
    "openvpn-handshake",
    "the server began to answer, and its TLS handshake did not come to an end ({line})",
    "compare <cert>, <key> and <tls-auth> or <tls-crypt> with a new file of the provider's: servers say nothing about"
    " those that they do not take; if it worked before, the way to the server loses packets",
)
OPENVPN_CONTROL_KEY = Cause(
    "openvpn",
    "openvpn-control-key",
    "what the server sends is not sealed with this file's key ({line})",
    "compare <tls-auth> or <tls-crypt>, and `key-direction` and `auth`, with a new file of the provider's",
)
OPENVPN_TLS = Cause(
    "openvpn",
    "openvpn-tls",
    "TLS with the server does not come about ({line})",
    "ask the provider for a new file: certificates, `tls-version-min` or `tls-cipher` do not fit the server any more",
)
OPENVPN_EXPIRED = Cause(
    "openvpn",
    "openvpn-expired",
    "the server's certificate is out of date ({line})",
    "look at the clock of the engine's host; if it is right, the provider has to renew the certificate",
)
OPENVPN_WEAK = Cause(
    "openvpn",
    "openvpn-weak",
    "a certificate is weaker than what today's OpenSSL takes ({line})",
    "ask the provider for a new file; until then `tls-cert-profile insecure` in it takes certificates signed with SHA1"
    " or MD5, and short keys, all of which others may forge",
)
OPENVPN_REVOKED = Cause(
    "openvpn",
    "openvpn-revoked",
    "the server's certificate is withdrawn, or <crl-verify>, the list of those that are, is out of date ({line})",
    "ask the provider for a new file; if it says the same, somebody may have stolen the server's key",
)
OPENVPN_AUTHORITY = Cause(
    "openvpn",
    "openvpn-authority",
    "the server's certificate is signed by nobody that <ca> names ({line})",
    "take <ca> from a new file of the provider's; if it is the same, somebody on the way shows a certificate of theirs",
)
OPENVPN_NAME = Cause(
    "openvpn",
    "openvpn-name",
    "the server's certificate is not one of such a server ({line})",
    "compare `verify-x509-name` and `remote-cert-tls` with a new file of the provider's; if they are the same, somebody"
    " else with a certificate of this provider's answers in the server's place",
)
OPENVPN_OWN_CERTIFICATE = Cause(
    "openvpn",
    "openvpn-own-certificate",
    "the server refuses this file's certificate ({line})",
    "ask the provider for a new file: <cert> may have expired, or been withdrawn",
)
OPENVPN_CREDENTIALS = Cause(
    "openvpn",
    "openvpn-credentials",
    "the server refuses the user name or the password ({reason})",
    "compare `secrets/…ovpn_username` and `…ovpn_password` with what the provider says, then `chain up`; many providers"
    " have others for OpenVPN than for their site; or the account has ended, or has too many devices",
)
OPENVPN_CODE = Cause(
    "openvpn",
    "openvpn-code",
    "the server asks for a one-time code, and nobody is there to give it ({words})",
    "ask the provider for an account, or a file with a certificate, that needs none",
)
OPENVPN_BUSY = Cause(
    "openvpn",
    "openvpn-busy",
    "the server can't tell yet whether it lets this exit in ({words})",
    "the exit dials again by itself; if it stays so, the provider has to look",
)
OPENVPN_CIPHER = Cause(
    "openvpn",
    "openvpn-cipher",
    "the server and this file have no cipher in common ({line})",
    "`cipher` or `data-ciphers` in the file, with what the provider names; without either AES-256-GCM, AES-128-GCM and"
    " CHACHA20-POLY1305 are offered",
)
OPENVPN_COMPRESSION = Cause(
    "openvpn",
    "openvpn-compression",
    "the server wants packets to be compressed, and the file does not ({line})",
    "a line `comp-lzo no` or `compress` in the file, as the provider's other files may have it: what comes is then"
    " unpacked, and nothing that is sent is ever compressed",
)
OPENVPN_OPTIONS = Cause(
    "openvpn",
    "openvpn-options",
    "what the server sends for settings can't be used ({line})",
    "`chain logs exit-NAME` shows all that OpenVPN says; it is for the provider to look at",
)
OPENVPN_NO_ADDRESS = Cause(
    "openvpn",
    "openvpn-no-address",
    "the server let this exit in, but gave it no IPv4 address",
    "it is for the provider to say why: its addresses may be used up, or there are IPv6 ones only",
)
OPENVPN_STOPPED = Cause(
    "openvpn",
    "openvpn-stopped",
    "the server fell silent while the connection was made (last: {state})",
    "the exit dials again by itself; if it stays so, the provider has to look",
)
OPENVPN_NO_TUN = Cause(
    "openvpn",
    "openvpn-no-tun",
    "the tunnel's interface can't be made ({line})",
    "the kernel of the engine's host needs the module tun; `chain doctor` says how to load it",
)
OPENVPN_ENDED = Cause(
    "openvpn",
    "openvpn-ended",
    "the server ended the connection ({reason})",
    "the exit dials again by itself; if it happens all the time, another device may use the same account",
)
OPENVPN_LOST = Cause(
    "openvpn",
    "openvpn-lost",
    "the server no longer answers ({reason})",
    "the exit dials again by itself; the server, or the way to it, is down",
)

TABLE = tuple(value for value in list(globals().values()) if isinstance(value, Cause))
