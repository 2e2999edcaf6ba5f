"""Parameters of the policy node: what is refused, and that the message names it."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
from rclpy.node import Node
from rclpy.parameter import Parameter

from faster_core.errors import ConfigError
from faster_vla_ros import parameters, policy_parameters

pytestmark = pytest.mark.ros

REMOVE = object()
GOOD = {
    'checkpoint_path': '/somewhere',
    'cameras': ['front'],
    'reference_camera': 'front',
    'state_sources': ['arm'],
    'arm.joints': ['a', 'b'],
}


@pytest.fixture(scope='module')
def context():
    with h.own_context() as c:
        yield c


def read(context, **options):
    """Read a good file with changes (`REMOVE` takes one away); double underscores are dots."""
    changes = {k.replace('__', '.'): v for k, v in options.items()}
    given = {k: v for k, v in (GOOD | changes).items() if v is not REMOVE}
    node = make_node(context, parameter_overrides=h.overrides(given))
    try:
        return policy_parameters.read(node), node
    finally:
        node.destroy_node()


def make_node(context, **options):
    return Node(
        'policy_node',
        context=context,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
        automatically_declare_parameters_from_overrides=True,
        **options,
    )


def test_what_is_not_given_has_the_documented_default(context):
    config, node = read(context)
    assert config['sync_slop'] == 0.05
    assert config['temperature'] == 0.0
    assert config['enable_service'] == 'action_dispatcher/enable'
    front, arm = config.cameras['front'], config.sources['arm']
    assert (front.topic, front.transport, front.timeout) == ('front/image_raw', 'raw', 0.2)
    assert (arm.topic, arm.field, arm.mapping) == ('joint_states', 'position', 'by_name')
    assert (arm.joints, arm.size, arm.scale, arm.timeout) == (('a', 'b'), (), 1.0, 0.1)
    assert node.get_parameter('arm.timeout').value == 0.1  # declared: `ros2 param dump` shows it


def test_whole_number_is_taken_for_a_float(context):
    config, _ = read(context, sync_slop=1, arm__scale=2)
    assert config['sync_slop'] == 1.0
    assert isinstance(config.sources['arm'].scale, float)


def test_robot_file_of_the_r1_lite_is_accepted(context):
    node = make_node(
        context,
        cli_args=h.arguments(),
        parameter_overrides=h.overrides({'checkpoint_path': 'x'}),
    )
    config = policy_parameters.read(node)
    node.destroy_node()
    assert config['reference_camera'] == 'head'
    assert {c.transport for c in config.cameras.values()} == {'compressed'}
    assert config.sources['left_arm'].size == (6, 7)
    assert config.sources['base'].field == 'velocity'
    assert config.sources['right_gripper'].scale == 0.001


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'checkpoint_path': REMOVE}, 'parameter checkpoint_path is required.*or remote'),
        ({'remote': 'a:1'}, 'remote: checkpoint_path cannot be given with it'),
        (
            {'checkpoint_path': REMOVE, 'remote': 'a:1', 'seed': 3, 'device': 'cuda'},
            'remote: device, seed cannot be given',
        ),
        ({'remote_images': 'png'}, "remote_images: expected one of jpeg, raw, found 'png'"),
        ({'remote_timeout': 0}, 'remote_timeout: expected more than 0.0'),
        ({'cameras': REMOVE}, 'parameter cameras is required'),
        ({'state_sources': REMOVE}, 'parameter state_sources is required'),
        ({'reference_camera': REMOVE}, 'parameter reference_camera is required'),
        ({'cameras': 'front'}, "cameras: expected a list, found 'front'"),
        ({'cameras': 3}, 'cameras: expected a list, found 3'),
        ({'cameras': [1, 2]}, r'cameras: expected a list of str, found \[1, 2\]'),
        ({'cameras': ['front', 'front']}, 'cameras: named twice: front'),
        ({'state_sources': ['arm', 'arm']}, 'state_sources: named twice: arm'),
        ({'state_sources': ['arm', 'front']}, 'front cannot be both'),
        ({'reference_camera': 'rear'}, "reference_camera: expected one of front, found 'rear'"),
        ({'rear__topic': 'x'}, 'unknown parameters: rear.topic'),
        ({'front__tpoic': 'x'}, 'unknown parameters: front.tpoic'),
        ({'chekpoint': 'x'}, 'unknown parameters: chekpoint'),
        ({'front__transport': 'theora'}, 'front.transport: expected one of raw, compressed'),
        ({'front__timeout': 0.0}, 'front.timeout: expected more than 0.0, found 0.0'),
        ({'front__timeout': '1'}, "front.timeout: expected float, found '1'"),
        ({'arm__timeout': -1.0}, 'arm.timeout: expected more than 0.0'),
        ({'arm__mapping': 'by_luck'}, 'arm.mapping: expected one of by_name, by_index'),
        ({'arm__field': 'name'}, 'arm.field: expected one of position, velocity, effort'),
        ({'arm__type': 'pose'}, 'arm.type: expected one of joint_state'),
        ({'arm__joints': [1, 2]}, r'arm.joints: expected a list of str, found \[1, 2\]'),
        ({'arm__joints': 'a'}, "arm.joints: expected a list, found 'a'"),
        ({'arm__size': [6.5]}, r'arm.size: expected a list of int, found \[6.5\]'),
        ({'arm__size': 6}, 'arm.size: expected a list, found 6'),
        ({'arm__scale': float('nan')}, 'arm.scale: expected a finite number'),
        ({'sync_slop': float('inf')}, 'sync_slop: expected a finite number'),
        ({'sync_slop': -0.1}, 'sync_slop: expected at least 0.0'),
        ({'warmup_iterations': 1.5}, 'warmup_iterations: expected int, found 1.5'),
        ({'warmup_iterations': True}, 'warmup_iterations: expected int, found True'),
        ({'temperature': True}, 'temperature: expected float, found True'),
        ({'use_receive_time': 'yes'}, "use_receive_time: expected bool, found 'yes'"),
        ({'use_receive_time': 1}, 'use_receive_time: expected bool, found 1'),
        ({'num_threads': 0}, 'num_threads: expected at least 1'),
        ({'max_decode_failures': 0}, 'max_decode_failures: expected at least 1'),
        ({'observation_timeout': 0.0}, 'observation_timeout: expected more than 0.0'),
        ({'checkpoint_path': 7}, 'checkpoint_path: expected str, found 7'),
        ({'trigger': 'sometimes'}, "trigger: expected one of continuous, on_demand, found 'some"),
        ({'min_confidence': 0.5}, 'min_confidence: expected at most 0.0 .a logarithm., found 0.5'),
        ({'min_confidence': 'high'}, "min_confidence: expected float, found 'high'"),
        (
            {'min_confidence': -1.0, 'publish_coarse': True},
            'publish_coarse: expected false with min_confidence',
        ),
        ({'done_topic': True}, 'done_topic: expected str, found True'),
        (
            {'latency.warn': 1.0},
            r'latency.warn: expected at most latency.error \(0.6 s\), found 1',
        ),
        ({'input_rate.warn_ratio': -0.1}, 'input_rate.warn_ratio: expected at least 0.0'),
    ],
)
def test_wrong_parameter_is_refused_by_name(context, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        read(context, **changes)


def test_parameters_of_rclpy_itself_are_not_unknown(context):
    config, _ = read(context, use_sim_time=True)
    assert 'use_sim_time' not in config.values


def test_reading_twice_gives_the_same(context):
    node = make_node(context, parameter_overrides=h.overrides(GOOD))
    first = policy_parameters.read(node)
    assert policy_parameters.read(node) == first
    node.destroy_node()


def test_changes_are_refused_with_the_name_until_they_are_allowed_again(context):
    node = make_node(context, parameter_overrides=h.overrides(GOOD))
    allow = parameters.refuse_changes(node)
    result = node.set_parameters([Parameter('reference_camera', value='rear')])[0]
    assert not result.successful
    assert 'reference_camera: fixed while configured' in result.reason
    assert node.get_parameter('reference_camera').value == 'front'
    assert node.set_parameters([Parameter('use_sim_time', value=False)])[0].successful
    allow()
    assert node.set_parameters([Parameter('reference_camera', value='rear')])[0].successful
    node.destroy_node()


def test_changeable_parameters_are_checked_and_handed_over_together(context):
    node = make_node(context, parameter_overrides=h.overrides(GOOD | {'sync_slop': 0.1}))
    node.declare_parameter('seed', 1)
    seen, table = [], {name: policy_parameters.TABLE[name] for name in ('sync_slop', 'seed')}

    def on_change(values):
        seen.append(values)
        if values.get('seed') == 13:
            raise ConfigError('seed: expected anything but 13')

    parameters.refuse_changes(node, table, on_change)
    changes = h.overrides({'sync_slop': 0.2, 'seed': 5})
    assert node.set_parameters_atomically(changes).successful
    assert seen == [{'sync_slop': 0.2, 'seed': 5}]
    for values, reason in (
        ({'seed': -1}, 'seed: expected at least 0'),
        ({'seed': 13}, 'seed: expected anything but 13'),
        ({'seed': 6, 'reference_camera': 'rear'}, 'reference_camera: fixed while configured'),
    ):
        result = node.set_parameters_atomically(h.overrides(values))
        assert not result.successful
        assert reason in result.reason
    assert node.get_parameter('seed').value == 5
    assert len(seen) == 2
    node.destroy_node()


def test_camera_and_source_that_are_dropped_leave_no_unknown_parameters(context):
    given = GOOD | {'cameras': ['front', 'left'], 'state_sources': ['arm', 'base']}
    given |= {'base.type': 'twist', 'arm.scale': 2.0}
    node = make_node(context, parameter_overrides=h.overrides(given))
    try:
        policy_parameters.read(node)
        assert node.has_parameter('left.timeout')
        node.set_parameters(h.overrides({'cameras': ['front'], 'left.timeout': 3.0}))
        config = policy_parameters.read(node)
        assert set(config.cameras) == {'front'}
        assert config.sources['arm'].scale == 2.0
        assert not node.has_parameter('left.timeout')
        # What was given by name stays, and is refused as ever.
        node.set_parameters(h.overrides({'state_sources': ['arm']}))
        with pytest.raises(ConfigError, match=r'unknown parameters: base\.type$'):
            policy_parameters.read(node)
    finally:
        node.destroy_node()
