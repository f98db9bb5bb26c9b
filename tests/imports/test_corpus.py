"""What providers hand out, in the forms of their programs: understood field by field, or refused with a reason."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from corpus import HERE, SECRETS, Case, cases, items, told
from fuzz import Fuzzer, Ground, examined, problems, small

from chain.imports import Imported, RefusedError

if TYPE_CHECKING:
    from tests.conftest import Golden

ACCEPTED, REFUSED = cases("accepted"), cases("refused")
MUTATIONS = 1000


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_it_is_understood(case: Case) -> None:
    assert [told(item) for item in items(case.data)] == list(case.exits)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("imports"))


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_it_arrives_unchanged_where_its_daemon_reads_it(case: Case, ground: Ground) -> None:
    taken = [item.found for item in items(case.data) if isinstance(item.found, Imported)]
    assert taken
    for each in taken:
        ground.check(each)


def messages(case: Case) -> str:
    found = []
    for item in items(case.data):
        assert isinstance(item.found, RefusedError), f"{case.name} was taken"
        found += [str(problem) for problem in item.found.problems]
    assert found
    return "\n".join(found)


@pytest.mark.parametrize("name", sorted(path.stem for path in (HERE / "refused").glob("*.yaml")))
def test_each_refusal_has_its_reason(name: str, golden: Golden) -> None:
    own = [case for case in REFUSED if case.name.startswith(f"{name}/")]
    text = "\n\n".join(f"## {case.name.partition('/')[2]}\n{messages(case)}" for case in own)
    golden.check(HERE / "refused" / f"{name}.golden", text + "\n")


def test_no_golden_is_left_of_what_is_gone() -> None:
    stems = [{path.stem for path in (HERE / "refused").glob(f"*.{suffix}")} for suffix in ("yaml", "golden")]
    assert stems[0] == stems[1]


def forms(secret: str) -> set[str]:
    """Give the forms of a secret in which an input may have it."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret, safe=""), encoded, encoded.replace("+", "-").replace("/", "_")}


@pytest.mark.parametrize("case", [*REFUSED, *ACCEPTED], ids=lambda case: case.name)
def test_no_message_repeats_a_secret(case: Case) -> None:
    said = [str(problem) for item in items(case.data) for problem in problems(item)]
    shown = "\n".join([*said, *(repr(item.found) for item in items(case.data))])
    for secret in SECRETS:
        for form in forms(secret):
            # Neither the whole of it nor a part that would help.
            assert not [form[at : at + 8] for at in range(len(form) - 7) if form[at : at + 8] in shown]


def test_enough_of_both_were_written() -> None:
    exits = sum("refused" not in exit_ for case in ACCEPTED for exit_ in case.exits)
    assert len(ACCEPTED) >= 60
    assert exits >= len(ACCEPTED)
    assert len(REFUSED) >= 100
    assert all(case.shape for case in ACCEPTED)


@pytest.mark.parametrize("case", [*REFUSED, *ACCEPTED], ids=lambda case: case.name)
def test_no_input_takes_long(case: Case) -> None:
    began = time.process_time()
    items(case.data)
    assert time.process_time() - began < 1


HOSTILE = {
    "open brackets": "vmess://" + base64.b64encode(b"[" * 100_000).decode(),
    "open braces": '{"a":' * 100_000,
    "percent signs": "trojan://x@h:443?" + "%" * 16_000,
    "parameters": "trojan://x@h:443?" + "&a=b" * 4_000,
    "at signs": "trojan://" + "@" * 16_000 + "h:443",
    "colons": "trojan://x@" + ":" * 16_000,
    "networks": "[Interface]\n[Peer]\nAllowedIPs = " + ",".join(f"10.{n >> 8}.{n & 255}.0/25" for n in range(30_000)),
    "one network again and again": "[Interface]\n[Peer]\n" + "AllowedIPs = 0.0.0.0/0\n" * 20_000,
    "peers": "[Interface]\n" + "[Peer]\n" * 60_000,
    "addresses": "[Interface]\nAddress = " + "10.0.0.1 " * 50_000,
    "sections of many lines": "[Interface]\n" + "\n" * 500_000,
    "labels": "Server: a\nPSK: b\n" + "Server: a\n" * 40_000,
    "spaces": "Server:" + " " * 500_000 + "\nPSK: b\n",
    "deep property list": "<plist>" + "<array>" * 60_000,
    "many payloads": "<plist><dict><key>PayloadContent</key><array>"
    + "<dict></dict>" * 30_000
    + "</array></dict></plist>",
    "a long number": "<plist><dict><key>PayloadVersion</key><integer>" + "9" * 400_000 + "</integer></dict></plist>",
    "a long number in JSON": "vmess://" + base64.b64encode(b'{"port":' + b"9" * 10_000 + b"}").decode(),
    "base64": "QUFB" * 130_000,
    "base64 in base64": base64.b64encode(base64.b64encode(b"a" * 290_000)).decode(),
    "lines that look like something": "remote x 1 \n" * 40_000,
    "lines of nothing known": "remote " * 70_000,
    "links": "trojan://x@vpn.example.com:443?security=tls&type=ws&path=%2F&host=a.example.com#x\n" * 1000,
    "tags": "<" * 500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_takes_no_longer(name: str) -> None:
    began = time.process_time()
    items(HOSTILE[name].encode())
    assert time.process_time() - began < 1


def test_mutations_of_all_of_it_do_no_harm(ground: Ground) -> None:
    fuzzer = Fuzzer(8, small("accepted"), small("refused"))
    for data in fuzzer.mutations(MUTATIONS):
        examined(data, ground)
