"""MacAddress: every form in, one form out."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, FastbridgeError


@pytest.mark.parametrize(
    "form",
    [
        "02:00:5e:10:00:ff",
        "02:00:5E:10:00:FF",
        "02-00-5e-10-00-ff",
        "0200.5e10.00ff",
        "  02:00:5e:10:00:ff\n",
        b"\x02\x00\x5e\x10\x00\xff",
        0x02005E1000FF,
    ],
)
def test_forms(form: int | str | bytes) -> None:
    mac = MacAddress(form)
    assert mac == 0x02005E1000FF
    assert str(mac) == f"{mac}" == "02:00:5e:10:00:ff"
    assert repr(mac) == "MacAddress('02:00:5e:10:00:ff')"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "pod1",
        "02:00:5e:10:00",
        "02:00:5e:10:00:ff:00",
        "02:00:5e:10:00:fg",
        "02:00-5e:10-00:ff",
        "2:0:5e:10:0:ff",
        "0200.5e10",
        "02005e1000ff",
        "02:00:5e:10:00:f\uff11",  # a digit, but not an ASCII one
        b"",
        b"12345",
        b"1234567",
        -1,
        1 << 48,
    ],
)
def test_wrong_ones_are_named(wrong: int | str | bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        MacAddress(wrong)
    assert isinstance(caught.value, FastbridgeError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    assert "MAC address" in str(caught.value)


@given(st.integers(0, (1 << 48) - 1))
def test_round_trips(number: int) -> None:
    mac = MacAddress(number)
    assert MacAddress(str(mac)) == MacAddress(mac.packed) == MacAddress(mac) == mac == number
    assert len(mac.packed) == 6
    assert hash(mac) == hash(number)
    assert pickle.loads(pickle.dumps(mac)) == mac


@pytest.mark.parametrize(
    ("mac", "group"),
    [
        ("ff:ff:ff:ff:ff:ff", True),
        ("01:80:c2:00:00:0e", True),
        ("33:33:00:00:00:01", True),
        ("02:00:00:00:00:01", False),
        ("00:01:01:01:01:01", False),
    ],
)
def test_group_bit(mac: str, group: bool) -> None:
    assert MacAddress(mac).is_group is group


def test_sorts_as_on_the_wire() -> None:
    macs = [MacAddress(text) for text in ("ff:00:00:00:00:00", "00:00:00:00:00:01", "02:00:00:00:00:00")]
    assert [mac.packed for mac in sorted(macs)] == sorted(mac.packed for mac in macs)
