"""Per-interface settings over rtnetlink, as the kernel itself shows them afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.ground import Namespace, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespaces("place") as (namespace,):
        join(namespace, "one", namespace, "two")
        yield namespace


def value(place: Namespace, interface: str, name: str) -> str:
    return place.run("cat", f"/proc/sys/net/ipv4/conf/{interface}/{name}").strip()


def test_forwarding_is_switched_for_one_interface_alone(place: Namespace) -> None:
    place.sysctl(ipv4__ip_forward=0)
    code = "from chain.node.netlink import set_forwarding; set_forwarding('one', on={})"
    for on in (True, True, False, False, True):
        place.python(code.format(on))
        assert value(place, "one", "forwarding") == str(int(on))
        assert (value(place, "two", "forwarding"), value(place, "all", "forwarding")) == ("0", "0")


@pytest.mark.parametrize("inherited", [1, 2])
def test_an_interface_is_made_lenient_whatever_it_inherited(place: Namespace, inherited: int) -> None:
    for name in ("rp_filter", "accept_redirects", "send_redirects"):
        place.sysctl(**{f"ipv4__conf__one__{name}": min(inherited, 2 if name == "rp_filter" else 1)})
    place.python("from chain.node.netlink import set_lenient; set_lenient('one')")
    found = {name: value(place, "one", name) for name in ("rp_filter", "accept_redirects", "send_redirects")}
    assert found == {"rp_filter": "0", "accept_redirects": "0", "send_redirects": "0"}


def test_an_interface_that_is_not_there_is_an_error(place: Namespace) -> None:
    with pytest.raises(AssertionError, match=r"OSError: no interface"):
        place.python("from chain.node.netlink import set_forwarding; set_forwarding('three', on=True)")


def test_without_the_capability_it_is_an_error_and_nothing_changes(place: Namespace) -> None:
    place.sysctl(ipv4__ip_forward=0)
    with pytest.raises(AssertionError, match="PermissionError"):
        place.python(
            "from chain.node import caps, netlink; caps.drop(12); netlink.set_forwarding('one', on=True)"  # NET_ADMIN
        )
    assert value(place, "one", "forwarding") == "0"
