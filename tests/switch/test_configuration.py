"""A switch's configuration file: what it may say, and which line an error names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError
from fastbridge.switch.config import Config, ConfigFile, PortConfig, check, schema, write
from fastbridge.switch.options import FAST_PATHS, LiveOptions
from fastbridge.switch.port_flags import PortFlags
from fastbridge.switch.wires import Place
from fastbridge.toml_text import Document, tomllib
from fastbridge.toml_text import write as write_toml

FULL = """\
# A comment, with "quotes" and [brackets]
name = "lab"                     # its name
ports = [
  "veth1",
  "veth 2",  # a name in quotes
]
match = ["tap*"]
policy = "guard=strict,suppress"
ageing = "never"
storm_control = { broadcast = 1000, multicast = 5.5 }
cpu = [0]

[port.veth1]
isolated = true
storm_control = 7

[port."veth 2"]
policy = "guard=router"
coalesce = false

[port.tap5]
storm_control = {}

[link]
"*" = "delay=1ms"
veth1 = "4g,loss=1%"
"veth 2>veth1" = "delay=5ms"

[[fdb]]
mac = "02:00:00:00:00:01"
ifname = "veth1"

[[fdb]]
mac = "02:00:00:00:00:01"
ifname = "veth 2"
vlan = 7

