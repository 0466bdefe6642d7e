"""pytest plugin: labs as fixtures, and what they saw when a test has failed.

pytest imports this in every run of whoever has fastbridge installed. So it imports nothing before a test asks for a
lab.

- labs: the labs of tests, and who makes and closes them
- flight: what a failing test's report says of its labs
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastbridge import Switch, Switches

    from .labs import LabFactory, SwitchedLab

_FACTORY: pytest.StashKey[LabFactory] = pytest.StashKey()
_ARTIFACTS: pytest.StashKey[Path] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("fastbridge", "labs of fastbridge")
    group.addoption(
        "--lab-artifacts", metavar="DIR", help="keep the last frames of a failing test's labs there: pcapng"
    )
    group.addoption(
        "--lab-require", action="store_true", help="fail, do not skip, tests whose labs this machine refuses"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker; find the directory before a test goes elsewhere."""
    config.addinivalue_line(
        "markers",
        "lab(pods, link=…, policy=…, …): what the fixtures `lab`, `switch` and `switches` are: pods, or a topology's "
        "file, mtu and link as in fastbridge.Lab, all else as in fastbridge.Switch",
    )
    if directory := config.getoption("lab_artifacts"):
        config.stash[_ARTIFACTS] = Path(directory).absolute()
        try:
            wrong = config.stash[_ARTIFACTS].exists() and not config.stash[_ARTIFACTS].is_dir()
        except OSError as error:  # it is in a directory of somebody else's
            raise pytest.UsageError(f"--lab-artifacts {directory}: {error.strerror}; name another directory") from None
        if wrong:
            raise pytest.UsageError(f"--lab-artifacts {directory}: this is no directory; name another one")


@pytest.fixture
def lab(request: pytest.FixtureRequest, make_lab: LabFactory) -> SwitchedLab:
    """Pods and a running switch, as `@pytest.mark.lab(pods=3, …)` says: `lab["pod1"].ping("pod2")`."""
    return make_lab.of_test(request)


@pytest.fixture
def switch(lab: SwitchedLab) -> Switch:
    """The switch of the fixture `lab`; it runs."""
    return lab.switch


@pytest.fixture
def switches(lab: SwitchedLab) -> Switches:
    """The switches of the fixture `lab`, by name; they run."""
    return lab.running_switches


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[LabFactory]:
    """Makes labs that end with the test: `make_lab(pods=3, link="4g")`, with the words of the marker."""
    yield from _factory(request.node, request.config)


@pytest.fixture(scope="session")
def lab_factory(pytestconfig: pytest.Config) -> Iterator[LabFactory]:
    """Makes labs for fixtures of a wider scope, which use them by `with`; else they end with the run."""
    yield from _factory(pytestconfig, pytestconfig)


def _factory(owner: Any, config: pytest.Config) -> Iterator[LabFactory]:
    """owner: has the factory in its stash, from where a report takes it."""
    from .labs import LabFactory

    with LabFactory(config.getoption("lab_require")) as factory:
        owner.stash[_FACTORY] = factory
        yield factory


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Let the labs of a test that has failed tell what they saw."""
    report = (yield).get_result()
    used = [item.stash.get(_FACTORY, None)]
    if "lab_factory" in getattr(item, "fixturenames", ()):
        used.append(item.config.stash.get(_FACTORY, None))
    factories = [factory for factory in used if factory is not None]
    if report.failed and factories:
        from .flight import tell

        labs = [lab for factory in factories for lab in factory.labs]
        report.sections += tell(labs, report.nodeid, report.when, item.config.stash.get(_ARTIFACTS, None))
    if call.when == "teardown":
        for factory in factories:
            factory.forget_closed()
