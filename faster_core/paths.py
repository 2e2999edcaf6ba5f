"""Where the shared files (config/, launch/) and the shipped assets are.

One rule for a source tree, `pip install` and colcon: walk up from this file until a folder holds
either `config/embodiments` (source tree) or `share/faster_vla_ros/config` (installed prefix).
"""

import functools
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent


@functools.cache
def share_dir() -> pathlib.Path:
    """Return the folder that holds `config/` and `launch/`.

    Raises:
        FileNotFoundError: neither a source tree nor an installed prefix is above this package.
    """
    for parent in _PACKAGE.parents:
        if (parent / 'config' / 'embodiments').is_dir():
            return parent
        installed = parent / 'share' / 'faster_vla_ros'
        if (installed / 'config' / 'embodiments').is_dir():
            return installed
    raise FileNotFoundError(
        f'no config/embodiments in any folder above {_PACKAGE}: the installation is incomplete'
    )


def assets_dir() -> pathlib.Path:
    """Return the folder of files shipped inside the Python package (checkpoints, models)."""
    return _PACKAGE / 'assets'


def embodiment_file(name: str) -> pathlib.Path:
    """Return the path of a shipped embodiment file, e.g. `r1_lite`."""
    folder = share_dir() / 'config' / 'embodiments'
    path = folder / f'{name}.yaml'
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob('*.yaml'))
        raise FileNotFoundError(f'no embodiment {name!r}; shipped ones: {", ".join(known)}')
    return path


def demo_checkpoint() -> pathlib.Path:
    """Return the folder of the checkpoint that ships with the package (R1 Lite, simulation)."""
    return assets_dir() / 'checkpoints' / 'r1_lite_demo'
