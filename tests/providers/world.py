"""Everything around a chain: providers, an internet that says whom it saw, clients, a capture. For tests and demo.

client ── clients ── (host's published port) ── entry … exit ── wan ── provider ── internet
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chain.api import keys
from chain.api.project import write_atomic
from chain.engine import images
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chain.engine.connection import Engine
    from chain.engine.images import Image

_SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
PROVIDERS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Provider:
    """One provider: where its server is reached, and which address the internet sees its customers under."""

    name: str
    wan: str
    outside: str
    network: str  # the Docker network on which its server is reached, an exit's uplink
    gateway: str


@dataclass(frozen=True)
class Site:
    """A world's name and the first three numbers of its networks: two sites can stand on one engine."""

    name: str
    wan_net: str
    clients_net: str
    internet_net: str

    @property
    def project(self) -> str:
        return f"{self.name}-world"

    @property
    def wan_gateway(self) -> str:
        return f"{self.wan_net}.1"

    @property
    def clients_gateway(self) -> str:
        """The host, as clients see it: what they name as a chain's endpoint."""
        return f"{self.clients_net}.1"

    @property
    def internet_gateway(self) -> str:
        """The host, as the internet sees it: what must never be seen from behind a chain."""
        return f"{self.internet_net}.1"

    @property
    def internet_host(self) -> str:
        return f"{self.internet_net}.80"

    @property
    def names_host(self) -> str:
        """The resolver that chains may ask for providers' names."""
        return f"{self.wan_net}.53"

    @property
    def wireguard(self) -> Provider:
        return self._provider("provider-wireguard", 10)

    @property
    def wireguard2(self) -> Provider:
        return self._provider("provider-wireguard2", 11)

    @property
    def xray(self) -> Provider:
        return self._provider("provider-xray", 30)

    @property
    def l2tp(self) -> Provider:
        return self._provider("provider-l2tp", 20)

    @property
    def openvpn(self) -> Provider:
        return self._provider("provider-openvpn", 40)

    def moved(self, provider: Provider) -> str:
        """Give an address that this provider may move to."""
        net, _, number = provider.wan.rpartition(".")
        return f"{net}.{int(number) + 100}"

    def network(self, role: str) -> str:
        return f"{self.name}-{role}"

    def _provider(self, name: str, number: int) -> Provider:
        return Provider(
            name, f"{self.wan_net}.{number}", f"{self.internet_net}.{number}", self.network("wan"), self.wan_gateway
        )


# Addresses for documentation and benchmarks (RFC 5737, RFC 2544): nobody's, so that nothing real can be met. The others
# for documentation, 192.0.2.0/24 and 203.0.113.0/24, are in real use behind some proxies: a world with them would hide
# the way to a package mirror.
TESTS = Site("chain", "198.18.0", "198.18.1", "198.51.100")
DEMO = Site("chain-demo", "198.18.8", "198.18.9", "198.19.0")

UNANSWERED = "198.18.3.1"  # in no network of either

# The tests' site is the usual one.
WAN, WAN_GATEWAY = f"{TESTS.wan_net}.0/24", TESTS.wan_gateway
CLIENTS, CLIENTS_GATEWAY = f"{TESTS.clients_net}.0/24", TESTS.clients_gateway
INTERNET, INTERNET_GATEWAY = f"{TESTS.internet_net}.0/24", TESTS.internet_gateway
INTERNET_HOST = TESTS.internet_host
WIREGUARD, WIREGUARD2, L2TP = TESTS.wireguard, TESTS.wireguard2, TESTS.l2tp

RESOLVER = "resolver.example"  # what the internet's certificate for DNS over TLS shows
XRAY_NAME = "xray.example"  # what the Xray provider's certificate shows, and the name that Reality borrows

