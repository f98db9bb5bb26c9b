"""An Apple configuration profile (.mobileconfig) with L2TP/IPsec in it → exits, one for each such payload.

Its keys are those of Apple's own description of the payload `com.apple.vpn.managed`.
"""

from __future__ import annotations

import plistlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError, ParserCreate

from chain.errors import Problem
from chain.imports import l2tp
from chain.imports.base import SPACES, Imported, Item, Reading, RefusedError, nothing_aside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.imports.base import Aside

MOST_PAYLOADS = 256
_BASE64 = re.compile("[A-Za-z0-9+/]*={0,2}")
_VPN = "com.apple.vpn.managed"
_BEGINNINGS = ("<?xml", "<!doctype plist", "<plist")
_TYPES = {
    "IKEv2": "IKEv2 without L2TP",
    "IPSec": "Cisco's IPsec without L2TP",
    "PPTP": "PPTP, which is broken",
    "VPN": "a VPN of an app of its own",
    "AlwaysOn": "IKEv2 without L2TP",
    "TransparentProxy": "a proxy of an app of its own",
}
# Keys that are about showing and keeping a profile, and about when a device dials: an exit always does.
_ABOUT = (
    *("PayloadContent", "PayloadDescription", "PayloadDisplayName", "PayloadIdentifier", "PayloadOrganization"),
    *("PayloadType", "PayloadUUID", "PayloadVersion", "PayloadEnabled", "PayloadScope", "UserDefinedName"),
    *("VPNType", "VPNSubType", "VendorConfig", "PPP", "IPSec", "IPv4", "EAP", "Proxies", "DNS"),
    *("PayloadRemovalDisallowed", "ConsentText", "PayloadExpirationDate", "RemovalDate", "DurationUntilRemoval"),
    *("HasRemovalPasscode", "IsEncrypted", "EncryptedPayloadContent", "TargetDeviceType"),
)
_DIALLING = (
    "OnDemandEnabled",
    "OnDemandRules",
    "DisconnectOnIdle",
    "DisconnectOnIdleTimer",
    "OnDemandUserOverrideDisabled",
)
_PPP = (
    "AuthName",
    "AuthPassword",
    "TokenCard",
    "CommRemoteAddress",
    "AuthEAPPlugins",
    "AuthProtocol",
    "UserDefinedName",
)
_MPPE = ("CCPEnabled", "CCPMPPE40Enabled", "CCPMPPE128Enabled")
_IPSEC = ("AuthenticationMethod", "SharedSecret", "LocalIdentifier", "LocalIdentifierType", "RemoteAddress")
_XAUTH = ("XAuthEnabled", "XAuthName", "XAuthPassword", "XAuthPasswordEncryption", "PromptForVPNPIN")
_CHAP = ("MSCHAP2", "CHAP", "MSCHAPV2", "MSCHAP")


def recognises(text: str) -> bool:
    return text.lstrip(SPACES)[:32].lower().startswith(_BEGINNINGS)


