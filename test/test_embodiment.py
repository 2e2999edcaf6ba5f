"""The embodiment file: the shipped R1 Lite, and what the loader says about broken ones."""

import copy
import hashlib
import re

from project_files import ROOT
import pytest
import yaml

from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import EmbodimentError
from faster_core.paths import embodiment_file

SHIPPED = embodiment_file('r1_lite')


@pytest.fixture(scope='module')
def r1_lite():
    return Embodiment.load(SHIPPED)


@pytest.fixture
def raw():
    return copy.deepcopy(yaml.safe_load(SHIPPED.read_text(encoding='utf-8')))


def test_r1_lite_commands_21_dimensions_at_15_hz_in_chunks_of_32(r1_lite):
    sizes = [(c.name, c.size) for c in r1_lite.action]
    assert sizes == [
        ('left_arm', 6),
        ('left_gripper', 1),
        ('right_arm', 6),
        ('right_gripper', 1),
        ('torso', 4),
        ('base', 3),
    ]
    assert r1_lite.action_dim == 21
    assert (r1_lite.action_frequency, r1_lite.action_horizon) == (15.0, 32)
    assert r1_lite.step_period == pytest.approx(1 / 15)


def test_r1_lite_sees_three_cameras_and_21_state_values(r1_lite):
    assert r1_lite.cameras == ('head', 'wrist_left', 'wrist_right')
    assert r1_lite.state_dim == 21
    assert [c.name for c in r1_lite.state] == [c.name for c in r1_lite.action]


def test_r1_lite_torso_and_base_are_twists_with_named_axes(r1_lite):
    torso, base = r1_lite.action_component('torso'), r1_lite.action_component('base')
    assert (torso.kind, torso.names) == (Kind.TWIST, ('vx', 'vz', 'wy', 'wz'))
    assert (base.kind, base.names) == (Kind.TWIST, ('vx', 'vy', 'wz'))


def test_held_positions_are_told_from_velocities_that_rest_at_zero():
    positions = {k for k in Kind if k.is_position}
    assert positions == {Kind.JOINT_POSITION, Kind.EE_POSE, Kind.GRIPPER_POSITION}


def test_slices_cover_every_column_once_and_in_order(r1_lite):
    for slices, dim in (
        (r1_lite.action_slices, r1_lite.action_dim),
        (r1_lite.state_slices, r1_lite.state_dim),
    ):
        assert [i for s in slices.values() for i in range(dim)[s]] == list(range(dim))
    assert r1_lite.action_slices['right_arm'] == slice(7, 13)


def test_each_component_of_r1_lite_is_a_tokenizer_group_of_its_own(r1_lite):
    assert r1_lite.tokenizer_groups == tuple((c.name,) for c in r1_lite.action)


def test_component_kinds_equal_the_constants_on_the_wire():
    numbers = {k.name: k.value for k in Kind}
    assert numbers == {
        'JOINT_POSITION': 0,
        'JOINT_VELOCITY': 1,
        'EE_POSE': 2,
        'TWIST': 3,
        'GRIPPER_POSITION': 4,
        'EE_DELTA': 5,
    }


def test_message_definition_has_a_constant_for_every_kind():
    text = (ROOT / 'faster_vla_msgs' / 'msg' / 'ActionComponent.msg').read_text(encoding='utf-8')
    constants = re.findall(r'^uint8 KIND_(\w+)=(\d+)', text, re.MULTILINE)
    assert {name: int(number) for name, number in constants} == {k.name: k.value for k in Kind}


@pytest.mark.parametrize('names', [['x', 'y', 'z'], ['rz'], ['x', 'y', 'z', 'rx', 'ry', 'rz']])
def test_displacement_of_an_end_effector_has_any_of_six_axes(raw, names):
    raw['action'][5] |= {'kind': 'ee_delta', 'names': names}
    base = Embodiment.from_text(yaml.safe_dump(raw)).action_component('base')
    assert (base.kind, base.names) == (Kind.EE_DELTA, tuple(names))
    assert not base.kind.is_position


@pytest.mark.parametrize('name', sorted(p.stem for p in SHIPPED.parent.glob('*.yaml')))
def test_shipped_file_is_named_as_the_robot_it_describes(name):
    assert Embodiment.load(embodiment_file(name)).name == name


def test_checksum_is_the_sha256_of_the_text_as_it_is(r1_lite):
    text = SHIPPED.read_text(encoding='utf-8')
    assert r1_lite.source == text
    assert r1_lite.checksum == hashlib.sha256(text.encode('utf-8')).hexdigest()
    commented = Embodiment.from_text(text + '\n# a comment\n')
    assert commented.action == r1_lite.action
    assert commented.checksum != r1_lite.checksum


def test_unknown_action_component_is_a_key_error(r1_lite):
    with pytest.raises(KeyError):
        r1_lite.action_component('third_arm')


def test_groups_may_join_neighbouring_components(raw):
    raw['tokenizer_groups'] = [['left_arm', 'left_gripper', 'right_arm', 'right_gripper']]
    raw['tokenizer_groups'].append(['torso', 'base'])
    assert len(Embodiment.from_text(yaml.safe_dump(raw)).tokenizer_groups) == 2


def _set(*path, to):
    def change(raw):
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = to

    return change


def _drop(*path):
    def change(raw):
        for key in path[:-1]:
            raw = raw[key]
        del raw[path[-1]]

    return change


