"""The JSON Schema of chain.yaml, from the models, for editors that complete and check while one types.

It says less than `loader`: references between parts, and forms such as a network's, are checked by loading alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, create_model

from chain.config.models import EXITS, Config, Name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.config.models import ExitConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL = {"type": "null"}


def schema(kinds: Mapping[str, type[ExitConfig]]) -> dict[str, Any]:
    """Give the schema; `kinds` maps an exit's kind to its settings model, of which `kind` selects one."""
    exit_: Any = Union[tuple(kinds.values())]  # noqa: UP007 - they are known at run time only
    if len(kinds) > 1:
        exit_ = Annotated[exit_, Field(discriminator="kind")]
    model = create_model("Chain", __base__=Config, __doc__=Config.__doc__, exits=(dict[Name, exit_], EXITS))
    found = model.model_json_schema()
    _tidy(found)
    for name, settings in kinds.items():
        found["$defs"][settings.__name__]["title"] = f"kind: {name}"
    return {"$schema": DIALECT, "title": "chain.yaml", **found}


def _tidy(node: Any) -> None:
    """Say what loading does and pydantic does not tell, and leave out what would be noise in an editor."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    node.pop("title", None)
    if node.get("default", ...) is None or isinstance(node.get("default"), dict):
        del node["default"]
    if "patternProperties" in node:
        node["additionalProperties"] = False
    properties = node.get("properties", {})
    for name, field in properties.items():
        if name not in node.get("required", ()):
            properties[name] = _or_nothing(field)
    for key, item in node.items():
        # What stands below these are names, which may be `title` too.
        for part in item.values() if key in ("properties", "patternProperties", "$defs") else [item]:
            _tidy(part)


def _or_nothing(field: dict[str, Any]) -> dict[str, Any]:
    """Allow a key without a value, which is what a section with all its lines commented out is."""
    about = {key: value for key, value in field.items() if key in ("description", "default")}
    forms = [form for form in field.get("anyOf", [field]) if form != NULL]
    (form, *others) = [{key: value for key, value in form.items() if key not in about} for form in forms]
    if others or "type" not in form or "const" in form or "enum" in form:
        return {"anyOf": [form, *others, NULL], **about}
    # Editors say more about what is wrong when there is one form only.
    return {**form, "type": [form["type"], "null"], **about}
