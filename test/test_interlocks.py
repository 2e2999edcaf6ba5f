"""Who else has a say: teleoperation, the remote control's mode, topics nobody may publish on."""

import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import COMMANDS, DOMAIN, LATCHED
from geometry_msgs.msg import Point, PointStamped, TwistStamped
from rclpy.context import Context
from rclpy.node import Node
from robot_files import Publishing
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Int32, String

from faster_core.errors import FasterVlaError
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros.action_dispatcher import NUM_ZEROS
from faster_vla_ros.compat import message_info
from faster_vla_ros.interlocks import estop as estop_module
from faster_vla_ros.interlocks.any_topic import message_class
from faster_vla_ros.interlocks.authority import Authority
from faster_vla_ros.interlocks.estop import EmergencyStop
from faster_vla_ros.interlocks.permit import Permit
from faster_vla_ros.interlocks.takeover import PATIENCE, Takeover, UNKNOWN
from faster_vla_ros.outputs import Ways

pytestmark = pytest.mark.ros


def silent(rig, seconds=0.4):
    """Whether nothing is commanded for a while."""
    rig.spin(0.1)
    before = {name: len(sent) for name, sent in rig.sent.items()}
    rig.spin(seconds)
    return before == {name: len(sent) for name, sent in rig.sent.items()}


# --- teleoperation ---------------------------------------------------------------------------


@pytest.mark.parametrize('kind', [TwistStamped, String], ids=['TwistStamped', 'String'])
def test_a_declared_topic_of_any_type_takes_over_and_we_go_silent(make_rig, kind):
    rig = make_rig(takeover__topics=['joystick'])
    hand = rig.node.create_publisher(kind, 'joystick', 1)
    rig.until(lambda: hand.get_subscription_count(), 'the dispatcher listens')
    rig.drive()
    hand.publish(kind())
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert 'joystick' in rig.state.message
    assert silent(rig)
    assert rig.send().reason == 'not_enabled'


def test_while_somebody_commands_motion_cannot_be_enabled_and_afterwards_it_can(make_rig):
    rig = make_rig(takeover__topics=['joystick'], takeover__timeout=0.5)
    hand = rig.node.create_publisher(TwistStamped, 'joystick', 1)
    rig.enable_when_ready()
    rig.until(lambda: hand.get_subscription_count(), 'the dispatcher listens')
    timer = rig.node.create_timer(0.05, lambda: hand.publish(TwistStamped()))
    rig.until(lambda: not rig.state.enabled, 'disabled')
    answer = rig.enable()
    assert not answer.success
    assert '/joystick' in answer.message or 'joystick' in answer.message
    rig.node.destroy_timer(timer)
    rig.until(lambda: rig.enable().success, 'enabled again')


def test_another_publisher_on_a_command_topic_takes_over(make_rig):
    rig = make_rig()
    rig.drive()
    rival = rig.node.create_publisher(TwistStamped, COMMANDS['base'][1], 1)
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert COMMANDS['base'][1] in rig.state.message
    assert 'robot' in rig.state.message  # the node that publishes
    assert silent(rig)
    assert not rig.enable().success
    rig.node.destroy_publisher(rival)
    rig.until(lambda: rig.enable().success, 'enabled again')


def test_other_publishers_may_be_tolerated(make_rig):
    rig = make_rig(takeover__publishers=False)
    rival = rig.node.create_publisher(TwistStamped, COMMANDS['base'][1], 1)
    rig.drive()
    rig.move_until(lambda: len(rig.base_speeds) > 30)
    assert rig.state.enabled
    rig.node.destroy_publisher(rival)


def test_after_a_takeover_not_even_zeros_are_sent_at_the_end(make_rig):
    rig = make_rig()
    rig.drive()
    rival = rig.node.create_publisher(TwistStamped, COMMANDS['base'][1], 1)
    rig.until(lambda: not rig.state.enabled, 'disabled')
    rig.spin(0.2)
    count = len(rig.sent['base'])
    rig.dispatcher.leave()
    rig.spin(0.3)
    assert len(rig.sent['base']) == count
    rig.node.destroy_publisher(rival)


# --- the remote control's mode ---------------------------------------------------------------

PERMIT = {'permit__topic': 'controller', 'permit__field': 'data', 'permit__value': 5}


def test_motion_needs_the_mode_in_which_programs_may_move(make_rig):
    rig = make_rig(**PERMIT)
    remote = rig.node.create_publisher(Int32, 'controller', 1)
    rig.until(rig.connected)
    answer = rig.enable()
    assert not answer.success
    assert 'is not known, expected 5' in answer.message
    timer = rig.node.create_timer(0.05, lambda: remote.publish(Int32(data=mode)))
    mode = 3
    rig.until(lambda: 'is 3, expected 5' in rig.enable().message, 'the mode is heard')
    assert 'is 3, expected 5' in rig.state.message
    mode = 5
    rig.drive()
    mode = 3
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert silent(rig)
    rig.node.destroy_timer(timer)


