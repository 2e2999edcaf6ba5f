"""Packaging of faster_core and faster_vla_ros: one file for colcon (ament_python) and for pip.

`pip install .` needs no ROS and gives a working `faster_core`; the extras (sim, train, data,
remote, ros, test) add the rest. There is no [project] table in pyproject.toml on purpose: colcon
reads this file.
"""

import pathlib

from setuptools import find_packages, setup

NAME = 'faster_vla_ros'
ROOT = pathlib.Path(__file__).resolve().parent

# The wheels of PyPI, for machines without a ROS distribution (x86_64 Linux). `launch`, `cv_bridge`
# and `message_filters` must not stand here: PyPI has unrelated packages of those names.
ROS_WHEELS = [
    'ros-rclpy[fastrtps]',
    'ros-action-msgs',
    'ros-builtin-interfaces',
    'ros-diagnostic-msgs',
    'ros-geometry-msgs',
    'ros-lifecycle-msgs',
    'ros-nav-msgs',
    'ros-rcl-interfaces',
    'ros-rosgraph-msgs',
    'ros-sensor-msgs',
    'ros-std-msgs',
    'ros-std-srvs',
    'ros-trajectory-msgs',
    'ros-unique-identifier-msgs',
]


def _files_below(folder):
    """Return the files below `folder` (relative to the repository), caches left out."""
    return sorted(
        path.relative_to(ROOT)
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts and not path.name.startswith('.')
    )


def _share(*folders):
    """Return `data_files` entries that keep the layout of `folders` below share/<package>."""
    by_folder = {}
    for folder in folders:
        for path in _files_below(folder):
            target = (pathlib.Path('share') / NAME / path.parent).as_posix()
            by_folder.setdefault(target, []).append(path.as_posix())
    return sorted(by_folder.items())


def _package_data(package, *folders):
    """Return the files of `folders` relative to `package` (no `**`: setuptools 59 lacks it)."""
    return [
        path.relative_to(package).as_posix()
        for folder in folders
        for path in _files_below(f'{package}/{folder}')
    ]


setup(
    name=NAME,
    version='0.1.0',
    description='FASTer (FASTerVQ and FASTerVLA) and its ROS 2 runtime',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    maintainer='faster_vla_ros maintainers',
    maintainer_email='maintainers@faster-vla.org',
    python_requires='>=3.10',
    packages=find_packages(include=['faster_core', 'faster_core.*', NAME, f'{NAME}.*']),
    package_data={'faster_core': _package_data('faster_core', 'assets', 'sim/models')},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *_share('config', 'launch'),
    ],
    zip_safe=False,
    install_requires=[
        'numpy',
        'opencv-python-headless',
        'pyyaml',
        'safetensors',
        'scipy',
        'tokenizers',
        'torch>=2.4',
        'transformers>=5',
    ],
    extras_require={
        'sim': ['daqp', 'imageio', 'imageio-ffmpeg', 'mink', 'mujoco>=3.3,<3.9'],
        'lora': ['peft'],
        'train': ['accelerate', 'matplotlib', 'tensorboard', 'tqdm'],
        # Not Meta-World: it asks for one old MuJoCo and runs on ours, so it is installed without
        # its dependencies (docs/data.md).
        'data': [
            # They require labmaze, which has no wheel for later ones.
            "dm-control; python_version < '3.13'",
            "gym-aloha; python_version < '3.13'",
            'gymnasium',
            'mujoco>=3.3,<3.9',
            'pyarrow',
            'rosbags',
            'tqdm',
        ],
        # Limits on the jerk of set-points.
        'jerk': ['ruckig'],
        # The fastest engine on a CPU.
        'openvino': ['openvino'],
        'remote': ['grpcio', 'msgpack'],
        'ros': ROS_WHEELS,
        'test': [
            'colcon-common-extensions',
            'hypothesis',
            'pytest',
            'pytest-cov',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
            'vector-quantize-pytorch',
        ],
    },
    entry_points={
        'console_scripts': [
            f'faster-vla = {NAME}.cli:main',
            f'policy_node = {NAME}.policy_node:main',
            f'action_dispatcher = {NAME}.action_dispatcher:main',
            f'mujoco_robot = {NAME}.mujoco_robot:main',
            f'guard = {NAME}.guard:main',
        ],
    },
)
