"""What the policy node says on /diagnostics, and the updater it says it with."""

import sys
import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import policy_node_helpers as h
from rclpy.node import Node
from sensor_msgs.msg import JointState
import yaml

from faster_core import paths
from faster_core.errors import DecodeError
from faster_vla_ros.compat.diagnostic_updater import Updater
from faster_vla_ros.policy_diagnostics import device_memory

pytestmark = pytest.mark.ros

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE


class Ears:
    """The newest diagnostics of a rig's node, by task."""

    def __init__(self, rig):
        self._rig, self.tasks, self.arrays = rig, {}, 0
        rig.robot.create_subscription(DiagnosticArray, '/diagnostics', self._hear, 10)
        rig.until(lambda: self.arrays)

    def _hear(self, array):
        self.arrays += 1
        for status in array.status:
            self.tasks[status.name.removeprefix('policy_node: ')] = status

    def now(self):
        """Have the node diagnose; returns status by task."""
        count = self.arrays
        self._rig.node._updater.force_update()
        self._rig.until(lambda: self.arrays > count)
        return self.tasks


def values(status):
    return {v.key: v.value for v in status.values}


def test_every_task_of_the_contract_is_there_under_its_name(rig):
    tasks = Ears(rig).now()
    inputs = {f'input/{name}' for name in (*h.CAMERAS, *h.SOURCES)}
    assert set(tasks) == inputs | {'inference', 'chunk coverage', 'device'}
    assert all(s.name == f'policy_node: {task}' for task, s in tasks.items())
    assert {s.hardware_id for s in tasks.values()} == {'r1_lite'}
    device = values(tasks['device'])
    assert device['device'] == 'cpu'
    assert float(device['allocated_mib']) > 10.0


def test_every_task_of_the_node_has_a_place_in_the_aggregator(rig):
    path = paths.share_dir() / 'config' / 'diagnostics' / 'aggregator.yaml'
    parameters = yaml.safe_load(path.read_text(encoding='utf-8'))['analyzers']['ros__parameters']
    analyzers = [a for a in parameters.values() if isinstance(a, dict)]
    for status in Ears(rig).now().values():
        places = [
            a['path']
            for a in analyzers
            if any(status.name.startswith(s) for s in a.get('startswith', ()))
            or any(s in status.name for s in a.get('contains', ()))
        ]
        assert len(places) == 1, status.name


def test_diagnostics_end_with_the_configuration_and_come_back_with_it(rig):
    ears = Ears(rig)
    rig.node.trigger_deactivate()
    rig.node.trigger_cleanup()
    rig.spin(0.2)
    ears.tasks.clear()
    rig.node._updater.force_update()
    rig.spin(0.2)
    assert not ears.tasks
    rig.up()
    assert len(ears.now()) == 12


def test_input_is_stale_before_its_first_message_then_ok_then_an_error(context):
    with h.rig(context, **{'head.timeout': 1.5}) as rig:
        ears = Ears(rig)
        rig.spin(1.6)
        head = ears.now()['input/head']
        assert head.level == STALE
        assert 'head (/head): no message yet' in head.message
        rig.sense()
        rig.until(lambda: rig.node.inputs.rates.ever_seen('wrist_right'))
        tasks = ears.now()
        assert tasks['input/head'].level in (OK, WARN)  # one message in a second is a low rate
        assert float(values(tasks['input/head'])['age_ms']) < 1500.0
        rig.spin(1.6)
        head = ears.now()['input/head']
        assert head.level == ERROR
        assert 'no message for 1.5 s' in head.message


def test_rate_of_an_input_is_measured_against_the_action_frequency(rig):
    ears = Ears(rig)
    sensors = {'slow': rig.feedback['torso'], 'fast': rig.feedback['left_arm']}
    messages = {'slow': [0.0] * 4, 'fast': [0.0] * 6}
    ears.now()
    start = rig.now()
    for tick in range(40):
        for name, every in (('fast', 1), ('slow', 8)):
            if tick % every == 0:
                sensors[name].publish(h.joint_state(rig.now(), messages[name]))
        rig.spin(0.025)
    tasks = ears.now()
    elapsed = (rig.now() - start) / 1e9
    slow, fast = tasks['input/torso'], tasks['input/left_arm']
    # Its own timer may have diagnosed in between: the rate is that since then.
    assert float(values(fast)['rate_hz']) == pytest.approx(40 / elapsed, rel=0.3)
    assert fast.level == OK
    assert slow.level == WARN
    assert 'expected at least 10.5 Hz' in slow.message
    assert values(slow)['expected_hz'] == '15.0'


def test_inference_shows_latency_failures_and_dropped_observations(context):
    with h.rig(context, **{'latency.warn': 0.0, 'latency.error': 60.0}) as rig:
        ears = Ears(rig)
        rig.follow()
        inference = ears.now()['inference']
        assert inference.level == WARN
        assert 'is above latency.warn (0 ms)' in inference.message
        rig.policy.error = DecodeError('bad code')
        rig.sense()
        rig.until(lambda: rig.node.num_failures == 1)
        rig.sense(feedback={'torso': h.joint_state(rig.now(), [float('nan')] * 4)})
        rig.until(lambda: rig.node.num_dropped)
        tasks = ears.now()
        found = values(tasks['inference'])
        assert (found['chunks'], found['decode_failures']) == ('1', '1')
        assert int(found['observations_dropped']) == rig.node.num_dropped
        assert int(values(tasks['input/torso'])['refused']) == 1
        rig.policy.error = MemoryError('of the device')
        rig.sense()
        rig.until(lambda: rig.node.status.faulted)
        inference = ears.now()['inference']
        assert inference.level == ERROR
        assert 'of the device' in inference.message