OPENVPN_NAME, OPENVPN_USER = "openvpn.example", "customer"
_LOGIN = "auth-user-pass"
_OWN = {"cert": "client.pem", "key": "client.key"}
# The OpenVPN provider's ways in: what its files say, and which certificates and keys stand in them.
OPENVPN_WAYS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "udp": (("proto udp", "port 1194", _LOGIN), {"tls-crypt": "static.key"}),
    "tcp": (("proto tcp", "port 443", "key-direction 1"), {**_OWN, "tls-auth": "static.key"}),
    # As for a server of ten years ago.
    "old": (("proto udp", "port 1195", "cipher AES-256-CBC", "auth SHA1", "comp-lzo no", _LOGIN), {}),
    "expired": (("proto udp", "port 1196", _LOGIN), {}),
    "cipher": (("proto udp", "port 1197", "data-ciphers AES-256-GCM", _LOGIN), {}),
}

TUNNEL_NET = "10.66.0.0/24"
TUNNEL_SERVER = "10.66.0.1"
TUNNEL_CLIENT = "10.66.0.2"
WIREGUARD_PORT = 51900


# Between two looks. In emulation a look costs a second of both processors, which what is waited for needs more.
POLL_SECONDS = 1.0 if os.environ.get("CHAIN_LAB_HOST") else 0.05


class Failed(RuntimeError):  # noqa: N818 - it reads well where it is raised
    """Something of the world did not do what it should."""


