"""OpenVPN's option files (.ovpn), read by OpenVPN's own rules. Pure, stdlib only; imported by both sides.

The rules are those of `read_config_file` and `parse_line` in OpenVPN's options.c. What a file may say is a list of what
is allowed: a provider's file is run by nobody here, and what could start programs, load code, touch files or reach
others than the server is refused. No message repeats a value: any of them may be a secret that is in the wrong place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from chain.secret import MOST_BYTES_OF_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_BYTES = MOST_BYTES_OF_DOCUMENT  # those of providers have 3 to 12 kB
LONGEST_LINE = 254  # bytes: OpenVPN reads lines in pieces of this size, and takes the second piece for another line
LOGIN_LIMIT = 256  # bytes of a user name or password: of one word in OpenVPN's language
DEFAULT_PORT = 1194

_SPACE = " \t\n\v\f\r"  # C's isspace
_MOST_WORDS = 16
_SHORTEST_DASHED = 3


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, in which line (0: in none of them), and what to do."""

    line: int
    what: str
    hint: str = ""


class OvpnError(ValueError):
    """A file that can't be used; all that is wrong with it."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"line {fault.line}: {fault.what}" for fault in self.faults))


@dataclass(frozen=True)
class Remote:
    """One way to the server. `protocol`: udp or tcp."""

    host: str
    port: int
    protocol: str


@dataclass(frozen=True)
class Note:
    """A line that is not followed, though nothing is wrong with it, and why."""

    line: int
    directive: str
    why: str


@dataclass(frozen=True)
class Profile:
    """What a file says, as far as it is followed."""

    remotes: tuple[Remote, ...]
    shuffled: bool  # the remotes are to be tried in random order
    prefixed: bool  # their names are known only with a random word before them, a new one for each question
    directives: tuple[tuple[str, ...], ...]  # for OpenVPN, word by word
    blocks: dict[str, str] = field(repr=False)  # certificates and keys that stand in the file, by directive
    files: dict[str, str]  # those that stand in files beside it, by directive: the name that it has there
    login: bool  # a user name and a password are asked for
    credential_files: dict[str, str]  # likewise those of `auth-user-pass` and `askpass`, which the exit does not read
    lines: dict[str, int]  # where those files are named, by directive
    credentials: tuple[str, str] | None = field(default=None, repr=False)  # those that stand in the file
    ciphers: tuple[str, ...] = ()  # of `cipher`: for servers that do not negotiate one
    notes: tuple[Note, ...] = ()

    @property
    def encrypted_key(self) -> bool:
        return is_encrypted(self.blocks.get("key", ""))


def _is_ipv6(host: str) -> bool:
    try:
        return bool(IPv6Address(host))
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Tell whether this is an IPv4 address."""
    return _ADDRESS.fullmatch(host) is not None


def is_encrypted(key: str) -> bool:
    """Tell whether a private key in PEM form asks for a password."""
    return "BEGIN ENCRYPTED PRIVATE KEY" in key or "Proc-Type: 4,ENCRYPTED" in key


# What is passed on to OpenVPN: the form of each word, those in brackets of `_may` may be missing.

_NUMBER = r"[0-9]{1,10}"
_WORDS = r"[A-Za-z0-9:@=+!_.-]{1,200}"
_CIPHER = r"(?!none$|null$)[A-Za-z0-9-]{1,40}"
_CIPHERS = r"(?!(?:.*:)?(?:none|null)(?::|$))[A-Za-z0-9:?-]{1,200}"
_TEXT = r"[^\x00-\x1f\x7f]{1,200}"
_FINGERPRINT = r"(?:[0-9A-Fa-f]{2}:){19,31}[0-9A-Fa-f]{2}"

PASSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "allow-compression": (("no|asym|yes",), ()),
    "auth": ((_CIPHER,), ()),
    "comp-lzo": ((), ("yes|no|adaptive",)),
    "comp-noadapt": ((), ()),
    "compat-mode": ((r"[0-9.]{1,10}",), ()),
    "compress": ((), ("stub|stub-v2|migrate|lzo|lz4|lz4-v2",)),
    "data-ciphers": ((_CIPHERS,), ()),
    "data-ciphers-fallback": ((_CIPHER,), ()),
    "ecdh-curve": ((_WORDS,), ()),
    "explicit-exit-notify": ((), (r"[0-9]{1,2}",)),
    "float": ((), ()),
    "fragment": ((_NUMBER,), ("mtu",)),
    "keepalive": ((_NUMBER, _NUMBER), ()),
    "key-direction": (("[01]",), ()),
    "ns-cert-type": (("server",), ()),
    "peer-fingerprint": ((_FINGERPRINT,), ()),
    "ping": ((_NUMBER,), ()),
    "ping-restart": ((_NUMBER,), ()),
    "rcvbuf": ((_NUMBER,), ()),
    "remote-cert-eku": ((_TEXT,), ()),
    "remote-cert-ku": ((), ("[0-9a-fA-F]{1,4}",) * 8),
    "remote-cert-tls": (("server",), ()),
    "reneg-bytes": ((_NUMBER,), ()),
    "reneg-pkts": ((_NUMBER,), ()),
    "reneg-sec": ((_NUMBER,), (_NUMBER,)),
    "replay-window": ((_NUMBER,), (_NUMBER,)),
    "sndbuf": ((_NUMBER,), ()),
    "tls-cert-profile": (("insecure|legacy|preferred|suiteb",), ()),
    "tls-cipher": ((_WORDS,), ()),
    "tls-ciphersuites": ((_WORDS,), ()),
    "tls-groups": ((_WORDS,), ()),
    "tls-timeout": ((_NUMBER,), ()),
    "tls-version-max": ((r"1\.[0-3]",), ()),
    "tls-version-min": ((r"1\.[0-3]",), ("or-highest",)),
    "tran-window": ((_NUMBER,), ()),
    "tun-mtu": ((_NUMBER,), (_NUMBER,)),
    "verify-hash": ((_FINGERPRINT,), ("SHA1|SHA256|sha1|sha256",)),
    "verify-x509-name": ((_TEXT,), ("subject|name|name-prefix",)),
}
_OTHER_NAMES = {"ncp-ciphers": "data-ciphers", "connect-timeout": "server-poll-timeout", "udp-mtu": "link-mtu"}

# Certificates and keys: in the file as blocks, or beside it.
_PEM = "-----BEGIN "
BLOCKS = {
    "ca": f"{_PEM}CERTIFICATE-----",
    "cert": f"{_PEM}CERTIFICATE-----",
    "extra-certs": f"{_PEM}CERTIFICATE-----",
    "key": " PRIVATE KEY-----",
    "tls-auth": f"{_PEM}OpenVPN Static key V1-----",
    "tls-crypt": f"{_PEM}OpenVPN Static key V1-----",
    "tls-crypt-v2": f"{_PEM}OpenVPN tls-crypt-v2 client key-----",
    "crl-verify": f"{_PEM}X509 CRL-----",
}
# The secrets of those that stand beside it, by directive.
ROLES = {name: f"ovpn_{name}".replace("-", "_") for name in BLOCKS if name != "crl-verify"}
_LIST_BLOCKS = ("peer-fingerprint",)

# What the chain itself decides, or what has no meaning here; a line of these is left out, and noted.
_CHAIN = "the chain decides this"
_ROUTES = "which packets go into the tunnel is decided by the chain, never by a provider"
_DNS = "clients' names are asked for by the chain's own resolver"
_WINDOWS = "it is for Windows"
_NO_SCRIPTS = "no script is run that could read it"
_IGNORED = {
    **dict.fromkeys(
        (
            *(
                "allow-pull-fqdn",
                "auth-nocache",
                "auth-retry",
                "bind",
                "block-ipv6",
                "connect-retry",
                "connect-retry-max",
            ),
            *("daemon", "dev", "dev-type", "disable-dco", "fast-io", "group", "hand-window", "ifconfig-noexec"),
            *("ifconfig-nowarn", "inactive", "ip-remote-hint", "link-mtu", "lport", "mlock", "mssfix", "mtu-disc"),
            *("mtu-test", "multihome", "mute", "mute-replay-warnings", "nice", "nobind", "passtos", "persist-key"),
            *("persist-local-ip", "persist-remote-ip", "persist-tun", "ping-exit", "ping-timer-rem", "resolv-retry"),
            *("server-poll-timeout", "session-timeout", "shaper", "single-session", "socket-flags", "tcp-nodelay"),
            *("suppress-timestamps", "errors-to-stderr", "machine-readable-output", "tls-exit", "topology", "tun-ipv6"),
            *("tun-mtu-extra", "tun-mtu-max", "txqueuelen", "user", "verb", "disable-occ", "key-method", "prng"),
            *("up-delay", "up-restart", "down-pre", "bcast-buffers", "key-derivation"),
            *("max-packet-size", "preresolve", "use-prediction-resistance"),
        ),
        _CHAIN,
    ),
    **dict.fromkeys(
        (
            *(
                "route",
                "route-ipv6",
                "route-delay",
                "route-gateway",
                "route-ipv6-gateway",
                "route-metric",
                "max-routes",
            ),
            *("route-nopull", "route-noexec", "redirect-gateway", "redirect-private"),
            *("allow-recursive-routing", "ifconfig-ipv6", "client-nat"),
        ),
        _ROUTES,
    ),
    **dict.fromkeys(("dhcp-option", "dns", "register-dns", "block-outside-dns"), _DNS),
    **dict.fromkeys(
        (
            *("route-method", "ip-win32", "dhcp-renew", "dhcp-release", "dhcp-pre-release", "tap-sleep", "win-sys"),
            *("windows-driver", "service", "pause-exit", "show-net-up", "allow-nonadmin", "dev-node", "msg-channel"),
        ),
        _WINDOWS,
    ),
    **dict.fromkeys(("setenv", "setenv-safe"), _NO_SCRIPTS),
    **dict.fromkeys(("echo", "parameter"), "it is for programs that show it to somebody"),
    "script-security": "no program is started, whatever it allows",
    "dh": "it is a server's",
    "keysize": "the cipher's name says it, and today's OpenVPN has it no more",
    "ncp-disable": "today's OpenVPN always agrees with the server upon a cipher; that of `cipher` is offered too",
    "push-peer-info": "it tells the server this machine's hardware address",
}

