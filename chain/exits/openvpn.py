"""OpenVPN exit, host side: a provider's .ovpn file, which is a secret as a whole, since keys stand in it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool

from chain import ovpn
from chain.config.models import ExitConfig, SecretFile
from chain.exits.base import Fault, KernelNeed, SecretSpec, ServiceNeeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

# Outer IP and UDP, opcode and peer, SHA-256, AES-CBC's first block, number, compression's byte, and what fills up a
# block: ciphers of today take half of that, and over TCP the size does not matter.
OVERHEAD = 20 + 8 + 4 + 32 + 16 + 4 + 1 + 16
CONFIG, USERNAME, PASSWORD, KEY_PASSWORD = "ovpn_config", "ovpn_username", "ovpn_password", "ovpn_key_password"
_CERTIFICATES = ("ca", "cert", "extra-certs")


def _usual_name(value: object) -> object:
    """Read `true` as: there is one, and it is in the file of the usual name."""
    if isinstance(value, bool):
        return SecretFile.model_construct(file="") if value else None
    return value


Beside = Annotated[
    SecretFile | None,
    BeforeValidator(_usual_name, json_schema_input_type=SecretFile | bool | None),
    Field(default=None),
]


class OpenVpnExit(ExitConfig):
    """An exit through an OpenVPN server, by the file that the provider gives for OpenVPN's app."""

    kind: Literal["openvpn"]
    config: SecretFile | None = Field(default=None, description="The provider's .ovpn file; else NAME_ovpn_config.")
    login: StrictBool = Field(
        default=True,
        description="Whether user name and password are two more secrets. false: the server wants none, or they stand"
        " in the .ovpn file.",
    )
    username: SecretFile | None = Field(default=None, description="The user name's file; else NAME_ovpn_username.")
    password: SecretFile | None = Field(default=None, description="The password's file; else NAME_ovpn_password.")
    key_password: Beside = Field(
        default=None,
        description="The file of the password that opens <key>; true: there is one, in NAME_ovpn_key_password.",
    )
    ca: Beside = Field(
        default=None,
        description="The file that the .ovpn file names in `ca`, where it has no <ca>; true: it is in NAME_ovpn_ca.",
    )
    cert: Beside = Field(default=None, description="Likewise of `cert`.")
    key: Beside = Field(default=None, description="Likewise of `key`.")
    extra_certs: Beside = Field(default=None, description="Likewise of `extra-certs`.")
    tls_auth: Beside = Field(default=None, description="Likewise of `tls-auth`.")
    tls_crypt: Beside = Field(default=None, description="Likewise of `tls-crypt`.")
    tls_crypt_v2: Beside = Field(default=None, description="Likewise of `tls-crypt-v2`.")

    def sends(self) -> dict[str, str]:
        """Say both: which of them the file names is known when it is read."""
        return {"udp": "", "tcp": ""}


class OpenVpn:
    name = "openvpn"
    settings = OpenVpnExit
    needs = ServiceNeeds(devices=("/dev/net/tun",))
    kernel: tuple[KernelNeed, ...] = (KernelNeed("tun", ("tun",), "the tunnel's interface"),)

    def secrets(self, settings: OpenVpnExit) -> tuple[SecretSpec, ...]:
        beside = {name: file for name in ovpn.ROLES if (file := getattr(settings, setting(name), None))}
        found = [
            SecretSpec(
                CONFIG,
                about="the provider's .ovpn file",
                form="document",
                override=settings.config.file if settings.config else None,
                limit=ovpn.MOST_BYTES,
                examine=partial(
                    faults, login=settings.login, key_password=bool(settings.key_password), beside=tuple(beside)
                ),
            )
        ]
        found += [
            SecretSpec(
                ovpn.ROLES[name],
                about=f"the file that the .ovpn file names in `{name}`",
                form="document",
                override=file.file or None,
                limit=ovpn.MOST_BYTES,
                examine=partial(block_faults, name=name),
            )
            for name, file in beside.items()
        ]
        if settings.login:
            found += [
                SecretSpec(role, about=about, override=file.file if file else None, limit=ovpn.LOGIN_LIMIT)
                for role, about, file in (
                    (USERNAME, "the user name", settings.username),
                    (PASSWORD, "the password", settings.password),
                )
            ]
        if settings.key_password:
            about = "the password of the private key"
            override = settings.key_password.file or None
            found.append(SecretSpec(KEY_PASSWORD, about=about, override=override, limit=ovpn.LOGIN_LIMIT))
        return tuple(found)

    def options(self, settings: OpenVpnExit) -> dict[str, Any]:
        """Nothing: all stands in the file, which the container reads for itself."""
        del settings
        return {}

    def tunnel_mtu(self, settings: OpenVpnExit, link_mtu: int) -> int:
        del settings
        return link_mtu - OVERHEAD