def docker(*arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """Run the docker command line; give its standard output."""
    done = subprocess.run(
        ["docker", *arguments], input=stdin, text=True, capture_output=True, check=False, timeout=timeout
    )
    if check and done.returncode:
        raise Failed(f"docker {' '.join(arguments[:6])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def both_outputs(container: str) -> str:
    """Give a container's whole log: the runtime's goes to its error output."""
    done = subprocess.run(
        ["docker", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def address_in(container: str, network: str) -> str:
    """Give a container's address in a Docker network."""
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return docker("inspect", "-f", template, container).strip()


def eventually(check: Callable[[], Any], timeout: float, what: str) -> Any:
    """Wait until `check` gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"not within {timeout} s: {what}")
        time.sleep(POLL_SECONDS)


@dataclass
class World:
    """The surroundings as one Compose project. `folder` must be visible to the engine's host."""

    folder: Path
    engine: Engine
    with_l2tp: bool = False
    clients: tuple[str, ...] = ("client",)
    images: dict[str, Image] = field(default_factory=dict)
    site: Site = TESTS
    l2tp_settings: dict[str, Any] = field(default_factory=dict)  # what its server takes beyond the account
    with_wireguard: bool = True
    with_observer: bool = True  # a privileged container, which the demo has no use for
    with_names: bool = False  # a name server that knows the providers
    with_xray: bool = False
    with_openvpn: bool = False

    def wanted_images(self) -> list[Image]:
        others = {"l2tp": self.with_l2tp, "xray": self.with_xray, "openvpn": self.with_openvpn}
        folders = ["toolbox", *(name for name, wanted in others.items() if wanted)]
        return list(images.describe(folders, PROVIDERS).values())

    def build(self, progress: Callable[[str], None] = lambda _: None) -> None:
        for image in images.missing(self.engine, self.wanted_images()):
            progress(f"Building image {image.name}")
            images.build(self.engine, image, lambda _: None)

    @property
    def file(self) -> Path:
        return self.folder / "world.yaml"

    def prepare(self) -> None:
        """Write the Compose file, the keys and the providers' settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_keys()
        self._make_certificates()
        if self.with_names:
            self.set_names({name_of(provider): provider.wan for provider in self.providers()})
        self.file.write_text(yaml.safe_dump(self._compose(), sort_keys=False))

    def start(self, *, anew: bool = False) -> None:
        """Start everything; returns when all servers say they are ready. `anew`: in new containers."""
        self.prepare()
        up = ("up", "-d", "--quiet-pull", *(["--force-recreate"] if anew else []))
        docker("compose", "-p", self.site.project, "-f", str(self.file), *up, timeout=300)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        names = ["names"] if self.with_names else []
        for service in ("internet", *names, *(provider.name for provider in self.providers())):
            eventually(partial(self._is_ready, service), 180, f"{service} is ready")

    def stop(self) -> None:
        docker("compose", "-p", self.site.project, "down", "-v", "--remove-orphans", "-t", "1", timeout=120)

    @property
    def clients_gateway(self) -> str:
        return self.site.clients_gateway

    def providers(self) -> list[Provider]:
        wireguard = [self.site.wireguard, self.site.wireguard2] if self.with_wireguard else []
        others = {
            self.site.l2tp: self.with_l2tp,
            self.site.xray: self.with_xray,
            self.site.openvpn: self.with_openvpn,
        }
        return [*wireguard, *(provider for provider, wanted in others.items() if wanted)]

    def set_names(self, addresses: Mapping[str, str]) -> None:
        """Say which addresses the name server gives from now on."""
        folder = self.folder / "names"
        folder.mkdir(exist_ok=True)
        write_atomic(folder / "names.json", json.dumps(addresses), 0o644)

    def dns(self) -> dict[str, Any]:
        """Give chain.yaml's `dns`: the internet's resolver by TLS, and what it is checked by; known once started."""
        records = self.exec("internet", "keymgr", "-c", "/tmp/knot/knot.conf", ".", "ds").splitlines()
        return {
            "upstreams": [f"{self.site.internet_host}#{RESOLVER}"],
            "ca": (self.folder / "resolver" / "ca.pem").read_text(),
            "trust_anchors": records,
        }

    def l2tp_secrets(self) -> dict[str, str]:
        """Give what the L2TP provider tells its customer, by the names of the secrets' files; known once started."""
        return {
            "vpn_server_ip": self.site.l2tp.wan,
            "vpn_ipsec_psk": self.keys["psk"],
            "vpn_username": "customer",
            "vpn_password": self.keys["password"],
        }

    def logs(self, service: str) -> str:
        return docker("logs", self.container(service))

    def _is_ready(self, service: str) -> bool:
        if "ready" in self.logs(service):
            return True
        name = self.container(service)
        if docker("inspect", "-f", "{{.State.Status}}", name).strip() == "exited":
            done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=False)
            raise Failed(f"{service} ended: {done.stdout}{done.stderr}")
        return False

    def container(self, service: str) -> str:
        return f"{self.site.project}-{service}-1"

    def exec(self, service: str, *command: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run a command in one of the world's containers; give its output."""
        return docker("exec", "-i", self.container(service), *command, stdin=stdin, timeout=timeout)

    def inside(self, container: str, *command: str, stdin: str | None = None) -> str:
        """Run one of the observer's programs in any container's network namespace; give its output."""
        pid = docker("inspect", "-f", "{{.State.Pid}}", container).strip()
        return self.exec("observer", "nsenter", "-t", pid, "-n", *command, stdin=stdin)

    @contextmanager
    def background(self, service: str, *command: str) -> Iterator[None]:
        """Run a command in one of the world's containers while the block runs, then end it kindly."""
        mark = f"background-{secrets.token_hex(4)}"
        script = 'echo $$ >"/tmp/$0.pid"; exec "$@"'
        process = subprocess.Popen(["docker", "exec", self.container(service), "sh", "-c", script, mark, *command])
        try:
            yield
        finally:
            self.exec(service, "sh", "-c", f"kill -TERM $(cat /tmp/{mark}.pid)")
            process.wait(60)

    def _make_keys(self) -> None:
        file = self.folder / "keys.json"
        if not file.exists():
            made = {name: keys.new_private_key().reveal() for name in ("server", "exit", "exit2")}
            made |= {name: keys.new_preshared_key().reveal() for name in ("preshared", "psk", "password", "key32")}
            made["key16"] = base64.b64encode(secrets.token_bytes(16)).decode()
            made |= {"id": str(uuid.uuid4()), "short_id": secrets.token_hex(4)}
            file.write_text(json.dumps(made))
        self.keys: dict[str, str] = json.loads(file.read_text())
        for provider, customer in ((self.site.wireguard, "exit"), (self.site.wireguard2, "exit2")):
            settings = {
                "private_key": self.keys["server"],
                "port": WIREGUARD_PORT,
                "address": f"{TUNNEL_SERVER}/24",
                "outside": provider.outside,
                # Its customer's networks behind the tunnel are routed too, so that it can push packets at clients.
                "routes": ["10.13.13.0/24"],
                "peers": [
                    {
                        "public_key": keys.public_key(Secret(self.keys[customer])),
                        "preshared_key": self.keys["preshared"],
                        "allowed": f"{TUNNEL_CLIENT}/32, 10.13.13.0/24",
                    }
                ],
            }
            (self.folder / f"{provider.name}.json").write_text(json.dumps(settings))

    def _make_certificates(self) -> None:
        """Make an authority for this run, and the certificates that servers show, and a client of one of them."""
        folder, openvpn = self.folder / "resolver", self.folder / "openvpn"
        if folder.exists():
            return
        folder.mkdir()
        openvpn.mkdir()
        authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority_name = "authority.example"
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority_name)])
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

        def certificate(
            name: str,
            of: ec.EllipticCurvePrivateKey,
            *,
            ca: bool = False,
            days: int = 365,
            usage: x509.ObjectIdentifier = server,
        ) -> bytes:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            made = (
                x509.CertificateBuilder(issuer, subject, of.public_key(), x509.random_serial_number())
                .not_valid_before(datetime.now(UTC) - timedelta(days=9))
                .not_valid_after(datetime.now(UTC) + timedelta(days=days))
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            )
            if not ca:
                made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
                made = made.add_extension(_SIGNING, critical=True)
            return made.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)

        ca = certificate(authority_name, authority, ca=True)
        (folder / "ca.pem").write_bytes(ca)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, name, days in (("resolver", RESOLVER, 365), ("xray", XRAY_NAME, 365), ("expired", XRAY_NAME, -1)):
            (folder / f"{file}.pem").write_bytes(private + certificate(name, key, days=days))
        (openvpn / "ca.pem").write_bytes(ca)
        (openvpn / "client.pem").write_bytes(certificate("customer.example", key, usage=client))
        (openvpn / "client.key").write_bytes(private)
        for file, days in (("server", 365), ("expired", -1)):
            (openvpn / f"{file}.pem").write_bytes(private + certificate(OPENVPN_NAME, key, days=days))
        (openvpn / "static.key").write_text(static_key())

    def _compose(self) -> dict[str, Any]:
        toolbox = images.describe(["toolbox"], PROVIDERS)["toolbox"].name
        common: dict[str, Any] = {
            "image": toolbox,
            "pull_policy": "never",
            "init": True,
            "cap_drop": ["ALL"],
            "cap_add": ["NET_ADMIN", "NET_RAW"],
            "devices": ["/dev/net/tun:/dev/net/tun"],
            "stop_grace_period": "1s",
        }
        services: dict[str, Any] = {
            "internet": {
                **common,
                "command": ["internet.py", self.site.internet_host, "/resolver"],
                "volumes": [f"{self.folder / 'resolver'}:/resolver:ro"],
                "networks": {"internet": {"ipv4_address": self.site.internet_host}},
            }
        }
        for provider in (self.site.wireguard, self.site.wireguard2) if self.with_wireguard else ():
            services[provider.name] = {
                **common,
                "command": ["provider.py", "/settings.json"],
                "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"},
                "volumes": [f"{self.folder / provider.name}.json:/settings.json:ro"],
                "networks": {
                    "wan": {"ipv4_address": provider.wan},
                    "internet": {"ipv4_address": provider.outside},
                },
            }
        for name in self.clients:
            services[name] = {
                **common,
                "entrypoint": ["sleep", "infinity"],
                "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"},
                "networks": ["clients"],
            }
        if self.with_names:
            services["names"] = {
                **common,
                "command": ["names.py", self.site.names_host, "/names/names.json"],
                "volumes": [f"{self.folder / 'names'}:/names:ro"],
                "networks": {"wan": {"ipv4_address": self.site.names_host}},
            }
        # Sees every interface of the engine's host, and reaches into containers to break things.
        if self.with_observer:
            services["observer"] = {
                "image": toolbox,
                "pull_policy": "never",
                "init": True,
                "command": ["timestamps.py"],
                "privileged": True,
                "network_mode": "host",
                "pid": "host",
                "stop_grace_period": "1s",
            }
        if self.with_l2tp:
            services[self.site.l2tp.name] = self._l2tp_service()
        if self.with_xray:
            services[self.site.xray.name] = self._xray_service()
        if self.with_openvpn:
            services[self.site.openvpn.name] = self._openvpn_service()
        return {
            "services": services,
            "networks": {
                role: {
                    "name": self.site.network(role),
                    "ipam": {"config": [{"subnet": f"{net}.0/24", "gateway": f"{net}.1"}]},
                }
                for role, net in (
                    ("wan", self.site.wan_net),
                    ("clients", self.site.clients_net),
                    ("internet", self.site.internet_net),
                )
            },
        }

    def _xray_service(self) -> dict[str, Any]:
        # Reality's key has a WireGuard key's form, in another alphabet.
        private = self.keys["server"].translate(str.maketrans("+/", "-_")).rstrip("=")
        settings = {name: self.keys[name] for name in ("id", "password", "key16", "key32", "short_id")}
        settings |= {"private_key": private, "name": XRAY_NAME, "folder": "/certificates"}
        (self.folder / "provider-xray.json").write_text(json.dumps(settings))
        return {
            "image": images.describe(["xray"], PROVIDERS)["xray"].name,
            "pull_policy": "never",
            "init": True,
            "command": ["/settings.json"],
            "cap_drop": ["ALL"],
            "cap_add": ["NET_ADMIN", "NET_BIND_SERVICE"],
            "volumes": [
                f"{self.folder}/provider-xray.json:/settings.json:ro",
                f"{self.folder / 'resolver'}:/certificates:ro",
            ],
            "stop_grace_period": "1s",
            "networks": {
                "wan": {"ipv4_address": self.site.xray.wan},
                "internet": {"ipv4_address": self.site.xray.outside},
            },
        }

    def _openvpn_service(self) -> dict[str, Any]:
        settings = {
            "user": OPENVPN_USER,
            "password": self.keys["password"],
            "outside": self.site.openvpn.outside,
            "routes": ["10.13.13.0"],
            "folder": "/certificates",
        }
        (self.folder / "provider-openvpn.json").write_text(json.dumps(settings))
        return {
            "image": images.describe(["openvpn"], PROVIDERS)["openvpn"].name,
            "pull_policy": "never",
            "init": True,
            "command": ["/settings.json"],
            "cap_drop": ["ALL"],
            "cap_add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"],
            "devices": ["/dev/net/tun:/dev/net/tun"],
            "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"},
            "volumes": [
                f"{self.folder}/provider-openvpn.json:/settings.json:ro",
                f"{self.folder / 'openvpn'}:/certificates:ro",
            ],
            "stop_grace_period": "1s",
            "networks": {
                "wan": {"ipv4_address": self.site.openvpn.wan},
                "internet": {"ipv4_address": self.site.openvpn.outside},
            },
        }

    def _l2tp_service(self) -> dict[str, Any]:
        account = self.l2tp_secrets()
        settings = {
            "psk": account["vpn_ipsec_psk"],
            "user": account["vpn_username"],
            "password": account["vpn_password"],
            "outside": self.site.l2tp.outside,
            **self.l2tp_settings,
        }
        (self.folder / "provider-l2tp.json").write_text(json.dumps(settings))
        return {
            "image": images.describe(["l2tp"], PROVIDERS)["l2tp"].name,
            "pull_policy": "never",
            "init": True,
            "command": ["/settings.json"],
            "cap_drop": ["ALL"],
            # charon looks for the third before it opens its sockets, though the kernel would let it.
            "cap_add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"],
            "devices": ["/dev/ppp:/dev/ppp"],
            "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"},
            "volumes": [f"{self.folder}/provider-l2tp.json:/settings.json:ro"],
            "stop_grace_period": "1s",
            "networks": {
                "wan": {"ipv4_address": self.site.l2tp.wan},
                "internet": {"ipv4_address": self.site.l2tp.outside},
            },
        }