def test_a_remote_control_that_falls_silent_takes_the_permission_along(make_rig):
    rig = make_rig(**PERMIT, permit__timeout=0.5)
    remote = rig.node.create_publisher(Int32, 'controller', 1)
    timer = rig.node.create_timer(0.05, lambda: remote.publish(Int32(data=5)))
    rig.drive()
    rig.node.destroy_timer(timer)
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert 'not told for 0.5 s' in rig.state.message
    # Nobody else commands: it brakes, and the chassis, which latches, is told zero.
    rig.until(lambda: rig.base_speeds[-1] == 0.0, 'zeros')
    assert 0.9 < rig.hardest_braking() <= 1.01
    count = len(rig.base_speeds)
    rig.dispatcher.leave()
    rig.spin(0.2)
    assert rig.base_speeds[count:].count(0.0) >= NUM_ZEROS


def test_a_remote_control_last_heard_long_before_the_end_does_not_end_the_braking(make_rig):
    rig = make_rig(**PERMIT, permit__timeout=5.0)
    remote = rig.node.create_publisher(Int32, 'controller', 1)
    timer = rig.node.create_timer(0.02, lambda: remote.publish(Int32(data=5)))
    rig.drive(0.15)
    # Not before: it would count as silent whenever the machine stands still.
    rig.dispatcher._authority._permit._timeout = 0.1
    count = len(rig.base_speeds)
    rig.dispatcher.leave()  # nothing is heard meanwhile, and braking takes longer
    rig.node.destroy_timer(timer)
    rig.until(lambda: rig.base_speeds[count:][-NUM_ZEROS:] == [0.0] * NUM_ZEROS, 'zeros')
    assert rig.base_speeds[count] > 0.0


def test_the_mode_may_be_a_field_of_a_field(make_rig):
    rig = make_rig(permit__topic='controller', permit__field='point.x', permit__value=5)
    remote = rig.node.create_publisher(PointStamped, 'controller', 1)
    message = PointStamped(point=Point(x=5.0))
    timer = rig.node.create_timer(0.05, lambda: remote.publish(message))
    rig.drive()
    rig.node.destroy_timer(timer)


def test_a_field_that_is_not_there_is_told(make_rig):
    rig = make_rig(permit__topic='controller', permit__field='mode', permit__value=5)
    remote = rig.node.create_publisher(Int32, 'controller', 1)
    timer = rig.node.create_timer(0.05, lambda: remote.publish(Int32(data=5)))
    rig.until(lambda: 'no field mode' in rig.enable().message, 'told')
    rig.node.destroy_timer(timer)


def test_who_cannot_be_read_is_not_known_to_command():
    permit = Permit(Publishing(), topic='controller', field='mode', value=5, timeout=60.0)
    for message, denied in (
        (types.SimpleNamespace(mode=5), False),
        (types.SimpleNamespace(mode=3), True),
        (types.SimpleNamespace(), False),
        (types.SimpleNamespace(mode=3), True),
    ):
        permit._take(message)
        assert permit.denied == denied
        assert bool(permit.reason) == (vars(message) != {'mode': 5})


@pytest.mark.parametrize('denied', [False, True])
def test_only_a_permit_that_is_denied_means_that_others_command(denied):
    authority = Authority.__new__(Authority)
    authority._takeover = types.SimpleNamespace(commands='')
    authority._permit = types.SimpleNamespace(denied=denied, reason='why', unheard=False)
    assert authority.others_command == denied


def test_a_type_that_is_not_installed_is_named():
    assert message_class('std_msgs/msg/Int32') is Int32
    with pytest.raises(ImportError):
        message_class('hdas_msg/msg/ControllerSignalStamped')
    with pytest.raises(ImportError, match='has no Nothing'):
        message_class('std_msgs/msg/Nothing')


# --- at enable -------------------------------------------------------------------------------


def test_a_topic_that_must_have_no_publisher_refuses_the_enable_and_names_it(make_rig):
    topic = '/motion_target/target_joint_state_torso'
    rig = make_rig(exclusive_topics=[topic])
    rival = rig.node.create_publisher(JointState, topic, 1)
    rig.until(rig.connected)
    rig.until(lambda: topic in rig.enable().message, 'refused')
    assert not rig.state.enabled
    rig.node.destroy_publisher(rival)
    rig.until(lambda: rig.enable().success, 'enabled')


