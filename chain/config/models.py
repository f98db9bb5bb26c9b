"""The models of chain.yaml. Settings of one exit kind alone stand with the kind, in `chain.exits`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
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


def _network(value: object) -> object:
    """Say what is wrong with 10.13.13.7/24 instead of letting ipaddress call it a bad network."""
    if isinstance(value, str):
        interface = IPv4Interface(value)
        if interface.ip != interface.network.network_address:
            raise ValueError(f"{value} has host bits set; the network is {interface.network}")
    return value


def _host(value: str) -> str:
    """Accept an IPv4 or IPv6 address or a DNS name."""
    try:
        return str(IPv6Address(value) if ":" in value else IPv4Address(value))
    except ValueError:
        if ":" in value or re.fullmatch(r"[0-9.]+", value) or not _HOST.fullmatch(value):
            raise ValueError(f"{value!r} is no host name and no address") from None
        return value


def _server(value: str) -> str:
    """Refuse what no exit's uplink carries yet."""
    if ":" in value:
        raise ValueError("servers are reached over IPv4 only, for now")
    return value


def _key(value: str) -> str:
    if not _KEY.fullmatch(value):
        raise ValueError("not a WireGuard key: 44 characters of base64, the last one '='")
    return value


Network4 = Annotated[IPv4Network, BeforeValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]
Server = Annotated[str, AfterValidator(_host), AfterValidator(_server)]
PublicKey = Annotated[str, AfterValidator(_key), Field(json_schema_extra={"pattern": f"^{_KEY.pattern}$"})]


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
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:]*)(?::(\d+))?", value)
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

    file: Annotated[str, StringConstraints(min_length=1)] = Field(description="The file that holds it, on one line.")


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
        description="Up to four addresses that are asked through the tunnel, in place of the kind's own choice.",
    )


class ExitConfig(Model):
    """What every exit has, whatever its kind."""

    kind: str
    uplink: UplinkConfig | None = Field(
        default=None,
        description="An existing Docker network to reach the provider by, in place of one that chain makes.",
    )
    mtu: Mtu | None = Field(
        default=None, description="The largest packet inside the tunnel, in bytes. Computed when not given."
    )
    probe: ProbeConfig = Field(default=ProbeConfig(), description="How it is found out whether the tunnel lives.")


class GroupConfig(Model):
    """Exits of which one is used at a time."""

    exits: list[Name] = Field(min_length=1, description="Names of exits, in order of preference.")
    policy: Literal["failover"] = Field(
        default="failover", description="failover: the first exit of the list that is open is used."
    )


class ClientConfig(Model):
    """A device that may come in; `chain client add` writes it, and its keys below secrets/."""

    address: IPv4Address = Field(description="Its address, one of `entry.subnet`.")
    public_key: PublicKey = Field(description="Its WireGuard public key.")
    group: Name | None = Field(default=None, description="The group whose exits it uses; `default` when not given.")


class DnsConfig(Model):
    """The resolvers that the chain's own resolver asks, through the exits."""

    upstreams: list[IPv4Address] = Field(
        default_factory=lambda: [IPv4Address("9.9.9.9"), IPv4Address("149.112.112.112")],
        min_length=1,
        max_length=8,
        description="The resolvers' addresses; 9.9.9.9 and 149.112.112.112 when not given.",
    )


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
        description="Who goes out where. Without any, there is one, `default`, of all exits in this file's order.",
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
    network: NetworkConfig = NetworkConfig()
