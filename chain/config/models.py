"""The models of chain.yaml. Settings of one exit kind alone stand with the kind, in `chain.exits`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Annotated, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    field_validator,
    model_validator,
)

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,23}$"
CLIENT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,47}$"
NAME_RULES = {
    NAME_PATTERN: "small letters, digits and dashes, a letter first, at most 24",
    CLIENT_NAME_PATTERN: "letters, digits, dots, dashes and underscores, at most 48",
}

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ClientName = Annotated[str, StringConstraints(pattern=CLIENT_NAME_PATTERN)]
PORT_MAX = 65535
Port = Annotated[int, Field(ge=1, le=PORT_MAX, strict=True)]
Mtu = Annotated[int, Field(ge=576, le=9000, strict=True)]

# Used with fullmatch: `$` alone would let a line break at the end through, into other programs' files.
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_DURATION = re.compile(r"^[1-9][0-9]{0,5}[smh]$")


def _network(value: object) -> object:
    """Say what is wrong with 10.13.13.7/24 instead of letting ipaddress call it a bad network."""
    if isinstance(value, str):
        interface = IPv4Interface(value)
        if interface.ip != interface.network.network_address:
            raise ValueError(f"{value} has host bits set; the network is {interface.network}")
    return value


def _host(value: str) -> str:
    """Accept an IPv4 or IPv6 address or a DNS name. No scope: what stands behind a % may be any text."""
    try:
        return str(IPv6Address(value.replace("%", " ")) if ":" in value else IPv4Address(value))
    except ValueError:
        if ":" in value or re.fullmatch(r"[0-9.]+", value) or not _HOST.fullmatch(value):
            raise ValueError(f"{value!r} is no host name and no address") from None
        return value


def _server(value: str) -> str:
    """Refuse what no exit's uplink carries yet."""
    if ":" in value:
        raise ValueError("servers are reached over IPv4 only, for now")
    return value


def is_server(value: str) -> bool:
    """Tell whether a text names a server that exits can reach: a DNS name or an IPv4 address."""
    try:
        _server(_host(value))
    except ValueError:
        return False
    return True


def is_web_address(value: str) -> bool:
    """Tell whether a text is a URL of http or https."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # which is read now, and may be none
    except ValueError:
        return False
    plain = value.isascii() and value.isprintable() and " " not in value
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _key(value: str) -> str:
    if not _KEY.fullmatch(value):
        raise ValueError("not a WireGuard key: 44 characters of base64, the last one '='")
    return value


Network4 = Annotated[IPv4Network, BeforeValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]
Server = Annotated[str, AfterValidator(_host), AfterValidator(_server)]
Duration = Annotated[str, StringConstraints(pattern=_DURATION.pattern)]
_MILLISECONDS = r"^[1-9][0-9]{0,5}(ms|s)$"
Milliseconds = Annotated[str, StringConstraints(pattern=_MILLISECONDS)]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY, _TIME = f"({'|'.join(DAYS)})", "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME_OF_WEEK = f"^({_DAY}(,{_DAY})* )?{_TIME}-{_TIME}$"


def _some_time(text: str) -> str:
    begin, _, end = text.rpartition(" ")[2].partition("-")
    if begin == end:
        raise ValueError(
            f"it begins and ends at {begin}: an exit that is not to be used at all is left out of its groups"
        )
    return text


TimeOfWeek = Annotated[str, StringConstraints(pattern=_TIME_OF_WEEK), AfterValidator(_some_time)]
_FAIL_BACK = rf"^(never|when-better|{_DURATION.pattern.strip('^$')})$"
# Forms that a text must have, as its writer is told.
FORMS = {
    _DURATION.pattern: "a number and s, m or h, such as 45s",
    _MILLISECONDS: "a number and ms or s, such as 120ms",
    _TIME_OF_WEEK: f"hours and minutes in UTC, such as 03:00-04:30, or Sat,Sun 23:00-01:00; days are {', '.join(DAYS)}",
    _FAIL_BACK: "never, when-better, or a number and s, m or h, such as 60s",
}
PublicKey = Annotated[str, AfterValidator(_key), Field(json_schema_extra={"pattern": f"^{_KEY.pattern}$"})]


def seconds(duration: str) -> int:
    """Read a Duration, such as 45s, 50m or 8h."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def milliseconds(duration: str) -> int:
    """Read a time such as 120ms or 10s."""
    return int(duration[:-2]) if duration.endswith("ms") else int(duration[:-1]) * 1000