def read(text: str, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    """Read a profile. Raises RefusedError where the whole of it can't be used."""
    del aside
    profile = _profile(text)
    payloads = profile.get("PayloadContent")
    if profile.get("IsEncrypted") or "EncryptedPayloadContent" in profile:
        raise RefusedError(Problem("the profile", "it is encrypted for one device", "ask for one that is not"))
    if not isinstance(payloads, list) or len(payloads) > MOST_PAYLOADS:
        raise RefusedError(Problem("PayloadContent", f"it is no list of up to {MOST_PAYLOADS} payloads", _WHOLE))
    ours = [each for each in payloads if isinstance(each, dict) and each.get("PayloadType") == _VPN]
    if not ours:
        raise RefusedError(Problem("the profile", "it has no VPN in it", _WHOLE))
    general = Reading()
    if len(ours) < len(payloads):
        general.warn("PayloadContent", f"{len(payloads) - len(ours)} payloads that are no VPN are left out")
    expires = profile.get("PayloadExpirationDate")
    if isinstance(expires, datetime) and expires.replace(tzinfo=UTC) < now:
        general.warn("PayloadExpirationDate", f"it was {expires:%Y-%m-%d}: the provider may have a newer profile")
    _unknown(general, profile, _ABOUT, "the profile")
    return [_item(each, general) for each in ours]


_WHOLE = "is it whole, and for a VPN?"


def _profile(text: str) -> dict[str, Any]:
    """Read the XML. Entities of its own, which could make it grow without end, are refused by plistlib."""
    try:
        found = plistlib.loads(text.lstrip(SPACES).encode(), fmt=plistlib.FMT_XML)
        _check_strictly(text.lstrip(SPACES))
    except plistlib.InvalidFileException:
        raise RefusedError(Problem("the profile", "it declares entities, which no profile has", "")) from None
    except (ExpatError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise RefusedError(Problem("the profile", "it is no property list that can be read", _WHOLE)) from None
    if not isinstance(found, dict):
        raise RefusedError(Problem("the profile", "it is no profile: no dictionary", _WHOLE))
    return found


def _check_strictly(text: str) -> None:
    """Refuse what plistlib lets pass: a key that stands twice, and base64 with other signs in it, which it skips."""
    keys: list[set[str]] = []
    parts: list[str] = []

    def start(name: str, _: object) -> None:
        parts.clear()
        if name == "dict":
            keys.append(set())

    def end(name: str) -> None:
        value = "".join(parts)
        if name == "dict":
            keys.pop()
        elif name == "key" and value in keys[-1]:
            what = "one of its dictionaries has a key twice"
            raise RefusedError(Problem("the profile", what, "leave one of the two"))
        elif name == "key":
            keys[-1].add(value)
        elif name == "data" and not _BASE64.fullmatch("".join(value.split())):
            raise RefusedError(Problem("the profile", "a <data> in it is no base64", _WHOLE))

    parser = ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = parts.append
    parser.Parse(text.encode(), True)  # noqa: FBT003 - it takes no name


def _item(payload: Mapping[str, Any], general: Reading) -> Item:
    name = payload.get("UserDefinedName") or payload.get("PayloadDisplayName")
    try:
        return Item(name if isinstance(name, str) else "", _exit(payload, general))
    except RefusedError as error:
        return Item(name if isinstance(name, str) else "", error)


def _exit(payload: Mapping[str, Any], general: Reading) -> Imported:
    reading = Reading(list(general.problems), list(general.warnings))
    kind = payload.get("VPNType")
    if kind != "L2TP":
        known = _TYPES.get(kind, "of an unknown type") if isinstance(kind, str) else "of an unknown type"
        raise RefusedError(Problem("VPNType", f"this is {known}", "an exit of kind l2tp is L2TP over IPsec"))
    ppp, ipsec = _section(reading, payload, "PPP"), _section(reading, payload, "IPSec")
    server = _text(reading, ppp, "CommRemoteAddress")
    if not server:
        reading.refuse("CommRemoteAddress", "the server is missing", _WHOLE)
    else:
        reading.server("CommRemoteAddress", server)
    _of_ppp(reading, ppp)
    _of_ipsec(reading, ipsec, server)
    _of_payload(reading, payload)
    secrets = {
        "vpn_ipsec_psk": _shared_secret(reading, ipsec),
        "vpn_username": _text(reading, ppp, "AuthName"),
        "vpn_password": _text(reading, ppp, "AuthPassword"),
    }
    return l2tp.exit_of(reading, {"server": server}, {role: value for role, value in secrets.items() if value})


def _section(reading: Reading, payload: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = payload.get(name, {})
    if isinstance(found, dict):
        return found
    reading.refuse(name, "it is no dictionary", _WHOLE)
    return {}


def _text(reading: Reading, section: Mapping[str, Any], name: str) -> str:
    found = section.get(name, "")
    if isinstance(found, str):
        return found
    reading.refuse(name, "it is no <string>")
    return ""


def _shared_secret(reading: Reading, ipsec: Mapping[str, Any]) -> str:
    """Read the key: bytes, which are text for everybody who has typed one in."""
    found = ipsec.get("SharedSecret", b"")
    if isinstance(found, str):
        if found:
            reading.warn("SharedSecret", "it is a <string> where Apple has <data>, and is taken as it stands")
        return found
    if isinstance(found, bytes):
        try:
            return found.decode()
        except UnicodeDecodeError:
            reading.refuse("SharedSecret", "its bytes are no UTF-8 text", "secrets are kept as text, on one line")
            return ""
    reading.refuse("SharedSecret", "it is no <data>")
    return ""


def _of_ppp(reading: Reading, ppp: Mapping[str, Any]) -> None:
    if ppp.get("TokenCard"):
        reading.refuse("TokenCard", "somebody would have to read a number from a card at each dial")
    if ppp.get("AuthEAPPlugins"):
        reading.refuse("AuthEAPPlugins", "EAP inside PPP is not supported")
    protocols = ppp.get("AuthProtocol") or []
    if not isinstance(protocols, list) or not all(each in _CHAP for each in protocols):
        what = "it asks for another way to log in than MS-CHAPv2 or CHAP"
        reading.refuse("AuthProtocol", what, "where it is PAP: `ppp: {auth: [pap]}` in chain.yaml, by hand")
    _unknown(reading, ppp, (*_PPP, *_MPPE, *_DIALLING), "PPP")
    if any(ppp.get(key) for key in _MPPE):
        reading.warn("CCPEnabled", "PPP's own encryption is not used inside IPsec, which is stronger")
    _says_dialling(reading, ppp)


def _of_ipsec(reading: Reading, ipsec: Mapping[str, Any], server: str) -> None:
    if ipsec.get("AuthenticationMethod", "SharedSecret") != "SharedSecret" or "PayloadCertificateUUID" in ipsec:
        reading.refuse("AuthenticationMethod", "certificates are not supported: only a pre-shared key is")
    if ipsec.get("LocalIdentifier"):
        reading.refuse("LocalIdentifier", "a group name is not supported", "remove it, if the provider says it may be")
    if ipsec.get("XAuthEnabled") or ipsec.get("PromptForVPNPIN"):
        reading.refuse("XAuthEnabled", "this is Cisco's IPsec, and L2TP has its login in PPP")
    if ipsec.get("RemoteAddress", server) not in ("", server):
        reading.refuse("RemoteAddress", "it is another server than PPP's CommRemoteAddress", "leave one in the file")
    _unknown(reading, ipsec, (*_IPSEC, *_XAUTH, *_DIALLING), "IPSec")
    _says_dialling(reading, ipsec)


def _of_payload(reading: Reading, payload: Mapping[str, Any]) -> None:
    ipv4 = _section(reading, payload, "IPv4")
    if ipv4.get("OverridePrimary") == 0:
        reading.warn("OverridePrimary", "it is 0; an exit sends all of its clients' traffic to the server all the same")
    _unknown(reading, ipv4, ("OverridePrimary",), "IPv4")
    proxies = _section(reading, payload, "Proxies")
    if any(proxies.values()):
        reading.warn("Proxies", "they are left out: clients reach everything by the tunnel itself")
    if payload.get("DNS"):
        hint = "`dns: {upstreams: […]}` has others asked"
        reading.warn("DNS", "clients ask the chain's own resolver, through the exit", hint)
    _says_dialling(reading, payload)
    _unknown(reading, payload, (*_ABOUT, *_DIALLING), "the payload")


def _says_dialling(reading: Reading, section: Mapping[str, Any]) -> None:
    if any(section.get(key) for key in _DIALLING):
        reading.warn("OnDemandEnabled", "rules for when to dial are left out: an exit always does")


def _unknown(reading: Reading, section: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    count = sum(1 for key in section if key not in known)
    if count:
        reading.warn(where, f"{count} of its keys are not known here, and are left out")