def test_the_acceleration_limit_is_told_at_every_enable(make_rig):
    rig = make_rig(
        acceleration_limit__topic='/motion_target/chassis_acc_limit',
        acceleration_limit__values=[0.5, 0.4, 1.0],
    )
    told = []
    rig.node.create_subscription(TwistStamped, '/motion_target/chassis_acc_limit', told.append, 1)
    rig.enable_when_ready()
    rig.until(lambda: told, 'the limit')
    twist = told[0].twist
    assert (twist.linear.x, twist.linear.y, twist.angular.z) == (0.5, 0.4, 1.0)
    assert rig.enable(False).success
    rig.until(lambda: rig.enable().success and len(told) == 2, 'told again')


@pytest.mark.parametrize('values', [[0.5, 0.5], [0.5, 0.5, 0.0], None])
def test_an_acceleration_limit_wants_three_numbers(make_rig, values):
    with pytest.raises(FasterVlaError, match='three numbers > 0'):
        make_rig(acceleration_limit__topic='limit', acceleration_limit__values=values)


def test_in_a_dry_run_nobody_is_told_anything(make_rig):
    rig = make_rig(dry_run=True)
    # It may watch while somebody else commands.
    rig.node.create_publisher(TwistStamped, COMMANDS['base'][1], 1)
    rig.until(lambda: rig.states, 'a state')
    rig.until(lambda: rig.enable().success, 'enabled')
    rig.send()
    rig.spin(0.3)
    assert not rig.brake
    assert not any(rig.sent.values())
    assert rig.state.action in (DispatcherState.ACTION_FOLLOW, DispatcherState.ACTION_LIMIT)


class _Graph:
    """A node that sees publishers of these names on every topic."""

    def __init__(self, *names, kind=''):
        self.names, self.kinds = names, (kind,)

    def get_name(self):
        return 'action_dispatcher'

    def get_namespace(self):
        return '/'

    def resolve_topic_name(self, topic):
        return topic

    def get_publishers_info_by_topic(self, topic):
        return [
            types.SimpleNamespace(node_name=name, node_namespace='/', topic_type=kind)
            for name in self.names
            for kind in self.kinds
        ]


def test_we_ourselves_and_the_guard_are_no_rivals_and_everybody_else_is():
    graph = _Graph('action_dispatcher', 'guard')
    ways = {'base': Ways(topics=('/cmd_vel',)), 'arm': Ways(actions=())}
    takeover = Takeover(graph, topics=[], ways=ways, timeout=0.5)
    takeover.look()
    assert not takeover.reason
    assert not takeover.taken
    graph.names = ('action_dispatcher', 'teleop')
    takeover.look()
    assert takeover.reason == 'teleop, which publishes on /cmd_vel'
    assert takeover.taken == {'base'}


def test_a_second_dispatcher_of_our_name_brakes_us_and_goes_by_its_states(make_rig):
    rig = make_rig()
    rig.drive()
    states = rig.node.create_publisher(DispatcherState, '/action_dispatcher/state', LATCHED)
    message = DispatcherState()
    message.header.stamp.sec = 1
    timer = rig.node.create_timer(0.5, lambda: states.publish(message))
    rig.until(lambda: not rig.dispatcher.dispatcher.plan, 'disarmed')
    count = len(rig.base_speeds)
    rig.until(lambda: rig.base_speeds[-1] == 0.0, 'zeros')
    assert any(0.0 < v < 0.2 for v in rig.base_speeds[count - 5 :])  # not cut off
    assert 'a second dispatcher' in rig.enable().message
    rig.node.destroy_timer(timer)
    rig.until(lambda: rig.enable().success, 'enabled when the other one is gone')
    rig.spin(1.5)  # our own states, once a second, are not taken for another's
    assert rig.state.enabled


def test_a_declared_topic_of_a_type_that_is_not_installed_keeps_motion_off():
    graph = _Graph('joystick', kind='hdas_msg/msg/ControllerSignalStamped')
    takeover = Takeover(graph, topics=['/joy'], ways={}, timeout=0.5)
    takeover.look()
    assert 'hdas_msg/msg/ControllerSignalStamped is not installed' in takeover.reason
    graph.names = ()
    takeover.look()
    assert not takeover.reason


def test_a_message_of_before_we_stood_still_for_long_takes_over(clock):
    graph = _Graph('joystick', kind='std_msgs/msg/Bool')
    taken = []
    graph.create_subscription = lambda *given, **_: taken.append(given[2])
    takeover = Takeover(graph, topics=['/joy'], ways={}, timeout=0.5)
    takeover.look()
    takeover.next_tick()
    assert not takeover.reason
    clock[0] += 0.01
    taken[0](Bool())
    clock[0] += 3.0
    takeover.next_tick()
    assert '/joy' in takeover.reason
    assert '/joy' in takeover.reason
    clock[0] += 0.01
    takeover.next_tick()
    assert not takeover.reason


