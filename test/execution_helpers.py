"""Shared by the tests of `faster_core/execution/`: a small robot, its chunks, a rig."""

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.dispatcher import Dispatcher, DispatcherConfig

# One component of each kind of execution: positions, a gripper that switches, a base.
TOY = Embodiment.from_text(
    """
name: toy
action_frequency: 10.0
action_horizon: 8
cameras: [head]
state:
  - {component: arm, kind: joint_position, names: [j1, j2]}
action:
  - {component: arm, kind: joint_position, names: [j1, j2]}
  - {component: hand, kind: gripper_position, names: [finger]}
  - {component: base, kind: twist, names: [vx, wz]}
tokenizer_groups: [[arm], [hand], [base]]
"""
)
PERIOD = TOY.step_period
TICK = 0.02
START = 100.0
PARAMETERS = {
    'components': ['arm', 'hand', 'base'],
    'dispatch_rate': 50.0,
    'blend_steps': 0,
    'arm.max_velocity': [1.0, 2.0],
    'arm.max_acceleration': [4.0, 8.0],
    'arm.position_limits': [-1.0, 1.0],
    'arm.max_start_offset': 0.3,
    'hand.max_velocity': [0.2],
    'hand.position_limits': [0.0, 0.1],
    'hand.max_start_offset': 0.12,
    'base.max_velocity': [0.5, 1.0],
    'base.max_acceleration': [1.0, 2.0],
}
# Home of the toy: arm in the middle, hand half open, base still.
HOME = {'arm': np.zeros(2), 'hand': np.array([0.05])}


def config(**changes):
    """Return the toy's configuration; `arm__max_velocity=...` changes `arm.max_velocity`."""
    changes = {k.replace('__', '.'): v for k, v in changes.items()}
    return DispatcherConfig.from_parameters(PARAMETERS | changes, TOY)


def rows(count=8, *, arm=(0.0, 0.0), hand=(0.05,), base=(0.0, 0.0)):
    """Return [count, 5] rows; each part is one row [d] or all rows [count, d]."""
    return np.concatenate(
        [
            np.broadcast_to(np.asarray(part, dtype=float), (count, np.shape(part)[-1]))
            for part in (arm, hand, base)
        ],
        axis=1,
    )


def chunk(values=None, *, stamp=START, sequence_id=1, **fields):
    """Return a chunk of the toy whose row k is due at stamp + (k + 1) periods."""
    return ActionChunk(
        **{
            'values': rows() if values is None else values,
            'stamp': stamp,
            'first_step_offset': PERIOD,
            'step_period': PERIOD,
            'sequence_id': sequence_id,
            'embodiment_checksum': TOY.checksum,
        }
        | fields
    )


class Rig:
    """A dispatcher with a clock and a robot that is wherever it was told to be."""

    def __init__(self, *, enabled=True, **changes):
        """Start at `START` with fresh feedback at `HOME`."""
        self.dispatcher = Dispatcher(TOY, config(**changes))
        self.now = START
        self.measured = {name: values.copy() for name, values in HOME.items()}
        self.feeding = True
        self.sequence_id = 0
        self.feed()
        if enabled:
            assert self.dispatcher.enable(True, self.now).success

    def feed(self):
        """Report what the robot measures, unless feedback was switched off."""
        if self.feeding:
            for name, values in self.measured.items():
                self.dispatcher.on_feedback(name, values, self.now)

    def tick(self, dt=TICK, silence=0.0):
        """Let `dt` seconds pass, report feedback, tick; the robot follows its commands."""
        self.now += dt
        self.feed()
        tick = self.dispatcher.tick(self.now, silence)
        for name in self.measured:
            if tick.commands[name] is not None:
                self.measured[name] = tick.commands[name]
        return tick

    def run(self, seconds, dt=TICK):
        """Tick for some seconds; returns the ticks."""
        return [self.tick(dt) for _ in range(round(seconds / dt))]

    def send(self, values=None, *, age=0.0, **fields):
        """Send rows observed `age` seconds ago (a chunk of its own number each)."""
        self.sequence_id += 1
        fields = {'stamp': self.now - age, 'sequence_id': self.sequence_id} | fields
        return self.dispatcher.on_chunk(chunk(values, **fields), self.now)

    def drive(self, seconds=0.5, *, speed=0.4, arm_speed=0.0):
        """Send a chunk that drives the base and moves j1, run, return the last tick."""
        arm = np.zeros((8, 2))
        arm[:, 0] = self.measured['arm'][0] + arm_speed * PERIOD * np.arange(1, 9)
        report = self.send(rows(arm=arm, hand=self.measured['hand'], base=(speed, 0.0)))
        assert report.accepted, report.detail
        return self.run(seconds)[-1]


class Rail(Rig):
    """The toy, its arm driven by a controller that interpolates."""

    def __init__(self, **changes):
        """As a `Rig`, enabled."""
        super().__init__(**changes)
        self.dispatcher = Dispatcher(TOY, config(**changes), trajectories=['arm'])
        self.feed()
        self.dispatcher.enable(True, self.now)


def column(ticks, name, index=0):
    """Return one commanded value over time, NaN where nothing was sent."""
    return np.array(
        [np.nan if t.commands[name] is None else t.commands[name][index] for t in ticks]
    )