# What is refused, and why.
_PROGRAM = "it runs a program"
_CODE = "it loads code"
_WRITES = "it writes to a file"
_SOCKET = "it opens a socket for others"
_READS = "it reads other files"
_PROXY = "it reaches the server through another machine; `via:` on this exit names another exit to go through"
_SERVER = "it is a server's: this takes a client's file"
_STORE = "it takes keys from a device or a store that no container has"
_BYPASS = "it would lead packets past the chain's own marks"
_REFUSED = {
    **dict.fromkeys(
        (
            *("up", "down", "route-up", "route-pre-down", "ipchange", "tls-verify", "tls-crypt-v2-verify", "iproute"),
            *("auth-user-pass-verify", "client-connect", "client-disconnect", "client-crresponse", "learn-address"),
        ),
        _PROGRAM,
    ),
    **dict.fromkeys(("plugin", "engine", "providers", "pkcs11-providers"), _CODE),
    **dict.fromkeys(
        (
            *("log", "log-append", "status", "status-version", "writepid", "replay-persist", "memstats"),
            *("ifconfig-pool-persist", "tls-export-cert", "syslog", "tmp-dir", "genkey"),
        ),
        _WRITES,
    ),
    **dict.fromkeys(
        (
            *("management", "management-client", "management-client-auth", "management-client-group"),
            *("management-client-pf", "management-client-user", "management-external-cert", "management-external-key"),
            *("management-forget-disconnect", "management-hold", "management-log-cache", "management-query-passwords"),
            *("management-query-proxy", "management-query-remote", "management-signal", "management-up-down"),
            "port-share",
        ),
        _SOCKET,
    ),
    **dict.fromkeys(("config", "cd", "chroot", "capath", "setcon"), _READS),
    **dict.fromkeys(
        (
            *("http-proxy", "http-proxy-option", "http-proxy-override", "http-proxy-retry", "http-proxy-timeout"),
            *("http-proxy-user-pass", "socks-proxy", "socks-proxy-retry"),
        ),
        _PROXY,
    ),
    **dict.fromkeys(
        (
            *("auth-gen-token", "auth-gen-token-secret", "auth-user-pass-optional", "ccd-exclusive"),
            *("client-cert-not-required", "client-config-dir", "client-to-client", "connect-freq"),
            *("connect-freq-initial", "disable", "duplicate-cn", "hash-size", "ifconfig-ipv6-pool"),
            *("ifconfig-ipv6-push", "ifconfig-pool", "ifconfig-push", "ifconfig-push-constraint", "iroute"),
            *("iroute-ipv6", "max-clients", "max-routes-per-client", "mode", "opt-verify", "push", "push-remove"),
            *("push-reset", "server", "server-bridge", "server-ipv6", "stale-routes-check", "tcp-queue-limit"),
            *("tls-server", "username-as-common-name", "verify-client-cert", "vlan-accept", "vlan-pvid"),
            "vlan-tagging",
        ),
        _SERVER,
    ),
    **dict.fromkeys(
        (
            *("cryptoapicert", "pkcs11-cert-private", "pkcs11-id", "pkcs11-id-management", "pkcs11-pin-cache"),
            *("pkcs11-private-mode", "pkcs11-protected-authentication"),
        ),
        _STORE,
    ),
    **dict.fromkeys(("mark", "bind-dev", "local"), _BYPASS),
    "pkcs12": "its parts have to be named one by one: `openssl pkcs12 -in FILE -nodes` shows them, for <ca>, <cert>"
    " and <key>",
    "secret": "it is of a server with one key for all time, which OpenVPN has given up",
    "ifconfig": "an address of one's own choice goes with servers that have one key for all time; others give one",
    "tls-remote": "today's OpenVPN has it no more; `verify-x509-name NAME name` says the same",
    "no-replay": "it takes a protection away",
    "no-iv": "it takes a protection away",
    "static-challenge": "it asks somebody for a code at each connection, and nobody is there to answer",
    "auth-token": "it is of one session, and not for keeping",
    "auth-token-user": "it is of one session, and not for keeping",
    "lladdr": "it is for tunnels of Ethernet, which clients' packets do not need",
    "rmtun": "it makes or removes interfaces, and nothing else",
    "mktun": "it makes or removes interfaces, and nothing else",
    "x509-username-field": _SERVER,
    "x509-track": _NO_SCRIPTS,
    "keying-material-exporter": _NO_SCRIPTS,
    "proto-force": "choose by `remote` and `proto`, or leave out those that are not to be used",
    "gremlin": "it loses packets, for tests of OpenVPN",
}