def faults(text: str, now: datetime, *, login: bool, key_password: bool, beside: Iterable[str]) -> list[Fault]:
    """Find what is wrong with a provider's file, or with the exit's settings beside it."""
    try:
        profile = ovpn.parse(text)
    except ovpn.OvpnError as error:
        return [Fault(each.line, each.what, each.hint) for each in error.faults]
    found = [
        *_login_faults(profile, login=login),
        *_beside_faults(profile.files, set(beside)),
        *(fault for name, block in profile.blocks.items() for fault in block_faults(block, now, name=name)),
    ]
    if profile.encrypted_key and not key_password:
        found.append(Fault(0, "<key> asks for a password", f"`key_password: true`, and it in NAME_{KEY_PASSWORD}"))
    return found


def _login_faults(profile: ovpn.Profile, *, login: bool) -> list[Fault]:
    if login and profile.credentials:
        return [Fault(0, "user name and password stand in it as <auth-user-pass>", "`login: false` uses those")]
    if login and not profile.login:
        return [Fault(0, "it has no `auth-user-pass`: no user name is asked for", "`login: false` on this exit")]
    if not login and profile.login and not profile.credentials:
        hint = f"take `login: false` out, and write NAME_{USERNAME} and NAME_{PASSWORD}"
        return [Fault(0, "it asks for a user name and a password", hint)]
    return []


def _beside_faults(files: Mapping[str, str], given: set[str]) -> list[Fault]:
    lacking = [
        Fault(
            0,
            f"its `{name}` stands in a file of its own",
            f"`{setting(name)}: true` on this exit, and a copy in NAME_{ovpn.ROLES[name]}; or in here, as <{name}>",
        )
        for name in sorted(files.keys() - given)
    ]
    unused = [
        Fault(0, f"it names no file in `{name}`", f"take `{setting(name)}` out of this exit")
        for name in sorted(given - files.keys())
    ]
    return lacking + unused


def setting(name: str) -> str:
    """Say what the file of a directive is called in chain.yaml."""
    return name.replace("-", "_")


def block_faults(text: str, now: datetime, *, name: str) -> list[Fault]:
    """Find what is wrong with a certificate or a key; in time too."""
    if why := ovpn.block_fault(name, text):
        return [Fault(0, f"{name}: {why}", "copy it from the provider's file once more")]
    return _certificate_faults(text, now, name) if name in _CERTIFICATES else []


def _certificate_faults(text: str, now: datetime, name: str) -> list[Fault]:
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return [Fault(0, f"{name}: no certificate can be read there", "copy it from the provider's file once more")]
    late = [each.not_valid_after_utc for each in certificates if each.not_valid_after_utc < now]
    early = [each.not_valid_before_utc for each in certificates if each.not_valid_before_utc > now]
    # Of several authorities, one that is still good may be all that is needed; of the own chain, each one is.
    if len(late) == len(certificates) or (late and name == "cert"):
        what = f"{name}: the certificate expired on {max(late):%Y-%m-%d}"
        return [Fault(0, what, "ask the provider for a new file; or the clock of this machine is wrong")]
    if len(early) == len(certificates):
        what = f"{name}: the certificate is not valid before {min(early):%Y-%m-%d}"
        return [Fault(0, what, "the clock of this machine may be wrong")]
    return []