def time_of_week(text: str) -> tuple[int, int, tuple[int, ...]]:
    """Read a TimeOfWeek: begin and end in minutes of a day, and the days on which it begins; 0 is Monday."""
    days, _, times = text.rpartition(" ")
    begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in times.split("-"))
    return begin, end, tuple(sorted({DAYS.index(day) for day in days.split(",")})) if days else tuple(range(len(DAYS)))


class Model(BaseModel):
    """Frozen, and strict about names: an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: object) -> object:
        """Take a key without a value as not there: that is what a section with all its lines commented out is."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Endpoint(Model):
    """A host and a port, written `host`, `host:port` or `[v6]:port`."""

    host: Host
    port: Port | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


def endpoint(value: object) -> object:
    """Read the written form of an endpoint. Raises ValueError that says which part is wrong."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?|([^:]*)(?::([0-9]+))?", value)
    if match is None:  # a bare IPv6 address, or nonsense
        return Endpoint(host=_host(value))
    host, port = _host(match[1] or match[3]), match[2] or match[4]
    if port and not 1 <= int(port) <= PORT_MAX:
        raise ValueError(f"the port {port} is not between 1 and {PORT_MAX}")
    return Endpoint(host=host, port=int(port) if port else None)


EndpointText = Annotated[Endpoint, BeforeValidator(endpoint, json_schema_input_type=str)]


def _server_endpoint(value: Endpoint) -> Endpoint:
    _server(value.host)
    return value


ServerEndpoint = Annotated[EndpointText, AfterValidator(_server_endpoint)]


class SecretFile(Model):
    """Where a secret is, when not in `secrets/` under its usual name. Relative to the project folder."""

    file: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")] = Field(
        description="The file that holds it, on one line."
    )


class EntryConfig(Model):
    """Where clients come in."""

    endpoint: EndpointText = Field(
        description="The name or address under which clients reach this machine. A port, as in host:443, is the one"
        " that clients are told, for a router that forwards another one to this machine."
    )
    port: Port = Field(default=51820, description="The UDP port that is opened on this machine.")
    subnet: Network4 = Field(
        default=IPv4Network("10.13.13.0/24"),
        description="The clients' network, a /16 to a /29. The entry has its first address, and is their resolver.",
    )
    mtu: Mtu | None = Field(
        default=None,
        description="The clients' largest packet, in bytes. When not given: what fits the tightest exit, at most 1420.",
    )

    @field_validator("subnet")
    @classmethod
    def _room(cls, value: IPv4Network) -> IPv4Network:
        if not 16 <= value.prefixlen <= 29:  # noqa: PLR2004 - a prefix length means itself
            raise ValueError(f"{value} must be between a /16 and a /29")
        return value


class UplinkConfig(Model):
    """An existing Docker network to use as an exit's uplink, instead of one of its own."""

    network: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        description="Its name, such as that of a macvlan."
    )
    gateway: IPv4Address | None = Field(
        default=None, description="Its gateway; the engine is asked for it when not given."
    )