def test_coverage_is_what_is_left_of_the_chunk_before(rig):
    ears = Ears(rig)
    assert ears.now()['chunk coverage'].level == OK
    rig.follow()
    assert 'no chunk has followed' in ears.now()['chunk coverage'].message
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    coverage = ears.now()['chunk coverage']
    assert coverage.level == OK
    # 32 rows of 1/15 s, less the time that has passed.
    assert 0.5 < float(values(coverage)['newest_s']) < 32 / 15
    # The plan runs out before the next chunk comes.
    rig.node.outcomes._plan_end = rig.now() / 1e9 - 0.2
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 3)
    coverage = ears.now()['chunk coverage']
    assert coverage.level == ERROR
    assert 'the plan had run out for 0.' in coverage.message
    assert ears.now()['chunk coverage'].level == ERROR  # until the next chunk shows better
    rig.say('')
    rig.until(lambda: not rig.chunks[-1].num_steps)
    assert ears.now()['chunk coverage'].level == OK
    # A plan that was dropped covers nothing, so nothing is too late after it.
    rig.follow('grasp the bowl')
    rig.node.outcomes._plan_end = rig.now() / 1e9 - 0.2
    rig.say('')
    rig.follow('grasp the cup')
    assert ears.now()['chunk coverage'].level == OK


def test_memory_of_an_accelerator_is_that_of_its_allocator(monkeypatch):
    device = types.SimpleNamespace(type='cuda')
    cuda = types.SimpleNamespace(
        mem_get_info=lambda d: (2 * 2**30, 8 * 2**30),
        get_device_name=lambda d: 'Accelerator',
        memory_allocated=lambda d: 3 * 2**30,
        memory_reserved=lambda d: 4 * 2**30,
    )
    monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(cuda=cuda))
    parameters = [types.SimpleNamespace(device=device)]
    model = types.SimpleNamespace(parameters=lambda: iter(parameters))
    found = device_memory(types.SimpleNamespace(model=model))
    assert (found['allocated'], found['reserved'], found['used']) == (3072.0, 4096.0, 0.75)
    assert 'Accelerator' in found['name']


def test_device_that_does_not_answer_is_an_error_and_not_the_end_of_the_process(rig, monkeypatch):
    def fail(_):
        raise RuntimeError('CUDA error: device-side assert triggered\nCompile with ...')

    monkeypatch.setattr('faster_vla_ros.policy_diagnostics.device_memory', fail)
    device = Ears(rig).now()['device']
    assert device.level == ERROR
    expected = 'the device does not answer: CUDA error: device-side assert triggered'
    assert device.message == expected


def test_silent_source_is_not_hidden_by_another_one_on_its_topic(context):
    names = [f'joint{i}' for i in range(6)]
    options = {
        'left_arm.topic': '/joint_states',
        'left_arm.mapping': 'by_name',
        'left_arm.joints': names,
        'left_gripper.topic': '/joint_states',
        'left_gripper.mapping': 'by_name',
        'left_gripper.joints': ['finger'],
    }
    with h.rig(context, up=False, **options) as rig:
        for name in ('left_arm', 'left_gripper'):
            rig.robot.destroy_publisher(rig.feedback[name])
            rig.feedback[name] = rig.robot.create_publisher(JointState, '/joint_states', 10)
        ears = Ears(rig.up())
        arm = h.joint_state(rig.now(), [0.0] * 6, names=names)
        rig.feedback['left_arm'].publish(arm)
        rig.until(lambda: rig.node.inputs.rates.ever_seen('left_arm'))
        ears.now()
        for _ in range(30):
            hand = h.joint_state(rig.now(), [0.0], names=['finger'])
            rig.feedback['left_gripper'].publish(hand)
            rig.spin(0.03)
        tasks = ears.now()
        arm, hand = values(tasks['input/left_arm']), values(tasks['input/left_gripper'])
        assert (float(arm['rate_hz']), float(hand['rate_hz']) > 10.0) == (0.0, True)
        assert tasks['input/left_arm'].level == WARN
        assert float(arm['age_ms']) > 800.0 > 500.0 > float(hand['age_ms'])


def test_updater_names_node_and_hardware_and_marks_what_says_nothing(context):
    node = Node('talker', context=context, use_global_arguments=False, enable_rosout=False)
    try:
        published = []
        updater = Updater(node)
        updater.publisher = types.SimpleNamespace(publish=published.append)
        updater.setHardwareID('arm 3')
        assert node.get_parameter('diagnostic_updater.period').value == 1.0

        def good(status):
            status.summary(DiagnosticStatus.WARN, 'warm')
            status.add('celsius', '40')
            return status

        updater.add('motor', good)
        updater.add('silent', lambda status: status)
        updater.force_update()
        motor, silent = published[-1].status
        assert (motor.name, motor.level, motor.message) == ('talker: motor', WARN, 'warm')
        assert motor.hardware_id == silent.hardware_id == 'arm 3'
        assert values(motor) == {'celsius': '40'}
        assert (silent.level, silent.message) == (ERROR, 'No message was set')
        assert updater.removeByName('motor')
        assert not updater.removeByName('motor')
        updater.force_update()
        assert [s.name for s in published[-1].status] == ['talker: silent']
    finally:
        node.destroy_node()
