"""What the system tests share: machines, and their journals when a test fails."""

import pytest
from machine import Machine
from slots import nothing_failed


# Files that wait for a minute and more, or nearly so. They begin first: the last file that a run takes up is then none that the others are done
# long before.
LONG = ["staging", "upgrades", "strict", "readme", "streams", "router_upgrade"]


def pytest_collection_modifyitems(items):
    names = [f"test_{name}" for name in LONG]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Machine) and value.nspawn is not None:
                report.sections.append((f"journal of {value.name}", value.journal()))


@pytest.fixture(scope="module")
def machine():
    """A machine with the package installed, which the tests of one file share."""
    with Machine() as booted:
        booted.install()
        yield booted


@pytest.fixture
def fresh():
    """A machine with the package installed, for one test alone."""
    with Machine() as booted:
        booted.install()
        yield booted


@pytest.fixture
def load(machine, app):
    """Requests to the app of a file all the time, none of which may fail."""
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        yield load
        nothing_failed(load.stop(), reconnects=8)
