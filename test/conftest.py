"""What every test shares: quiet threads, isolated DDS, and markers that skip what cannot run."""

import ctypes.util
import functools
import gc
import importlib.util
import os

from hypothesis import settings
import pytest
import workers

# How long an example takes says nothing about what is tested: the machine may stand still.
settings.register_profile('unhurried', deadline=None)
settings.load_profile('unhurried')

# Before torch and rclpy are imported by any test module.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
# faster_core.sim chooses this too, but mujoco reads it only once and a test may import it first.
os.environ.setdefault('MUJOCO_GL', 'egl' if ctypes.util.find_library('EGL') else 'osmesa')


def _importable(*names):
    return all(importlib.util.find_spec(name) for name in names)


if _importable('rclpy', 'faster_vla_msgs'):
    from dispatcher_rig import make_rig  # noqa: F401 - tests of the dispatcher use it
    from doctor_helpers import arm, fine, r1  # noqa: F401 - tests of the doctor use them
    from policy_node_fixtures import context, dispatcher, rig  # noqa: F401 - policy tests use them


@functools.cache
def _has_accelerator():
    import torch

    return torch.cuda.is_available()


REQUIREMENTS = {
    'ros': (
        lambda: _importable('rclpy', 'faster_vla_msgs'),
        'needs rclpy and faster_vla_msgs',
    ),
    'launch': (
        lambda: _importable('launch', 'launch_ros'),
        'needs launch_ros of a ROS distribution',
    ),
    'gpu': (_has_accelerator, 'needs an accelerator'),
}


def pytest_configure(config):
    """Have the processes of `make test` share the tests as they should."""
    config.pluginmanager.register(workers)


def pytest_collection_modifyitems(items):
    """Skip marked tests whose requirement this machine lacks; the reason names it."""
    for marker, (available, reason) in REQUIREMENTS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """Hide what was imported from the collector: every training has it look at everything."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='module')
def no_figures():
    """Draw no figures of trainings, which take longer than a tiny training itself."""
    from faster_core.tokenizer import train
    from faster_core.training.run_folder import RunFolder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, 'plot', lambda run: run)
        patch.setattr(train, 'plot_code_use', lambda *_, **__: None)
        yield