def static_key() -> str:
    """Make a key as `openvpn --genkey secret` does."""
    lines = "\n".join(secrets.token_hex(16) for _ in range(16))
    return f"-----BEGIN OpenVPN Static key V1-----\n{lines}\n-----END OpenVPN Static key V1-----\n"


def name_of(provider: Provider) -> str:
    return f"{provider.name}.example"


def wireguard_exit(provider: Provider, server: str = "") -> dict[str, Any]:
    """Give chain.yaml's fields for an exit at one of the WireGuard providers; `server`: its name."""
    return {
        "kind": "wireguard",
        "endpoint": f"{server or provider.wan}:{WIREGUARD_PORT}",
        "address": f"{TUNNEL_CLIENT}/32",
        "dns": TUNNEL_SERVER,
        "preshared_key": True,
        "uplink": {"network": provider.network, "gateway": provider.gateway},
    }


def xray_exit(world: World, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give chain.yaml's fields for an exit at the Xray provider; `fields` say which of its ways in."""
    provider = world.site.xray
    public = keys.public_key(Secret(world.keys["server"])).translate(str.maketrans("+/", "-_")).rstrip("=")
    known = {
        "reality": {"public_key": public, "server_name": XRAY_NAME, "short_id": world.keys["short_id"]},
        "tls": {"server_name": XRAY_NAME, "ca": (world.folder / "resolver" / "ca.pem").read_text()},
    }
    return {
        "kind": "xray",
        "server": provider.wan,
        "probe": {"targets": [world.site.internet_host]},
        "uplink": {"network": provider.network, "gateway": provider.gateway},
        **{name: known[name] | value if name in known else value for name, value in fields.items()},
    }


def openvpn_file(world: World, way: str, *, server: str = "", more: str = "") -> str:
    """Give the file that the OpenVPN provider hands out for one of its ways in; `more` stands at its end."""
    lines, blocks = OPENVPN_WAYS[way]
    texts = [
        f"<{name}>\n{(world.folder / 'openvpn' / file).read_text().strip()}\n</{name}>"
        for name, file in {"ca": "ca.pem", **blocks}.items()
    ]
    head = ["client", "dev tun", f"remote {server or world.site.openvpn.wan}", "remote-cert-tls server", "verb 3"]
    return "\n".join([*head, *lines, *texts, more]) + "\n"


def openvpn_exit(provider: Provider, **fields: Any) -> dict[str, Any]:
    """Give chain.yaml's fields for an exit at the OpenVPN provider; the rest stands in its file."""
    return {"kind": "openvpn", "uplink": {"network": provider.network, "gateway": provider.gateway}, **fields}


def l2tp_exit(provider: Provider) -> dict[str, Any]:
    """Give chain.yaml's fields for an exit at the L2TP provider; its server's address is one of the secrets."""
    return {"kind": "l2tp", "uplink": {"network": provider.network, "gateway": provider.gateway}}
