"""A lab as a pytest fixture: `pytest docs/examples/test_fixture.py`."""

from collections.abc import Iterator

import pytest

from fastbridge import Lab, Switch


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two pods that can talk."""
    with Lab(pods=2) as lab, Switch(lab.ports, policy="suppress"):
        yield lab


def test_pods_reach_each_other(lab: Lab) -> None:
    """Both ways."""
    assert lab["pod1"].ping("pod2").received == 1
    assert lab["pod2"].ping("pod1").received == 1
