"""Verbs: what their schema says is what is checked, and a wrong parameter is named in one line."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talks import Asked

from fastbridge.control.protocol import NO_VERB, WRONG_PARAMETERS, RpcError
from fastbridge.control.verbs import Verbs, fits, schema_of, spoken


class Entry(TypedDict):
    mac: str
    vlan: int


HINTS = [
    str, int, float, bool, None, dict, list, Any, str | None, list[str], dict[str, bool], dict[str, float | None],
    Literal["up", "down"], Literal["auto", 1, 2], list[Literal["a", "b"]] | None, list[dict[str, Any]], Entry,
    list[Entry], str | list[int],
]  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 65), 1 << 65)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.sampled_from(["up", "down", "auto", "a", "b", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["mac", "vlan", "other"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(HINTS), values)
def test_what_fits_is_what_jsonschema_finds_valid(hint: Any, value: Any) -> None:
    schema = schema_of(hint)
    assert fits(value, schema) == jsonschema.Draft202012Validator(schema).is_valid(value)


def test_the_schema_is_one() -> None:
    verbs = Asked().verbs
    found = verbs.call("schema", {})
    assert found["version"] == 1 and set(found["verbs"]) == set(verbs)
    for verb in found["verbs"].values():
        jsonschema.Draft202012Validator.check_schema(verb["params"])
        jsonschema.Draft202012Validator.check_schema(verb["result"])
        assert verb["description"] and verb["description"][-1] == "."
    side = found["verbs"]["side"]["params"]
    assert side["required"] == ["port"] and side["properties"]["side"] == {"enum": ["left", "right"]}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "side needs the parameter port: a string"),
        ({"port": 1}, "side: port must be a string, not 1"),
        ({"port": None}, "side: port must be a string, not null"),
        ({"port": "a", "number": True}, "side: number must be an integer, not true"),
        ({"port": "a", "number": 1.5}, "side: number must be an integer, not 1.5"),
        ({"port": "a", "number": 1 << 63}, "side: number must be an integer, not 9223372036854775808"),
        ({"port": "a", "side": "up"}, 'side: side must be left or right, not "up"'),
        ({"port": "a", "names": ["b", 1]}, 'side: names must be a list, each a string or null, not ["b", 1]'),
        ({"port": "a", "prot": "b"}, 'side has no parameter "prot"; it takes port, number, side, names'),
        ({"port": ["x" * 500]}, 'side: port must be a string, not ["' + "x" * 55 + "..."),
    ],
)
def test_a_wrong_parameter_is_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(RpcError) as wrong:
        Asked().verbs.call("side", params)
    assert (wrong.value.code, str(wrong.value), wrong.value.exit_status) == (WRONG_PARAMETERS, said, 2)


def test_an_unknown_verb_is_told_the_known_ones() -> None:
    with pytest.raises(RpcError, match=r'^there is no verb "sied"; there are: echo, fail, many, .* wait$') as wrong:
        Asked().verbs.call("sied", {})
    assert wrong.value.code == NO_VERB
    with pytest.raises(RpcError) as long:
        Asked().verbs.call("x" * 60_000, {})
    assert len(str(long.value)) < 300


def test_other_parameters_of_one_kind() -> None:
    verbs = Verbs()

    @verbs.verb("set")
    def set_flags(port: str, **flags: bool) -> list[str]:
        """Set flags."""
        return [port, *(name for name, value in flags.items() if value)]

    assert verbs.call("set", {"port": "a", "flood": True, "learning": False}) == ["a", "flood"]
    with pytest.raises(RpcError, match="set: flood must be true or false, not 1"):
        verbs.call("set", {"port": "a", "flood": 1})
    assert verbs["set"].schema()["params"]["additionalProperties"] == {"type": "boolean"}


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_every_kind_has_words(hint: Any) -> None:
    said = spoken(schema_of(hint))
    assert said and "{" not in said
