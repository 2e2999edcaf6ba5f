"""The way of the base that a plan means."""

import math

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('nav_msgs')

from dispatcher_rig import EMBODIMENT, make_values
from nav_msgs.msg import Path
from robot_files import Publishing

from faster_core.execution.plan import Plan, step_columns
from faster_vla_ros.planned_path import PlannedPath

pytestmark = pytest.mark.ros


def plan(vx=0.0, vy=0.0, wz=0.0, seconds=2.0):
    values = np.zeros((31, EMBODIMENT.action_dim))
    values[:, EMBODIMENT.action_slices['base']] = (vx, vy, wz)
    return Plan(
        times=np.linspace(100.0, 100.0 + seconds, 31),
        values=values,
        first_row=0,
        switching=step_columns(EMBODIMENT),
        sequence_id=1,
    )


@pytest.mark.parametrize(
    ('speed', 'end'),
    [
        ({'vx': 0.2}, (0.4, 0.0, 0.0)),
        ({'vy': -0.1}, (0.0, -0.2, 0.0)),
        ({'wz': 0.5}, (0.0, 0.0, 1.0)),
        # A quarter of a circle of radius 0.4 m.
        ({'vx': 0.1 * math.pi, 'wz': math.pi / 4}, (0.4, 0.4, math.pi / 2)),
    ],
)
def test_speeds_are_integrated_from_where_the_base_is(speed, end):
    poses = PlannedPath(Publishing(), EMBODIMENT, 'base_link').poses(plan(**speed), 100.0)
    assert poses[0] == (100.0, (0.0, 0.0, 0.0))
    assert poses[-1][0] == pytest.approx(102.0)
    assert poses[-1][1] == pytest.approx(end, abs=2e-3)


def test_an_accepted_chunk_is_shown_to_whoever_listens(make_rig):
    rig = make_rig()
    seen = []
    rig.node.create_subscription(Path, '/action_dispatcher/planned_path', seen.append, 1)
    rig.enable_when_ready()
    rig.until(lambda: rig.node.count_publishers('/action_dispatcher/planned_path'))
    rig.spin(0.3)
    assert rig.send().accepted
    rig.until(lambda: seen, 'a path')
    assert seen[0].header.frame_id == 'base_link'
    last = seen[0].poses[-1].pose.position
    speed = make_values()[0, EMBODIMENT.action_slices['base'].start]
    assert 0.5 < last.x / (speed * EMBODIMENT.action_horizon * EMBODIMENT.step_period) < 1.01
    assert last.y == pytest.approx(0.0, abs=1e-6)
