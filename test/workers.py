"""Two processes share `make test`: modules with graphs run in one, all others beside them, idle.

Graphs need the processor when they want it and the domain they name, so they stay one after the
other; what only computes may wait. pytest-xdist's own groups (`--dist loadgroup`) are ignored with
pytest 9.2 (pytest-dev/pytest-xdist issue 1386), so a scheduler of ours goes by modules.

A plugin of pytest, which conftest.py registers; without pytest-xdist's processes it does nothing.
"""

import contextlib
import functools
import os
import pathlib
import re

import pytest

GRAPHS = 'graphs'
# Without a graph, yet they time what they test or give up on it after a short while.
TIMED = frozenset({'test_remote.py', 'test_supervisor.py'})

_settled = []


@functools.cache
def group_of(path):
    """Return the group of a module: all with graphs are one, of the others each is its own."""
    timed = path.name in TIMED or re.search(r'pytest\.mark\.ros\b', path.read_text('utf-8'))
    return GRAPHS if timed else path.name


def _shared_out():
    return 'PYTEST_XDIST_WORKER' in os.environ


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out one group after the other, in the order of their first tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(pathlib.Path(config.rootpath, nodeid.split('::', 1)[0]))

    config.option.loadscopereorder = False  # that would be by their number of tests
    return ByGroup(config, log)


def pytest_collection_modifyitems(items):
    """Put the graphs first: together they take longest."""
    if _shared_out():
        items.sort(key=lambda item: group_of(item.path) != GRAPHS)


def pytest_runtest_setup(item):
    """Become idle if the first test that this process runs is without a graph."""
    if _shared_out() and not _settled:
        _settled.append(group_of(item.path))
        if _settled != [GRAPHS]:
            _become_idle()


def _become_idle():
    """Take what the others leave of the processors, and have no graphs. There is no way back."""
    with contextlib.suppress(OSError):
        os.setsid()  # a session has a share of the processor of its own: sched(7), autogroup
        pathlib.Path('/proc/self/autogroup').write_text('19', encoding='ascii')
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # What starts a graph here lacks the marker `ros`, and fails with this name.
    os.environ['RMW_IMPLEMENTATION'] = 'rmw_for_tests_marked_ros'
