"""A lab as a pytest fixture: `pytest docs/examples/test_fixture.py`."""

import pytest

from fastbridge import Lab, Switch


@pytest.mark.lab(pods=2, link="delay=1ms", policy="suppress")
def test_pods_reach_each_other(lab: Lab, switch: Switch) -> None:
    """Both ways; the switch knows both afterwards."""
    assert lab["pod1"].ping("pod2", timeout=10).received == 1
    assert lab["pod2"].ping("pod1", timeout=10).received == 1
    assert len(switch.fdb) == 2