# What to do about some of these, beside taking them out.
_RESOLVERS = (
    "if it only sets resolvers, take the line out: here none has to be set; files for routers or Android have none"
)
_INSTEAD = {
    "up": _RESOLVERS,
    "down": _RESOLVERS,
    "pkcs12": "take the file with everything in it (in pfSense and OPNsense: Inline Configurations)",
    "static-challenge": "ask for a profile that needs no code (in Access Server: one for autologin)",
}

# Of what a server pushes, that which is taken and can be done without: a file may say that it is not.
_DISPENSABLE = re.compile("(auth-token|comp|explicit-exit-notify|ping|reneg|tun-mtu).*")
_WEAK = re.compile(r"^(BF-|DES-|DES3|CAST|RC2-|IDEA-|SEED-)|^DESX", re.IGNORECASE)
_PROTOCOLS = {
    **dict.fromkeys(("udp", "udp4"), "udp"),
    **dict.fromkeys(("tcp", "tcp-client", "tcp4", "tcp4-client"), "tcp"),
}
_IPV6 = ("udp6", "tcp6", "tcp6-client")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_ADDRESS = re.compile(r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}")


# Words in OpenVPN's language. A backslash escapes a space, a double quote or itself; between words it does nothing.
_GAP = re.compile(r"(?:\\?[ \t\v\f\r])*")
_COMMENT = re.compile(r"\\?[;#]")
_ESCAPE = r"\\[ \t\v\f\r\"\\]"
_WORD = re.compile(
    rf"""\"(?P<double>(?:[^\"\\]|{_ESCAPE})*)\"|'(?P<single>[^']*)'"""
    rf"""|(?P<bare>(?:[^ \t\v\f\r\"'\\]|\\[\"\\])(?:[^ \t\v\f\r\\]|{_ESCAPE})*)"""
)


class _LineError(ValueError):
    """One line can't be read; the text says why, and nothing of the line."""


def words(line: str) -> list[str]:
    """Cut a line as OpenVPN's parse_line does: quotes of both kinds, backslashes, comments. Raises ValueError."""
    found: list[str] = []
    at = _behind_gap(line, 0)
    while at < len(line) and not _COMMENT.match(line, at):
        match = _WORD.match(line, at)
        # A bare word goes on to the next gap: what ends it before that is a backslash that escapes nothing.
        if match is None or (match["bare"] is not None and line[match.end() : match.end() + 1] == "\\"):
            raise _LineError("a quotation is not closed, or a backslash stands before none of space, quote, backslash")
        double, single, bare = match.groups()
        found.append(single if single is not None else re.sub(r"\\(.)", r"\1", bare if double is None else double))
        at = _behind_gap(line, match.end())
    if len(found) > _MOST_WORDS:
        raise _LineError("it has too many words")
    return found


def _behind_gap(line: str, at: int) -> int:
    gap = _GAP.match(line, at)
    return gap.end() if gap else at