def _button(timeout=0.0, **options):
    """Return an emergency stop, and what hears (pressed, when, in wall-clock seconds)."""
    node, taken = Publishing(), []
    node.create_subscription = lambda *given, **_: taken.append(given[2])
    estop = EmergencyStop(node, timeout, **options)

    def take(data, at=0.0):
        taken[0](Bool(data=data), {'received_timestamp': round(at * 1e9)})

    return estop, take


@pytest.mark.skipif(not message_info.SUPPORTED, reason='Humble does not say when it came')
def test_what_waited_to_be_heard_does_not_lengthen_the_silence(monkeypatch):
    now = [100.0]
    wall = types.SimpleNamespace(
        now=lambda: types.SimpleNamespace(nanoseconds=round((1000.0 + now[0]) * 1e9))
    )
    monkeypatch.setattr(message_info, '_wall', wall)
    steady = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(estop_module, 'time', steady)
    estop, take = _button(timeout=0.5)
    now[0] = 101.0
    assert estop.reason == 'estop_silent'
    take(False, at=1100.8)
    assert not estop.reason
    now[0] = 101.35
    assert estop.reason == 'estop_silent'
    take(False, at=1090.0)  # the clock was set: not as if what was heard before counted less
    now[0] = 101.2
    assert not estop.reason
    for unknown in (1200.0, 0.0):
        take(False, at=unknown)
        now[0] += 0.45
        assert not estop.reason


def test_a_press_of_the_emergency_stop_is_told_once_until_it_is_let_go():
    pressed = []
    estop, take = _button(on_press=lambda: pressed.append(estop.take_press()))
    for data in (True, True, False):  # while it is kept pressed it says so again and again
        take(data)
    assert pressed == ['estop']
    take(True)
    assert pressed == ['estop', 'estop']


def test_a_press_of_the_emergency_stop_counts_although_it_was_let_go_at_once():
    estop, take = _button()
    take(True)
    take(False)
    assert not estop.reason
    assert estop.take_press() == 'estop'
    assert not estop.take_press()


@pytest.fixture
def teleop():
    """Return a node of another participant: in one of ours a topic has one type at a time."""
    context = Context()
    context.init(domain_id=DOMAIN)
    node = Node('teleop', context=context)
    yield node
    node.destroy_node()
    context.shutdown()


def test_a_declared_topic_is_heard_when_its_publisher_comes_back_with_another_type(
    make_rig, teleop
):
    rig = make_rig(takeover__topics=['joystick'], takeover__timeout=0.2)
    for kind in (TwistStamped, String, TwistStamped):
        rig.until(lambda: rig.enable().success, 'enabled')
        hand = teleop.create_publisher(kind, 'joystick', 1)

        def said(hand=hand, message=kind):
            hand.publish(message())
            return not rig.state.enabled and 'somebody commands' in rig.state.message

        rig.until(said, f'a {kind.__name__} disables')
        teleop.destroy_publisher(hand)


def test_two_types_on_a_declared_topic_keep_motion_off():
    graph = _Graph('joystick', kind='std_msgs/msg/Bool')
    graph.create_subscription = lambda *_, **__: None
    takeover = Takeover(graph, topics=['/joy'], ways={}, timeout=0.5)
    takeover.look()
    assert not takeover.reason
    graph.kinds = ('std_msgs/msg/Bool', 'std_msgs/msg/String')
    takeover.look()
    assert 'only std_msgs/msg/Bool is heard' in takeover.reason
    graph.kinds = ('std_msgs/msg/Bool',)
    takeover.look()
    assert not takeover.reason


def test_without_require_enable_motion_waits_for_the_interlocks(make_rig):
    rig = make_rig(**PERMIT, require_enable=False)
    rig.until(rig.connected)
    rig.spin(0.5)
    assert not rig.state.enabled
    remote = rig.node.create_publisher(Int32, 'controller', 1)
    timer = rig.node.create_timer(0.05, lambda: remote.publish(Int32(data=5)))
    rig.until(lambda: rig.state.enabled, 'enabled by itself')
    rig.node.destroy_timer(timer)


@pytest.fixture
def clock(monkeypatch):
    """Return the time of take-overs, as a list of one."""
    now = [0.0]
    monkeypatch.setattr('faster_vla_ros.interlocks.takeover.time.perf_counter', lambda: now[0])
    return now


def test_a_publisher_without_a_name_is_a_rival_only_when_it_stays_so(clock):
    graph = _Graph('action_dispatcher', UNKNOWN)
    takeover = Takeover(graph, topics=[], ways={'base': Ways(topics=('/cmd_vel',))}, timeout=0.5)
    for _ in range(100):
        takeover.look()
    clock[0] = 0.9 * PATIENCE
    takeover.look()
    assert not takeover.reason
    clock[0] = PATIENCE
    takeover.look()
    assert UNKNOWN in takeover.reason
    graph.names = ('action_dispatcher',)
    takeover.look()
    assert not takeover.reason