[[neigh]]
dst = "10.0.0.1"
lladdr = "02:00:00:00:00:01"
dev = "tap9"
"""


def parse(text: str) -> Config:
    file = ConfigFile.parse(text, "F")
    check(file.config, file)
    return file.config


def test_a_full_file() -> None:
    config = parse(FULL)
    assert (config.name, config.ports, config.ageing, config.cpu) == ("lab", ["veth1", "veth 2"], "never", [0])
    assert config.port["veth1"] == PortConfig(isolated=True, storm_control=7.0)
    assert config.storm_of("veth1").multicast == 7 and config.storm_of("veth 2").multicast == 5.5
    assert config.storm_of("tap5").broadcast is None, "a table that names no kind limits none"
    places: list[Place] = ["veth1", "veth 2", "tap5", ("veth 2", "veth1"), ("veth1", "veth 2")]
    assert [config.link_of(place) for place in places] == ["4g,loss=1%", "delay=1ms", "delay=1ms", "delay=5ms", None]
    assert [entry.vlan for entry in config.fdb] == [0, 7] and config.neigh[0].dev == "tap9"


def test_written_and_read_it_is_the_same() -> None:
    config = parse(FULL)
    assert parse(write(config)) == config


def test_an_empty_configuration_has_the_options_defaults() -> None:
    assert LiveOptions(**Config().options()) == LiveOptions(fast_path="auto", match=[])
    assert set(PortFlags.__slots__) <= {key.name for key in dataclasses.fields(PortConfig)}


def test_each_option_of_a_switch_can_be_said() -> None:
    assert schema()["properties"]["fast_path"]["enum"] == list(FAST_PATHS)
    of_programs = {"trusted", "shield", "control", "take_over", "settings"}  # a lab's, and `run`'s own
    assert set(LiveOptions.__dataclass_fields__) - of_programs <= set(Config.__dataclass_fields__)


WRONG: list[tuple[str, int, list[str]]] = [
    ('ports = ["a", "b"]\nagein = 3', 2, ["agein", "ageing"]),
    ('ports = ["a", "b"]\n\n[port.a]\nisolted = true', 4, ["port.a.isolted", "isolated"]),
    ('ports = ["a", "b"]\nport.a = { isolated = true,  hairpn = true }', 2, ["port.a.hairpn"]),
    ('ports = [\n"a",\n3]', 3, ["ports", "text", "3"]),
    ('ports = "a"', 1, ["ports", "array", '"a"']),
    ('ports = ["a"]', 1, ["two interfaces", "match"]),
    ("# nothing", 1, ["two interfaces"]),
    ('ports = ["a",\n"b",\n"a"]', 3, ["a is named twice"]),
    ('ports = ["a", ""]', 1, ["no name"]),
    ('ports = ["a", "b"]\nageing = -3', 2, ["ageing", "-3"]),
    ('ports = ["a", "b"]\nageing = "nevr"', 2, ["a number", '"never"', '"nevr"']),
    ('ports = ["a", "b"]\nageing = nan', 2, ["ageing", "nan"]),
    ('ports = ["a", "b"]\nageing = true', 2, ["ageing", "a number", "true"]),
    ('ports = ["a", "b"]\nneighbour_ageing = 0', 2, ["ageing", "0"]),
    ('ports = ["a", "b"]\ncapacity = 1.5', 2, ["a whole number", "1.5"]),
    ('ports = ["a", "b"]\nbusy_poll = -1', 2, ["busy_poll", "microseconds"]),
    ('ports = ["a", "b"]\nfanout = true', 2, ["fanout", "workers"]),
    ('ports = ["a", "b"]\n\ncpu = [4095]', 3, ["CPU 4095"]),
    ('ports = ["a", "b"]\nfast_path = "xdp"', 2, ['"nft"', '"xdp"']),
    ('ports = ["a", "b"]\npolicy = "gaurd"', 2, ["'gaurd'", "suppress"]),
    ('ports = ["a", "b"]\n[port.b]\nlocked = true\npolicy = "x"', 4, ["'x'"]),
    ('ports = ["a", "b"]\n[port.c]\nlocked = true', 2, ["'c'", "a, b"]),
    ('ports = ["a", "b"]\nport = 3', 2, ["port", "a table"]),
    ('ports = ["a", "b"]\nstorm_control = { broadcast = -1 }', 2, ["broadcast", "-1"]),
    ('ports = ["a", "b"]\n[port.a]\nstorm_control = 0', 3, ["more than 0"]),
    ('ports = ["a", "b"]\n[link]\na = "4g"\nb = "dealy=20ms"', 4, ["dealy", "delay"]),
    ('ports = ["a", "b"]\n[link]\nc = "4g"', 3, ["'c'", "a, b"]),
    ('ports = ["a", "b"]\n[link]\n"a>c" = "4g"', 3, ["'c'", "a, b"]),
    ('ports = ["a", "b"]\n[link]\n"a>a" = "4g"', 3, ["'a>a' is no pair of ports"]),
    ('ports = ["a", "b"]\n[link]\na = 20', 3, ["link.a", "text", "20"]),
    ('ports = ["a", "b"]\n[[fdb]]\nmac = "x"\nifname = "a"', 3, ["'x'", "MAC"]),
    ('ports = ["a", "b"]\n[[fdb]]\nmac = "01:00:5e:00:00:01"\nifname = "a"', 3, ["unicast"]),
    ('ports = ["a", "b"]\n[[fdb]]\nmac = "02:00:00:00:00:01"\nifname = "c"', 4, ["'c'", "a, b"]),
    ('ports = ["a", "b"]\n[[fdb]]\nmac = "02:00:00:00:00:01"', 2, ["no ifname"]),
    ('ports = ["a", "b"]\n[[fdb]]\nmac = "02:00:00:00:00:01"\nifname = "a"\nvlan = 4095', 5, ["4095"]),
    (
        'ports = ["a", "b"]\n[[fdb]]\nmac = "02:00:00:00:00:01"\nifname = "a"\n'
        '[[fdb]]\nmac = "0200.0000.0001"\nifname = "b"',
        6,
        ["twice"],
    ),
    (
        'ports = ["a", "b"]\n[[neigh]]\ndst = "10.0.0.256"\nlladdr = "02:00:00:00:00:01"\ndev = "a"',
        3,
        ["10.0.0.256"],
    ),
    (
        'ports = ["a", "b"]\nneigh = [\n{ dst = "fd00::1", lladdr = "02:00:00:00:00:01", dev = "a" },\n'
        '{ dst = "fd00:0::1", lladdr = "02:00:00:00:00:02", dev = "a" },\n]',
        4,
        ["fd00:0::1", "twice"],
    ),
    ('ports = ["a", "b"]\nfdb = [\n3 ]', 3, ["fdb", "a table", "3"]),
    ('ports = ["a", "b"]\nageing = 1979-05-27', 2, ["ageing", "1979-05-27"]),
    ('ports = ["a", "b"]\nageing = ', 2, ["not TOML"]),
    ('ports = ["a", "b"\n', 2, ["not TOML"]),
    ('ports = ["a", "b"]\n\nports = ["c"]', 3, ["not TOML"]),
    ('ports = ["a", "b"]\nname = "x"\n"na\\u006de" = "y"', 3, ["not TOML"]),
    ('ports = ["a", "b"]\ntext = """\nageing = 3\n[port.x]\n"""\nworker = 3', 2, ["text"]),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    said = str(caught.value)
    assert said.startswith(f"F:{line}: ") and "\n" not in said, said
    assert all(word in said for word in words), said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=words):
            ConfigFile.read(path)
    (latin := tmp_path / "latin").write_bytes(b"ports = []\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="latin:2: this is not UTF-8"):
        ConfigFile.read(latin)
    with pytest.raises(ConfigError, match="no configuration"):
        ConfigFile.read("/dev/zero")


# -- the schema ------------------------------------------------------------------------------------


def test_the_schema_takes_what_the_reader_takes() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(tomllib.loads(FULL), schema())


def test_the_schema_refuses_what_the_reader_refuses_by_type() -> None:
    refused = 0
    for text, _, _ in WRONG:
        try:
            ConfigFile.parse(text, "F")
        except ConfigError as error:
            if "not TOML" not in str(error):
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(tomllib.loads(text), schema())
                refused += 1
    assert refused > 10


# -- lines, and TOML written -----------------------------------------------------------------------

KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(KEYS, SCALARS, max_size=3))
SECTIONS = st.dictionaries(KEYS, VALUES, max_size=3)
TABLES = st.dictionaries(
    KEYS, st.one_of(VALUES, st.dictionaries(KEYS, SECTIONS, max_size=3), st.lists(SECTIONS, max_size=3)), max_size=4
)


@given(TABLES)
def test_a_table_written_is_the_same_when_read(table: dict[str, Any]) -> None:
    assert tomllib.loads(write_toml(table)) == table


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from paths(item, (*path, key))


@given(TABLES)
def test_each_key_has_a_line(table: dict[str, Any]) -> None:
    text = write_toml(table)
    document = Document(text, "F")
    lines = text.split("\n")
    for path in paths(table):
        line = lines[int(document.where(path).removeprefix("F:")) - 1]
        *_, key = (part for part in path if isinstance(part, str))
        if key:
            written = write_toml({key: True}).removesuffix(" = true\n")
            assert written in line, (path, line)


@given(st.text("[]{}=,.#\"' \n\\ab1-", max_size=40), st.text("[]{}=,.#\"' \n\\ab1-", max_size=40))
def test_any_text_is_read_or_refused(before: str, after: str) -> None:
    """Where it is TOML, the key in its midst is found on its line, whatever stands around it."""
    text = f"{before}\nmark = 1\n{after}"
    try:
        document = Document(text, "F")
    except ConfigError as error:
        assert re.match(r"F:\d+: this is not TOML", str(error))
        return
    found = [path for path in paths(document.table) if path[-1] == "mark"]
    lines = text.split("\n")
    for path in found:
        assert lines[int(document.where(path).removeprefix("F:")) - 1] == "mark = 1"


def test_a_name_that_is_not_unicode_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="not Unicode"):
        write(Config(ports=["a", "b\udcff"]))