def quote(word: str) -> str:
    """Write one word so that OpenVPN reads it as it is. It may hold no line break."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse(text: str) -> Profile:
    """Read a file. Raises OvpnError with all that is wrong with it."""
    reader = _Reader()
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise OvpnError([Fault(0, f"it is larger than {MOST_BYTES} bytes", "is it really an .ovpn file?")])
    reader.read(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"), 1)
    return reader.profile()


def block_fault(name: str, text: str) -> str:
    """Say why OpenVPN would not read this text as the block of this name, or nothing."""
    if sign := next((sign for sign in text if not sign.isprintable() and sign not in "\n\r\t"), ""):
        return f"it has a character that can't stand there (U+{ord(sign):04X})"
    for line in text.split("\n"):
        if len(line.encode()) > LONGEST_LINE:
            return f"a line of it is longer than {LONGEST_LINE} bytes, which OpenVPN would cut"
        if line.lstrip(_SPACE).startswith(f"</{name}>"):
            return f"</{name}> stands in it"
    if name in BLOCKS and BLOCKS[name] not in text:
        return f"nothing in it says {BLOCKS[name].strip()}"
    return ""


@dataclass
class _Place:
    """How servers are reached, as said so far."""

    protocol: str = "udp"
    port: int = DEFAULT_PORT


class _Reader:
    """Gathers what lines say."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._notes: list[Note] = []
        self._directives: list[tuple[str, ...]] = []
        self._blocks: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._credential_files: dict[str, str] = {}
        self._lines: dict[str, int] = {}
        self._remotes: list[tuple[int, str, int | None, str | None]] = []
        self._connections: list[Remote] = []
        self._place = _Place()
        self._skippable: set[str] = set()
        self._refused: set[str] = set()
        self._pulls = self._tls = self._login = self._shuffled = self._prefixed = False
        self._taps = False
        self._credentials: tuple[str, str] | None = None
        self._ciphers: list[str] = []
        self._handlers: dict[str, Callable[[int, list[str]], None]] = {
            "client": self._client,
            "pull": self._client,
            "tls-client": self._client,
            "remote": self._remote,
            "proto": self._proto,
            "port": self._port,
            "rport": self._port,
            "remote-random": self._random,
            "remote-random-hostname": self._random,
            "dev": self._device,
            "dev-type": self._device,
            "auth-user-pass": self._login_asked,
            "askpass": self._askpass,
            "cipher": self._cipher,
            "pull-filter": self._filter,
            "ignore-unknown-option": self._skip,
        }

    # Lines

    def read(self, text: str, first: int, *, connection: bool = False) -> None:
        """Read lines, of which the first has this number; `connection`: of such a block."""
        lines = text.split("\n")
        index = 0
        while index < len(lines):
            number, line = first + index, lines[index]
            index += 1
            try:
                found = self._words(line)
            except _LineError as error:
                self._fault(number, f"this line can't be read: {error}", "OpenVPN itself would not take it either")
                continue
            if not found:
                continue
            name, *rest = found
            if len(name) >= _SHORTEST_DASHED and name.startswith("--"):
                name = name[2:]
            if not rest and len(name) > 2 and name[0] == "<" and name[-1] == ">":  # noqa: PLR2004 - <, > and something
                index = self._block(name[1:-1], lines, index, first)
            elif connection:
                self._of_connection(number, name, rest)
            else:
                self._directive(number, name, rest)

    def _words(self, line: str) -> list[str]:
        if len(line.encode(errors="replace")) > LONGEST_LINE:
            raise _LineError(f"it is longer than {LONGEST_LINE} bytes")
        if "\0" in line:
            raise _LineError("it has a character that can't stand there")
        found = words(line)
        for word in found:
            if not word.isprintable():
                raise _LineError("it has a character that can't stand there")
        if sum(len(quote(word).encode()) + 1 for word in found) > LONGEST_LINE:
            raise _LineError("it is too long once its words are quoted")
        return found

    def _block(self, name: str, lines: list[str], index: int, first: int) -> int:
        """Read a block to its end; give the index of the line behind it."""
        start, closing = index, f"</{name}>"
        while index < len(lines) and not lines[index].lstrip(_SPACE).startswith(closing):
            index += 1
        number = first + start - 1
        known = name in BLOCKS or name in _LIST_BLOCKS or name in ("auth-user-pass", "connection")
        if index == len(lines):
            # Without its end, all that follows may be a key.
            shown = f"<{name}>" if known else "a block"
            self._fault(number, f"{shown} is never closed", f"its end is missing: {closing if known else '</…>'}")
            return index
        if lines[index].strip(_SPACE) != closing:
            self._fault(first + index, "something stands behind the end of a block", "take it to a line of its own")
        text = "".join(f"{line}\n" for line in lines[start:index])
        if name == "connection":
            self._connection(text, first + start)
        elif name == "auth-user-pass":
            self._inline_login(number, lines[start:index])
        elif known:
            self._keep(number, name, text.replace("\r\n", "\n"))
        elif name in _REFUSED:
            self._refuse(number, name)
        elif name not in self._skippable:
            self._fault(
                number, "a block of an unknown name", "only certificates, keys and <connection> may stand there"
            )
        return index + 1

    def _keep(self, number: int, name: str, text: str) -> None:
        if name in self._blocks or name in self._files:
            self._fault(number, f"`{name}` stands twice", "keep one of the two")
        elif why := block_fault(name, text):
            self._fault(number, f"<{name}> can't be used: {why}", "copy it from the provider's file once more")
        self._blocks[name] = text

    def _directive(self, number: int, name: str, rest: list[str]) -> None:
        if name == "setenv" and rest[:1] == ["opt"] and len(rest) > 1:
            # OpenVPN's way to say: if you know it. What is refused stays refused.
            name, *rest = rest[1:]
            self._skippable.add(name)
        name = _OTHER_NAMES.get(name, name)
        if handler := self._handlers.get(name):
            handler(number, [name, *rest])
        elif name in BLOCKS:
            self._side_file(number, name, rest)
        elif name in PASSED:
            self._pass(number, name, rest)
        elif name in _REFUSED:
            self._refuse(number, name)
        elif name in _IGNORED:
            self._note(number, name, _IGNORED[name])
        elif name in self._skippable:
            self._note(number, "setenv opt", "it is unknown here, and the file says that it may be")
        else:
            # Without its name: what stands where no directive is may be part of a key.
            self._fault(number, "this directive is unknown, and only known ones are followed", "take the line out")

    def _pass(self, number: int, name: str, rest: list[str]) -> None:
        wanted, may = PASSED[name]
        fits = len(wanted) <= len(rest) <= len(wanted) + len(may) and all(
            re.fullmatch(form, word) for form, word in zip((*wanted, *may), rest, strict=False)
        )
        if not fits:
            what = f"`{name}` is not followed by what belongs there"
            hint = (
                "`none` would leave the traffic open" if "none" in ":".join(rest) else "OpenVPN's manual says what does"
            )
            self._fault(number, what, hint)
        elif name == "allow-compression" and rest == ["yes"]:
            self._note(number, name, "compressing what is sent lets others guess at it; what comes may be compressed")
            self._directives.append((name, "asym"))
        else:
            self._directives.append((name, *rest))

    def _side_file(self, number: int, name: str, rest: list[str]) -> None:
        most = 2 if name == "tls-auth" else 1
        if not 1 <= len(rest) <= most or (len(rest) == most > 1 and rest[1] not in ("0", "1")):
            self._fault(number, f"`{name}` is not followed by what belongs there", "the name of one file")
            return
        if rest[0] == "[inline]":
            pass  # of old: the block says it all
        elif name in self._blocks or name in self._files:
            self._fault(number, f"`{name}` stands twice", "keep one of the two")
        elif name == "crl-verify":
            self._refuse_file(number, name)
        else:
            self._files[name] = rest[0]
            self._lines[name] = number
        if len(rest) > 1:
            self._directives.append(("key-direction", rest[1]))

    def _refuse_file(self, number: int, name: str) -> None:
        self._fault(number, f"`{name}` names a file, and such a list is read only as a block", f"write it as <{name}>")

    # Directives that are understood

    def _client(self, number: int, said: list[str]) -> None:
        if len(said) > 1:
            self._fault(number, f"`{said[0]}` takes nothing", "OpenVPN itself would not take it either")
        self._pulls |= said[0] in ("client", "pull")
        self._tls |= said[0] in ("client", "tls-client")

    def _remote(self, number: int, said: list[str]) -> None:
        _, *rest = said
        if not 1 <= len(rest) <= 3:  # noqa: PLR2004 - host, port, protocol
            self._fault(number, "`remote` is not followed by what belongs there", "a host, a port, a protocol")
            return
        host, port, protocol = (*rest, None, None)[:3]
        self._remotes.append(
            (
                number,
                host or "",
                None if port is None else self._port_number(number, port),
                None if protocol is None else self._protocol(number, protocol),
            )
        )

    def _proto(self, number: int, said: list[str]) -> None:
        if len(said) != 2:  # noqa: PLR2004 - itself and its one word
            self._fault(number, "`proto` is not followed by what belongs there", "udp or tcp")
        else:
            self._place.protocol = self._protocol(number, said[1])

    def _port(self, number: int, said: list[str]) -> None:
        if len(said) != 2:  # noqa: PLR2004 - itself and its one word
            self._fault(number, f"`{said[0]}` is not followed by what belongs there", "a number from 1 to 65535")
        else:
            self._place.port = self._port_number(number, said[1])

    def _protocol(self, number: int, word: str) -> str:
        if word in _IPV6:
            return "ipv6"
        if word not in _PROTOCOLS:
            self._fault(number, "the protocol is none that a client speaks", "udp, tcp-client or tcp")
        return _PROTOCOLS.get(word, "udp")

    def _port_number(self, number: int, word: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", word) or not 1 <= int(word) <= 65535:  # noqa: PLR2004 - what ports are
            self._fault(number, "the port is not between 1 and 65535", "")
            return DEFAULT_PORT
        return int(word)

    def _random(self, number: int, said: list[str]) -> None:
        del number
        if said[0] == "remote-random":
            self._shuffled = True
        else:
            self._prefixed = True

    def _device(self, number: int, said: list[str]) -> None:
        name, *rest = said
        kind = rest[0] if rest else ""
        # The name's beginning decides, unless `dev-type` does.
        if kind.startswith("tap") and (name == "dev-type" or not self._taps):
            what = "the tunnel is one of Ethernet (tap)"
            self._fault(number, what, "ask the provider for a file with `dev tun`: this carries IP packets")
            self._taps = True
        else:
            self._note(number, name, _CHAIN)

    def _login_asked(self, number: int, said: list[str]) -> None:
        if len(said) > 2:  # noqa: PLR2004 - itself and a file's name
            self._fault(number, "`auth-user-pass` is followed by too much", "nothing has to follow it")
        self._login = True
        if said[1:] == ["[inline]"]:
            return
        self._credential_file(number, said)
        if said[0] in self._credential_files:
            self._note(number, said[0], "user name and password are secrets of their own")

    def _inline_login(self, number: int, lines: list[str]) -> None:
        found = [line.removesuffix("\r") for line in lines]
        self._login = True
        given = [line for line in found if line]
        if len(given) != 2:  # noqa: PLR2004 - a user name and a password
            self._fault(number, "<auth-user-pass> has not two lines", "the user name on one, the password on the next")
        elif any(len(each.encode()) > LOGIN_LIMIT or not each.isprintable() for each in given):
            self._fault(number, "<auth-user-pass> can't be used: it is too long, or has signs that can't be typed", "")
        else:
            self._credentials = given[0], given[1]

    def _askpass(self, number: int, said: list[str]) -> None:
        self._note(number, said[0], "the password of the private key is a secret of its own")
        self._credential_file(number, said)

    def _credential_file(self, number: int, said: list[str]) -> None:
        """Note which file is named; the last line counts, and without a file, or with `stdin`, somebody is asked."""
        name, *rest = said
        self._credential_files.pop(name, None)
        if rest and rest[0] != "stdin":
            self._credential_files[name] = rest[0]
            self._lines[name] = number

    def _cipher(self, number: int, said: list[str]) -> None:
        if len(said) != 2 or not re.fullmatch(_CIPHER, said[1]):  # noqa: PLR2004 - itself and its one word
            self._fault(number, "`cipher` names none", "`none` would leave the traffic open")
        elif _WEAK.match(said[1]):
            self._note(number, "cipher", "it can be broken, and today's OpenSSL has it no more: others are offered")
        else:
            self._ciphers = [said[1]]

    def _filter(self, number: int, said: list[str]) -> None:
        _, action, text, *more = [*said, "", ""]
        if action == "ignore" and _DISPENSABLE.fullmatch(text) and not any(more):
            self._directives.append((said[0], action, text))
        else:
            self._note(number, said[0], "of what a server pushes, only what the tunnel itself needs is taken")

    def _skip(self, number: int, said: list[str]) -> None:
        del number
        self._skippable |= set(said[1:])

    # Connections

    def _connection(self, text: str, first: int) -> None:
        kept, self._remotes = self._remotes, []
        place, self._place = self._place, _Place(self._place.protocol, self._place.port)
        self.read(text, first, connection=True)
        if len(self._remotes) != 1:
            self._fault(first - 1, "<connection> has not one `remote`", "each has one")
        self._connections += self._reached(self._remotes)
        self._remotes, self._place = kept, place

    def _of_connection(self, number: int, name: str, rest: list[str]) -> None:
        name = _OTHER_NAMES.get(name, name)
        if name in ("remote", "proto", "port", "rport"):
            self._handlers[name](number, [name, *rest])
        elif name in ("explicit-exit-notify", "tun-mtu", "float") or name in _IGNORED:
            self._note(number, name, _CHAIN)
        elif name in _REFUSED:
            self._refuse(number, name)
        else:
            self._fault(number, "this can't be said of one connection alone", "take it out of <connection>")

    def _reached(self, remotes: Iterable[tuple[int, str, int | None, str | None]]) -> list[Remote]:
        found = []
        for number, host, port, protocol in remotes:
            how = protocol or self._place.protocol
            if how == "ipv6" or _is_ipv6(host):
                self._note(number, "remote", "servers are reached over IPv4 only, for now")
            elif not (is_address(host) or (_HOST.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host))):
                self._fault(number, "`remote` names no host and no address", "a name or an IPv4 address")
            else:
                found.append(Remote(host, port or self._place.port, how))
        return found

    # The whole

    def profile(self) -> Profile:
        remotes = self._reached(self._remotes)
        if self._connections and remotes:
            self._notes.append(Note(self._remotes[0][0], "remote", "there are <connection> blocks, which come first"))
        self._whole(self._connections or remotes)
        if self._faults:
            raise OvpnError(sorted(self._faults, key=lambda fault: fault.line))
        return Profile(
            remotes=tuple(dict.fromkeys(self._connections or remotes)),
            shuffled=self._shuffled,
            prefixed=self._prefixed,
            directives=tuple(self._directives),
            blocks=self._blocks,
            files=self._files,
            login=self._login,
            credential_files=self._credential_files,
            lines=self._lines,
            credentials=self._credentials,
            ciphers=tuple(self._ciphers),
            notes=tuple(sorted(self._notes, key=lambda note: note.line)),
        )

    def _whole(self, remotes: list[Remote]) -> None:
        """Find what is missing, or does not go together."""
        if not (self._pulls and self._tls):
            self._fault(
                0, "it is no client's file: `client` is missing", "take the file that the provider gives clients"
            )
        if not remotes and not any("`remote`" in fault.what for fault in self._faults):
            hint = "a line such as `remote vpn.example.org 1194 udp`; servers are reached over IPv4 only, for now"
            self._fault(0, "it names no server that can be reached", hint)
        have = {*self._blocks, *self._files}
        passed = {name for name, *_ in self._directives}
        if "ca" not in have and not {"peer-fingerprint"} & (have | passed) and not self._refused & {"pkcs12"}:
            self._fault(
                0, "nothing says how the server is known: `ca` is missing", "copy <ca> from the provider's file"
            )
        if ("cert" in have) != ("key" in have):
            self._fault(0, "of `cert` and `key` one is missing", "a certificate and its private key go together")
        if "cert" not in have and not self._login:
            hint = "`auth-user-pass`, or <cert> and <key>, as the provider's file has them"
            self._fault(0, "nothing says who the client is", hint)
        if len(have & {"tls-auth", "tls-crypt", "tls-crypt-v2"}) > 1:
            self._fault(0, "of `tls-auth`, `tls-crypt` and `tls-crypt-v2` there is more than one", "servers have one")
        checks = {"remote-cert-tls", "remote-cert-eku", "verify-x509-name", "ns-cert-type", "verify-hash"}
        if not (passed & checks or "peer-fingerprint" in have | passed):
            why = "anybody with a certificate of the provider's can pose as the server: `remote-cert-tls server` helps"
            self._notes.append(Note(0, "remote-cert-tls", why))

    def _fault(self, line: int, what: str, hint: str) -> None:
        self._faults.append(Fault(line, what, hint))

    def _refuse(self, line: int, name: str) -> None:
        self._refused.add(name)
        hint = _INSTEAD.get(name, "take the line out, or ask the provider for another file")
        self._fault(line, f"`{name}` is refused: {_REFUSED[name]}", hint)

    def _note(self, line: int, name: str, why: str) -> None:
        self._notes.append(Note(line, name, why))