# what is broken -> (how, field the message names, what it says was expected or found)
BROKEN = {
    'no rate': (_drop('action_frequency'), 'missing keys: action_frequency', ''),
    'unknown key': (_set('colour', to='red'), 'unknown keys: colour', 'known: action,'),
    'zero rate': (_set('action_frequency', to=0), 'action_frequency', 'a positive number'),
    'negative rate': (_set('action_frequency', to=-15.0), 'action_frequency', 'found -15.0'),
    'infinite rate': (_set('action_frequency', to=float('inf')), 'action_frequency', 'positive'),
    'rate is text': (_set('action_frequency', to='15 Hz'), 'action_frequency', "found '15 Hz'"),
    'rate is a truth': (_set('action_frequency', to=True), 'action_frequency', 'positive number'),
    'horizon is broken': (_set('action_horizon', to=32.5), 'action_horizon', 'positive integer'),
    'horizon is zero': (_set('action_horizon', to=0), 'action_horizon', 'positive integer'),
    'name with a space': (_set('name', to='R1 Lite'), 'name', 'lower-case identifier'),
    'name is no text': (_set('name', to=7), 'name', 'found 7'),
    'no camera': (_set('cameras', to=[]), 'cameras', 'non-empty list'),
    'cameras is text': (_set('cameras', to='head'), 'cameras', "found 'head'"),
    'camera in capitals': (_set('cameras', 1, to='Wrist'), 'cameras[1]', "found 'Wrist'"),
    'camera twice': (_set('cameras', 2, to='head'), 'cameras', 'named twice: head'),
    'no state': (_set('state', to=None), 'state', 'non-empty list'),
    'action is a mapping': (_set('action', to={'left_arm': 6}), 'action', 'non-empty list'),
    'component is text': (_set('action', 0, to='left_arm'), 'action[0]', 'component, kind, names'),
    'component without kind': (_drop('action', 3, 'kind'), 'action[3]', 'component, kind, names'),
    'component with a key more': (_set('state', 0, 'unit', to='rad'), 'state[0]', 'expected {'),
    'unknown kind': (
        _set('action', 1, 'kind', to='suction'),
        'action[1].kind',
        'gripper_position',
    ),
    'kind is a list': (_set('action', 1, 'kind', to=['twist']), 'action[1].kind', 'expected one'),
    'component twice': (
        _set('action', 2, 'component', to='left_arm'),
        'action',
        'twice: left_arm',
    ),
    'component in capitals': (
        _set('state', 4, 'component', to='Torso'),
        'state[4].component',
        "found 'Torso'",
    ),
    'no names': (_set('state', 0, 'names', to=[]), 'state[0].names', 'non-empty list'),
    'name is a number': (
        _set('state', 0, 'names', to=[1, 2]),
        'state[0].names',
        'expected string',
    ),
    'joint twice': (
        _set('action', 0, 'names', 5, to='joint1'),
        'action[0].names',
        'twice: joint1',
    ),
    'unknown twist axis': (
        _set('action', 5, 'names', 2, to='yaw'),
        'action[5].names',
        'vx, vy, vz',
    ),
    'pose without quaternion': (
        _set('action', 0, 'kind', to='ee_pose'),
        'action[0].names',
        'x, y, z, qx, qy, qz, qw',
    ),
    'displacement along a quaternion': (
        _set('action', 5, to={'component': 'base', 'kind': 'ee_delta', 'names': ['x', 'qx']}),
        'action[5].names',
        'an ee_delta has axes x, y, z, rx, ry, rz, found x, qx',
    ),
    'no groups': (_set('tokenizer_groups', to=[]), 'tokenizer_groups', 'non-empty list'),
    'empty group': (_set('tokenizer_groups', 2, to=[]), 'tokenizer_groups[2]', 'non-empty list'),
    'group lacks the base': (
        _drop('tokenizer_groups', 5),
        'tokenizer_groups',
        'torso, base, found',
    ),
    'group of a stranger': (_set('tokenizer_groups', 5, to=['legs']), 'tokenizer_groups', 'legs'),
    'grouped twice': (
        _set('tokenizer_groups', 5, to=['torso']),
        'tokenizer_groups',
        'twice: torso',
    ),
    'groups out of order': (
        _set('tokenizer_groups', to=[['base'], ['torso'], ['left_arm']]),
        'tokenizer_groups',
        'in order; expected left_arm, left_gripper',
    ),
}


@pytest.mark.parametrize('case', BROKEN)
def test_broken_file_is_refused_and_the_message_names_field_and_expectation(case, raw):
    change, field, expectation = BROKEN[case]
    change(raw)
    with pytest.raises(EmbodimentError) as caught:
        Embodiment.from_text(yaml.safe_dump(raw))
    message = str(caught.value)
    assert message.startswith(field)
    assert expectation in message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'expected a mapping at the top, found NoneType'),
        ('- left_arm\n', 'expected a mapping at the top, found list'),
        ('name: [unclosed', 'not YAML'),
        ('name: 2024-13-45', 'not YAML'),
        ('name: !!python/object/apply:os.system ["true"]', 'not YAML'),
    ],
)
def test_text_that_is_no_mapping_is_refused(text, message):
    with pytest.raises(EmbodimentError, match=message):
        Embodiment.from_text(text)


def test_errors_of_a_file_name_the_file(tmp_path):
    with pytest.raises(EmbodimentError, match=r'absent\.yaml'):
        Embodiment.load(tmp_path / 'absent.yaml')
    broken = tmp_path / 'broken.yaml'
    broken.write_bytes(b'name: \xff\xfe')
    with pytest.raises(EmbodimentError, match=r'broken\.yaml'):
        Embodiment.load(broken)
    broken.write_text('name: r1_lite\n')
    with pytest.raises(EmbodimentError, match=r'broken\.yaml: missing keys: action, action_freq'):
        Embodiment.load(broken)
