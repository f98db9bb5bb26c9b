from __future__ import annotations

from chain.exits._example import OVERHEAD, Example, ExampleExit


def test_it_has_a_secret_options_and_a_size() -> None:
    kind = Example()
    made = ExampleExit.model_validate({"kind": "_example", "server": "192.0.2.1", "address": "10.9.0.2/24"})
    assert [spec.role for spec in kind.secrets(made)] == ["example_word"]
    assert kind.options(made) == {"server": "192.0.2.1", "port": 11443, "address": "10.9.0.2/24"}
    assert kind.tunnel_mtu(made, 1500) == 1500 - OVERHEAD
