"""The policy node with a policy server: the same chunks, and a server that is not there."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import cv2
import numpy as np
import policy_node_helpers as h
from project_files import ROOT
from rclpy.lifecycle import TransitionCallbackReturn
import remote_helpers as r
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger

from faster_core import paths
from faster_core.errors import ConfigError, DecodeError, RemoteUnavailableError
from faster_core.remote import protocol, wire
from faster_core.remote.client import RemotePolicy
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros.graph import checkpoint_needed, r1lite_wbc
from faster_vla_ros.inference import InferenceThread, Job
from faster_vla_ros.policy_node import load_policy

pytestmark = pytest.mark.ros

DOMAIN = 44
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture(scope='module')
def context():
    with h.own_context(DOMAIN) as c:
        yield c


@contextlib.contextmanager
def remote_rig(context, address, *, up=True, **parameters):
    """A rig whose node has what the launch file gives it with `remote`, and no fake factory."""
    values = {'checkpoint_path': '', 'remote': address, 'remote_timeout': 20.0} | parameters
    with h.rig(context, up=False, **values) as rig:
        rig.node._factory = load_policy
        yield rig.up() if up else rig


@contextlib.contextmanager
def left_alone(context):
    """A rig that was following when its server ended; gives (rig, address)."""
    with contextlib.ExitStack() as stack:
        with r.serving() as (server, _):
            rig = stack.enter_context(remote_rig(context, server.address))
            rig.follow()
        yield rig, server.address


def compressed(file):
    return CompressedImage(format='jpeg', data=file)


def test_chunks_of_a_server_reach_the_wire_like_those_of_a_local_policy(context):
    with r.serving() as (server, served), remote_rig(context, server.address) as rig:
        assert isinstance(rig.node.policy, RemotePolicy)
        assert len(served.observations) == 1  # warm-up
        chunk = rig.follow('grasp the cup')
        assert chunk.instruction == 'grasp the cup'
        assert (chunk.num_steps, chunk.embodiment_checksum) == (32, served.embodiment.checksum)
        assert all((np.asarray(c.data) == 0.25).all() for c in chunk.components)
        seen = served.observations[-1]
        np.testing.assert_allclose(seen.state, h.STATE, rtol=1e-6)
        # One colour survives a JPEG, within a level or two.
        assert np.abs(seen.images['head'].astype(int) - 100).max() <= 2
        assert rig.wait_status(PolicyStatus.STATE_RUNNING).num_decode_failures == 0


def test_raw_images_may_be_sent_as_they_are(context):
    options = {'remote_images': 'raw'}
    with r.serving() as (server, served), remote_rig(context, server.address, **options) as rig:
        rig.follow()
        assert (served.observations[-1].images['head'] == 100).all()


def test_instructions_are_checked_by_the_server(context):
    with r.serving() as (server, _), remote_rig(context, server.address) as rig:
        rig.say('xyzzy')
        status = rig.wait_status(PolicyStatus.STATE_IDLE, 'instruction refused')
        assert 'too few words' in status.message
        assert rig.node.instruction == ''


def test_a_server_that_is_gone_is_reported_and_work_goes_on_when_it_is_back(context):
    with left_alone(context) as (rig, address):
        moving = len(rig.moving_chunks())
        rig.sense()
        status = rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, 'no policy server at')
        assert address in status.message
        assert status.instruction == 'grasp the cup'
        assert rig.node.active
        rig.sense()
        rig.spin(0.5)
        assert len(rig.moving_chunks()) == moving
        assert rig.node.num_failures == 0  # of decoding, which would end a goal
        with r.serving(port=protocol.split_address(address)[1]) as (_, served):
            rig.sense()
            rig.until(lambda: len(rig.moving_chunks()) > moving)
            assert served.observations[-1].instruction == 'grasp the cup'
            rig.wait_status(PolicyStatus.STATE_RUNNING)


def test_an_instruction_that_cannot_be_checked_is_refused_and_accepted_later(context):
    with left_alone(context) as (rig, address):
        rig.say('grasp the bowl')
        rig.wait_status(PolicyStatus.STATE_IDLE, 'no policy server at')
        rig.until(lambda: rig.chunks[-1].num_steps == 0)
        with r.serving(port=protocol.split_address(address)[1]):
            assert rig.follow('grasp the bowl').instruction == 'grasp the bowl'


def test_a_server_that_does_not_answer_in_time_is_reported_and_work_goes_on(context):
    options = {'remote_timeout': 0.5}
    with r.serving() as (server, served), remote_rig(context, server.address, **options) as rig:
        rig.follow()
        served.gate.clear()
        rig.sense()
        rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, 'did not answer within 0.5 s')
        served.gate.set()
        count = len(rig.moving_chunks())
        for _ in range(20):
            rig.sense()
            rig.spin(0.3)
            if len(rig.moving_chunks()) > count:
                break
        assert len(rig.moving_chunks()) > count


def test_a_failed_decode_in_the_server_counts_as_one_here(context):
    with r.serving() as (server, served), remote_rig(context, server.address) as rig:
        rig.say('grasp the cup')
        served.error = DecodeError('code 999 out of range')
        rig.sense()
        rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, 'code 999 out of range')
        assert rig.node.num_failures == 1
        served.error = None
        rig.follow('grasp the bowl')


def test_a_bug_in_the_server_is_no_fault_of_the_node(context):
    with r.serving() as (server, served), remote_rig(context, server.address) as rig:
        rig.say('grasp the cup')
        served.error = ZeroDivisionError('there')
        rig.sense()
        rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, 'ZeroDivisionError: there')
        served.error = None
        rig.follow('grasp the bowl')


def test_reset_reaches_the_server(context):
    with r.serving() as (server, served), remote_rig(context, server.address) as rig:
        rig.follow()
        before = len(served.resets)
        client = rig.robot.create_client(Trigger, '/policy_node/reset')
        rig.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        rig.until(future.done)
        rig.follow()
        assert len(served.resets) == before + 1


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'remote': 'nowhere'}, "remote: expected host:port, found 'nowhere'"),
        ({'remote': '127.0.0.1:1'}, r'no policy server at 127.0.0.1:1 (time-out 20 s)'),
        ({'checkpoint_path': '/x', 'temperature': 0.5}, 'remote: checkpoint_path, temperature'),
        ({'remote_images': 'png'}, 'remote_images: expected one of jpeg, raw'),
        ({'remote_timeout': 0.0}, 'remote_timeout: expected more than 0.0'),
        ({'remote_embodiment': '/nowhere.yaml'}, 'embodiment file /nowhere.yaml'),
    ],
)
def test_what_cannot_work_is_refused_at_configure_in_one_line(
    context, capfd, parameters, expected
):
    with remote_rig(context, '127.0.0.1:1', up=False, **parameters) as rig:
        assert rig.node.trigger_configure() == FAILURE
        log = capfd.readouterr().err
        assert expected in log
        assert log.count('[FATAL]') == 1
        assert 'Traceback' not in log


def test_a_server_for_another_robot_than_the_dispatchers_is_refused_at_configure(
    context, capfd, tmp_path
):
    file = tmp_path / 'other.yaml'
    text = paths.embodiment_file('r1_lite').read_text(encoding='utf-8')
    file.write_text(text + '# changed\n', encoding='utf-8')
    with r.serving() as (server, _):
        with remote_rig(context, server.address, up=False, remote_embodiment=str(file)) as rig:
            assert rig.node.trigger_configure() == FAILURE
            assert 'expected the checksum' in capfd.readouterr().err
        good = str(paths.embodiment_file('r1_lite'))
        with remote_rig(context, server.address, remote_embodiment=good) as rig:
            rig.follow()


def test_the_connection_ends_with_the_node(context):
    with r.serving() as (server, _):
        with remote_rig(context, server.address) as rig:
            policy = rig.node.policy
            rig.follow()
            rig.node.trigger_deactivate()
            rig.node.trigger_cleanup()
            with pytest.raises(RemoteUnavailableError, match='closed'):
                policy.predict(r.observation())
            rig.up().follow()


def test_a_missing_package_is_a_configuration_error_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_core.remote.client', None)
    with pytest.raises(ConfigError, match=r"remote: .* is missing: pip install '\.\[remote\]'"):
        load_policy({'remote': '127.0.0.1:1'})


# --- images and resets on the way -------------------------------------------------------------


class Eager:
    """A policy that takes JPEG files, and notes what it gets."""

    takes_jpeg = True

    def __init__(self, served):
        self.embodiment, self._served, self.seen = served.embodiment, served, []
        self.reset_errors, self.resets = [], 0

    def reset(self):
        if self.reset_errors:
            raise self.reset_errors.pop()
        self.resets += 1

    def predict(self, observation):
        self.seen.append(observation)
        decoded = {
            c: wire.decode_jpeg(c, i) if isinstance(i, bytes) else i
            for c, i in observation.images.items()
        }
        return self._served.predict(dataclasses.replace(observation, images=decoded))


@pytest.fixture
def thread():
    policy, outcomes = Eager(r.ServedFake()), []
    running = InferenceThread(policy, started=lambda job: None, done=outcomes.append)

    def infer(images):
        job = Job(
            images=images,
            state=np.zeros(21, np.float32),
            instruction='grasp the cup',
            stamp=1.0,
            generation=0,
        )
        count = len(outcomes)
        running.offer(job)
        end = time.monotonic() + 20.0
        while len(outcomes) == count and time.monotonic() < end:
            time.sleep(0.01)
        return outcomes[-1]

    infer.policy, infer.thread = policy, running
    yield infer
    running.stop()


def test_jpeg_files_are_passed_on_undecoded_and_other_images_as_arrays(thread):
    file = wire.encode_jpeg(r.picture())
    png = cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    images = {'head': compressed(file), 'wrist_left': compressed(png), 'wrist_right': h.image(1)}
    outcome = thread(images)
    assert outcome.error is None
    seen = thread.policy.seen[-1].images
    assert seen['head'] == file
    assert seen['wrist_left'].shape == (4, 4, 3)
    assert seen['wrist_right'].shape == (4, 6, 3)


def test_a_local_policy_gets_arrays_only(thread):
    thread.policy.takes_jpeg = False
    file = wire.encode_jpeg(r.picture())
    thread(dict.fromkeys(r.CAMERAS, compressed(file)))
    np.testing.assert_array_equal(
        thread.policy.seen[-1].images['head'], wire.decode_jpeg('head', file)
    )


def test_a_reset_that_failed_is_made_up_for_and_ends_no_thread(thread):
    images = {c: h.image(1) for c in r.CAMERAS}
    thread.policy.reset_errors = [RemoteUnavailableError('gone')]
    thread.thread.reset()
    outcome = thread(images)
    assert (str(outcome.error), outcome.fatal) == ('gone', False)
    assert not thread.policy.seen
    assert thread(images).error is None
    assert thread.policy.resets == 1
    assert thread(images).error is None
    assert thread.policy.resets == 1


# --- the graph ----------------------------------------------------------------------------------


def test_with_a_server_the_graph_needs_no_checkpoint_and_both_nodes_mean_the_same_robot():
    graph = r1lite_wbc(remote='workstation:7447')
    policy = graph.node('policy_node').parameters
    assert policy['remote'] == 'workstation:7447'
    assert 'checkpoint_path' not in policy
    assert policy['remote_embodiment'] == graph.node('action_dispatcher').parameters['embodiment']
    assert checkpoint_needed(graph) is None


def test_with_a_server_the_robot_of_the_checkpoint_folder_is_meant(tmp_path):
    file = tmp_path / 'embodiment.yaml'
    file.write_text('name: mine', encoding='utf-8')
    graph = r1lite_wbc(remote='workstation:7447', checkpoint=str(tmp_path))
    for node, name in (('policy_node', 'remote_embodiment'), ('action_dispatcher', 'embodiment')):
        assert graph.node(node).parameters[name] == str(file)
    assert checkpoint_needed(graph) is None


def test_without_one_nothing_has_changed():
    parameters = r1lite_wbc().node('policy_node').parameters
    assert 'checkpoint_path' in parameters
    assert not [name for name in parameters if name.startswith('remote')]


# --- no torch -----------------------------------------------------------------------------------


@pytest.mark.timeout(200)
def test_a_node_with_a_server_loads_no_torch(tmp_path):
    with r.serving() as (server, served):
        code = (
            'import json, sys\n'
            'sys.modules["torch"] = sys.modules["transformers"] = None\n'
            'import rclpy\n'
            'from faster_vla_ros.policy_node import PolicyNode\n'
            'rclpy.init()\n'
            'node = PolicyNode()\n'
            'done = node.trigger_configure()\n'
            'node.leave()\n'
            'print(json.dumps([int(done), sorted(m.split(".")[0] for m in sys.modules)]))\n'
        )
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN)}
        environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
        arguments = [*h.arguments(), '-p', f'remote:={server.address}']
        done = subprocess.run(
            [sys.executable, '-c', code, *arguments, '-p', 'remote_timeout:=60.0'],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        result, loaded = json.loads(done.stdout.splitlines()[-1])
        assert result == int(SUCCESS), done.stderr
        assert 'grpc' in loaded
        assert not {'tokenizers', 'safetensors'} & set(loaded)
        assert len(served.observations) == 3  # warm-up