class ProbeConfig(Model):
    """How it is found out whether the tunnel lives."""

    targets: list[IPv4Address] = Field(
        default_factory=list,
        max_length=4,
        description="Up to four addresses that are asked through the tunnel, many times a second, in place of the"
        " kind's own choice.",
    )
    public: list[IPv4Address] = Field(
        default=[IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1")],
        max_length=4,
        description="Strangers on the internet who are asked too, every ten seconds, and more often for a moment when"
        " answers are missing. An empty list asks nobody; `targets` has to name somebody then.",
    )

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> ProbeConfig:
        if not self.public and not self.targets:
            raise ValueError("nobody is left to ask whether the tunnel lives: name `targets`, or somebody in `public`")
        return self


class ExitConfig(Model):
    """What every exit has, whatever its kind."""

    # Protocols that its tunnel carries for an exit that runs through it.
    carries: ClassVar[frozenset[str]] = frozenset({"tcp", "udp", "esp"})
    # Whether the outside sees another address than this machine's own. One that does not is never used by default.
    hides: ClassVar[bool] = True

    kind: str
    via: Name | None = Field(
        default=None,
        description="Another exit, through whose tunnel this one's own packets go. That one needs no group to be in.",
    )
    uplink: UplinkConfig | None = Field(
        default=None,
        description="An existing Docker network to reach the provider by, in place of one that chain makes.",
    )
    mtu: Mtu | None = Field(
        default=None, description="The largest packet inside the tunnel, in bytes. Computed when not given."
    )
    probe: ProbeConfig = Field(default=ProbeConfig(), description="How it is found out whether the tunnel lives.")
    standby: Literal["hot", "cold"] = Field(
        default="hot",
        description="hot: connected all the time, in use or not; cold: only while none that is preferred to it can be"
        " used, for a provider that allows one session at a time. Dialling it then takes its time.",
    )
    maintenance: list[TimeOfWeek] = Field(
        default_factory=list,
        max_length=16,
        description="Times, in UTC, in which nothing new is sent by it: `03:00-04:30`, or `Sat,Sun 23:00-01:00`."
        " Connections that it carries stay. Without another exit its group's clients are blocked meanwhile.",
    )

    def sends(self) -> dict[str, str]:
        """Name the protocols that this exit's own packets are of, each with how to do without it, if that can be."""
        return {"udp": ""}

    def lets_to(self) -> list[IPv4Network]:
        """Name the private networks that clients may reach by it."""
        return []

    def crowds(self) -> str | None:
        """Name the server, if many of its like take but one such exit from one address; empty: a secret names it."""
        return None

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if self.via and self.uplink:
            raise ValueError("either `via:`, through another exit, or `uplink:`, not both")
        return self


# A bare number is read as a text, so that it is told what it lacks.
FailBack = Annotated[
    str,
    StringConstraints(pattern=_FAIL_BACK),
    BeforeValidator(lambda given: str(given) if type(given) is int else given),
]


class GroupConfig(Model):
    """Exits that stand in for each other, or share their clients."""

    exits: list[Name] = Field(min_length=1, description="Names of exits, or of other groups, in order of preference.")
    policy: Literal["failover", "balance"] = Field(
        default="failover",
        description="failover: the first of the list that is good is used; balance: all that are good, each by a share"
        " of the clients.",
    )
    weights: dict[Name, Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=dict, description="With balance: how large each one's share is; 1 when not given."
    )
    sticky: Literal["client", "flow"] = Field(
        default="client",
        description="With balance: client, all of a client's traffic goes by one exit; flow, each connection by any."
        " Inside another group, that one's counts.",
    )
    fail_back: FailBack = Field(
        default="when-better",
        description="When a better exit is used again: when-better, as soon as it is good; a time such as 60s, once it"
        " has been good for so long; never, not before the present one fails. For half a minute after its clients were"
        " blocked, as at a start, a better one is used at once. Inside another group, that one's counts.",
    )

    @model_validator(mode="after")
    def _weights_fit(self) -> GroupConfig:
        if self.weights and self.policy != "balance":
            raise ValueError("`weights` say how a balance shares: write `policy: balance` too")
        if self.sticky != "client" and self.policy != "balance":
            raise ValueError("`sticky` says what a balance shares out: write `policy: balance` too")
        if unknown := sorted(self.weights.keys() - set(self.exits)):
            raise ValueError(f"`weights` has {', '.join(unknown)}, which is not among `exits`: {', '.join(self.exits)}")
        return self


class FailoverConfig(Model):
    """How soon an exit counts as lost, and when it may be used again: docs/tuning.md."""

    suspect_after: Milliseconds = Field(
        default="120ms", description="Silence after which new flows, and UDP, go elsewhere; a round trip comes on top."
    )
    dead_after: Milliseconds = Field(
        default="650ms", description="Silence after which TCP connections are ended too; two round trips come on top."
    )
    hold_down: Milliseconds = Field(
        default="10s",
        description="How long a lost exit has to answer again before it is as good as others; doubled each time that it"
        " is lost again soon, up to thirty times as long.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> FailoverConfig:
        if milliseconds(self.dead_after) <= milliseconds(self.suspect_after):
            raise ValueError("`dead_after` has to be longer than `suspect_after`")
        return self


class ClientConfig(Model):
    """A device that may come in; `chain client add` writes it, and its keys below secrets/."""

    address: IPv4Address = Field(description="Its address, one of `entry.subnet`.")
    public_key: PublicKey = Field(description="Its WireGuard public key.")
    group: Name | None = Field(default=None, description="The group whose exits it uses; `default` when not given.")


class Upstream(Model):
    """A resolver, written as unbound has it: `address@port#name`. The name is what makes it TLS."""

    address: IPv4Address
    port: Port
    name: str = ""

    def __str__(self) -> str:
        return f"{self.address}@{self.port}" + (f"#{self.name}" if self.name else "")


PORT_DNS, PORT_DNS_TLS = 53, 853


def upstream(value: object) -> object:
    """Read the written form of a resolver. Raises ValueError that says which part is wrong."""
    if isinstance(value, Upstream):
        return value
    match = re.fullmatch(r"([0-9.]+)(?:@([0-9]{1,5}))?(?:#(\S+))?", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is neither ADDRESS#NAME, by TLS, nor ADDRESS, in clear; a port is ADDRESS@PORT#NAME"
        )
    address, name = IPv4Address(match[1]), match[3] or ""
    port = int(match[2] or (PORT_DNS_TLS if name else PORT_DNS))
    if not 1 <= port <= PORT_MAX:
        raise ValueError(f"the port {port} is not between 1 and {PORT_MAX}")
    if name and (re.fullmatch(r"[0-9.]+", name) or not _HOST.fullmatch(name)):
        raise ValueError(f"{name!r} is no host name; the server's certificate is to show it")
    if port == PORT_DNS_TLS and not name:
        raise ValueError(f"port {port} is for TLS, and the name in the server's certificate is missing: {value}#NAME")
    return Upstream(address=address, port=port, name=name)


UpstreamText = Annotated[Upstream, BeforeValidator(upstream, json_schema_input_type=str)]

_DS = re.compile(
    r"(\S+)\s+(?:\d+\s+)?(?:IN\s+)?DS\s+(\d{1,5})\s+(\d{1,3})\s+([124])\s+([0-9A-F\s]+)", re.IGNORECASE | re.ASCII
)
_DIGEST_LENGTHS = {"1": 40, "2": 64, "4": 96}


def _trust_anchor(value: str) -> str:
    """Accept a DS record, and write it in one way."""
    match = _DS.fullmatch(value.strip())
    if match is None or not (match[1] == "." or _HOST.fullmatch(match[1])):
        raise ValueError("not a DS record, such as `example.org. DS 20326 8 2 E06D…`")
    digest = "".join(match[5].split()).upper()
    if len(digest) != _DIGEST_LENGTHS[match[4]]:
        raise ValueError(f"a digest of type {match[4]} has {_DIGEST_LENGTHS[match[4]]} hexadecimal digits")
    return f"{match[1].rstrip('.').lower()}. DS {match[2]} {match[3]} {match[4]} {digest}"


def _certificates(value: str) -> str:
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise ValueError("no certificate in PEM form stands here") from None
    return value


Certificates = Annotated[str, AfterValidator(_certificates)]


class DnsConfig(Model):
    """How clients' names are resolved: by the chain's own resolver, which asks others through the exits."""

    upstreams: list[UpstreamText] = Field(
        default_factory=lambda: [
            Upstream(address=IPv4Address("9.9.9.9"), port=PORT_DNS_TLS, name="dns.quad9.net"),
            Upstream(address=IPv4Address("1.1.1.1"), port=PORT_DNS_TLS, name="cloudflare-dns.com"),
        ],
        min_length=1,
        max_length=8,
        description="The resolvers that are asked: ADDRESS#NAME by TLS, NAME being what the server's certificate shows,"
        " or plain ADDRESS in clear; all of one kind. A port, when not 853 or 53, as in ADDRESS@PORT#NAME."
        " 9.9.9.9#dns.quad9.net and 1.1.1.1#cloudflare-dns.com when not given.",
    )
    dnssec: StrictBool = Field(default=True, description="Refuse answers whose DNSSEC signatures are wrong.")
    redirect: StrictBool = Field(
        default=True,
        description="Answer whatever clients send to port 53 of any IPv4 address. When off, what they send to other"
        " resolvers goes out by their exit, in clear.",
    )
    ca: Annotated[str, AfterValidator(_certificates)] | None = Field(
        default=None,
        description="Certificates, in PEM form, of the authorities that the resolvers' certificates are checked with,"
        " in place of the usual ones: for a resolver of your own.",
    )
    trust_anchors: list[Annotated[str, AfterValidator(_trust_anchor)]] = Field(
        default_factory=list,
        max_length=16,
        description="DS records that DNSSEC trusts beside the root's own, for zones of your own. One for the root `.`"
        " is used in the place of that.",
    )

    @field_validator("upstreams")
    @classmethod
    def _alike(cls, value: list[Upstream]) -> list[Upstream]:
        if len({bool(upstream.name) for upstream in value}) > 1:
            clear = ", ".join(str(upstream.address) for upstream in value if not upstream.name)
            raise ValueError(
                f"some are asked by TLS and some in clear ({clear}), so that any question might go in clear"
            )
        return value


HookEvent = Literal["exit", "move", "switch", "drain", "undrain"]
HOOK_EVENTS: tuple[HookEvent, ...] = get_args(HookEvent)
Argument = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class HookConfig(Model):
    """What `chain hooks` does when something happens: a program that it runs, or a URL that it posts to."""

    events: list[HookEvent] = Field(
        default_factory=lambda: list(HOOK_EVENTS),
        min_length=1,
        description="exit: one is judged anew; move: a group's clients go by another exit; switch, drain, undrain: by"
        " hand, or for maintenance. All of them when not given.",
    )
    command: list[Argument] | None = Field(
        default=None,
        min_length=1,
        description="A program and its arguments, run in the project's folder without a shell. It reads the event, a"
        " JSON object, from standard input, and ends with 0 when all is well.",
    )
    webhook: SecretFile | None = Field(
        default=None,
        description="The file that holds an http or https URL, which is a secret. The event is posted there as JSON.",
    )

    @model_validator(mode="after")
    def _one_thing_to_do(self) -> Self:
        if (self.command is None) == (self.webhook is None):
            raise ValueError("a hook has either `command`, a list, or `webhook`, the file that holds its URL")
        if self.command and not self.command[0]:
            raise ValueError("the first of `command` names the program, and is empty")
        if self.webhook and "://" in self.webhook.file:  # not to be shown as the name of a file that is missing
            raise ValueError("`file` names the file that holds the URL; the URL itself is a secret")
        return self


class NetworkConfig(Model):
    """Addresses for the networks between the containers; one /20 holds 239 exits."""

    pool: Network4 = Field(
        default=IPv4Network("10.213.0.0/20"), description="A /20 that nothing else on this machine uses."
    )

    @field_validator("pool")
    @classmethod
    def _size(cls, value: IPv4Network) -> IPv4Network:
        if value.prefixlen != 20:  # noqa: PLR2004 - a prefix length means itself
            raise ValueError(f"{value} must be a /20")
        return value


EXITS = Field(
    min_length=1,
    description="The ways out, each under a name of its own, with which its secrets' files begin.",
)


class Config(Model):
    """A chain: one entry, its exits, and who uses them."""

    name: Name = Field(
        default="main", description="Names the containers and networks; two chains on one machine need two names."
    )
    entry: EntryConfig
    exits: dict[Name, ExitConfig] = EXITS
    groups: dict[Name, GroupConfig] = Field(
        default_factory=dict,
        description="Who goes out where. Unless one is called `default`, there is such a one of all exits that no"
        " other one runs through and that is not `direct`, in this file's order.",
    )
    clients: dict[ClientName, ClientConfig] = Field(
        default_factory=dict, description="Who may come in; written by `chain client add`."
    )
    dns: DnsConfig = DnsConfig()
    bootstrap_dns: list[IPv4Address] = Field(
        default_factory=lambda: [IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1")],
        min_length=1,
        max_length=4,
        description="The resolvers that are asked for the providers' names, outside any tunnel, and for nothing else;"
        " 9.9.9.9 and 1.1.1.1 when not given.",
    )
    failover: FailoverConfig = FailoverConfig()
    hooks: list[HookConfig] = Field(
        default_factory=list,
        max_length=16,
        description="What is done when something happens, by `chain hooks`, while that runs: docs/hooks.md.",
    )
    network: NetworkConfig = NetworkConfig()
