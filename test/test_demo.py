"""The demo command: what it refuses, what it prints, its files and its exit status."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('mujoco')
pytest.importorskip('imageio')

from faster_core.chunk import StageTiming
from faster_core.errors import ConfigError
from faster_core.sim.tasks import TASKS
from faster_vla_msgs.msg import ChunkReport
from faster_vla_ros import demo as module
from faster_vla_ros.cli import main
from faster_vla_ros.demo import chunk_line, task_for
from faster_vla_ros.episodes import RosEpisode
from faster_vla_ros.observer import ChunkRecord
from faster_vla_ros.session import SessionError

pytestmark = pytest.mark.ros
TIMING = StageTiming(
    preprocess_ms=1.0,
    vision_ms=20.0,
    prefill_ms=30.0,
    decode_block_ms=(10.0, 11.0, 12.0),
    detokenize_ms=2.0,
    total_ms=86.0,
)


def record(**report):
    return ChunkRecord(
        sequence_id=7,
        stamp_ns=0,
        timing=TIMING,
        observation_age_ms=12.0,
        report=ChunkReport(num_rows=32, **report),
    )


# --- live line --------------------------------------------------------------------------------


def test_the_line_of_a_chunk_shows_stages_age_and_rows():
    line = chunk_line(record(accepted=True, num_rows_dropped=2, num_rows_executed_previous=4))
    for part in (
        'chunk    7',
        'total   86 ms',
        'preprocess 1',
        'vision 20',
        'prefill 30',
        'decode x3 33',
        'detokenize 2',
        'observation  12 ms old',
        '4 rows executed',
        '2 of 32 too late',
    ):
        assert part in line
    assert '\n' not in line


def test_the_line_of_a_rejected_chunk_says_why():
    line = chunk_line(record(accepted=False, reason='start_offset'))
    assert 'REJECTED: start_offset' in line and 'executed' not in line


def test_a_chunk_without_its_timing_or_report_has_no_line():
    with pytest.raises(ValueError, match='chunk 7 lacks'):
        chunk_line(ChunkRecord(sequence_id=7, stamp_ns=0, timing=TIMING))


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize('task', TASKS.values(), ids=lambda t: t.name)
def test_case_and_spaces_of_an_instruction_do_not_matter(task):
    assert task_for(f'  {task.instruction.upper()}  ') == task.name


@pytest.mark.parametrize('text', ['', 'make coffee', 'red block', 'x' * 10_000])
def test_an_instruction_nobody_can_judge_is_refused_and_the_known_ones_are_listed(text):
    with pytest.raises(ConfigError) as raised:
        task_for(text)
    assert all(task.instruction in str(raised.value) for task in TASKS.values())
    assert len(str(raised.value)) < 1000


@pytest.fixture
def nothing_starts(monkeypatch):
    def started(*_, **__):
        pytest.fail('a process was started')

    monkeypatch.setattr(module, 'Supervisor', started)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--instruction', 'make coffee'], 'pick up the red block'),
        (['--checkpoint', 'nowhere'], 'no checkpoint in .*nowhere'),
        (['--seed', '-1'], 'seed: expected >= 0'),
    ],
)
def test_wrong_arguments_end_with_status_2_before_anything_starts(
    nothing_starts, capsys, arguments, message
):
    assert main(['demo', *arguments]) == 2
    assert capsys.readouterr().err.startswith('faster-vla demo: ')


def test_the_default_instruction_is_one_the_simulator_can_judge():
    assert task_for(module.DEFAULT_INSTRUCTION) in TASKS


# --- a whole demo with a stand-in for the graph -----------------------------------------------


class Graphless:
    """In place of supervisor, session, observer and runner: one episode comes out of it."""

    def __init__(self, success=True, frames=20, error=None):
        self.success, self.frames, self.error = success, frames, error
        self.events, self.job, self.arguments = [], None, {}

    def supervisor(self, graph, *, environment, sink):
        self.graph, self.environment, self.sink = graph, environment, sink
        return _Entered(self.events, 'processes')

    def session(self, **kwargs):
        self.arguments = kwargs
        return _Entered(self.events, 'session')

    def observer(self, session, *, on_chunk, on_frame):
        self.on_chunk, self.on_frame = on_chunk, on_frame

    def wait_ready(self, session, graph, supervisor):
        self.on_frame(-1.0, b'before the episode')

    def runner(self, session, observer, *, time_limit, check):
        self.time_limit = time_limit
        return self

    def run(self, job):
        self.job = job
        if self.error is not None:
            raise self.error
        picture = cv2.imencode('.jpg', np.full((96, 96, 3), 120, np.uint8))[1].tobytes()
        for i in range(self.frames):
            self.on_frame(i / 15, picture)
        self.on_chunk(record(accepted=True))
        return RosEpisode(
            seed=job.seed,
            task=job.task,
            instruction=job.instruction,
            success=self.success,
            seconds=4.2,
            num_chunks=9,
            rejected=('too_old',),
            timings=(TIMING,),
            observation_age_ms=(12.0,),
            first_command_ms=(30.0,),
            rows_executed=(4,),
            real_time_factor=0.987,
        )


class _Entered:
    def __init__(self, events, name):
        self._events, self._name = events, name

    def __enter__(self):
        self._events.append(f'{self._name} up')
        return self

    def __exit__(self, *_):
        self._events.append(f'{self._name} down')

    def check(self):
        pass


@pytest.fixture
def run_demo(monkeypatch, tmp_path):
    (tmp_path / 'checkpoint').mkdir()
    (tmp_path / 'checkpoint' / 'config.json').write_text('{}')

    def run(graphless, *arguments, out='out'):
        monkeypatch.setattr(module, 'Supervisor', graphless.supervisor)
        monkeypatch.setattr(module, 'Session', graphless.session)
        monkeypatch.setattr(module, 'Observer', graphless.observer)
        monkeypatch.setattr(module, 'wait_ready', graphless.wait_ready)
        monkeypatch.setattr(module, 'EpisodeRunner', graphless.runner)
        monkeypatch.setenv('ROS_DOMAIN_ID', '43')
        checkpoint = str(tmp_path / 'checkpoint')
        return main(['demo', '--out', str(tmp_path / out), '--checkpoint', checkpoint, *arguments])

    return run


def test_a_done_task_ends_with_status_0_a_video_and_a_contact_sheet(run_demo, tmp_path, capsys):
    graphless = Graphless()
    assert run_demo(graphless, '--instruction', 'Drive to the yellow post', '--seed', '3') == 0
    video, sheet = tmp_path / 'out' / 'drive_yellow-3.mp4', tmp_path / 'out' / 'drive_yellow-3.png'
    assert video.stat().st_size > 500 and cv2.imread(str(sheet)) is not None
    said = capsys.readouterr().out
    assert 'task done after 4.2 s, 9 chunks (1 rejected)' in said
    assert str(video) in said and str(sheet) in said
    assert 'chunk    7' in said
    assert graphless.events == ['processes up', 'session up', 'session down', 'processes down']


def test_a_task_not_done_ends_with_status_1_and_pictures_all_the_same(run_demo, tmp_path, capsys):
    assert run_demo(Graphless(success=False)) == 1
    streams = capsys.readouterr()
    assert 'task NOT done' in streams.out and 'exit status 1' in streams.err
    assert (tmp_path / 'out' / 'pick_red-1.mp4').is_file()


def test_json_is_one_object_on_the_last_line(run_demo, tmp_path, capsys):
    assert run_demo(Graphless(success=False), '--json') == 1
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last['success'] is False
    assert (last['task'], last['seed'], last['seconds']) == ('pick_red', 1, 4.2)
    assert (last['rtf'], last['rejected']) == (0.987, ['too_old'])
    assert last['video'] == str(tmp_path / 'out' / 'pick_red-1.mp4')


def test_motion_is_enabled_by_the_demo_itself_and_the_graph_is_isolated(run_demo):
    graphless = Graphless()
    run_demo(graphless, '--seed', '4', '--timeout', '9')
    parameters = graphless.graph.node('action_dispatcher').parameters
    assert parameters['require_enable'] is True
    robot = graphless.graph.node('mujoco_robot').parameters
    assert (
        (robot['seed'], robot['task'])
        == (4, 'pick_red')
        == (
            graphless.job.seed,
            graphless.job.task,
        )
    )
    assert graphless.environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert graphless.environment['ROS_DOMAIN_ID'] == str(graphless.arguments['domain']) == '43'
    assert graphless.time_limit == 9.0


def test_an_episode_without_pictures_tells_the_outcome_before_the_error(run_demo, capsys):
    assert run_demo(Graphless(frames=0)) == 2
    streams = capsys.readouterr()
    assert 'task done' in streams.out and 'no camera frame' in streams.err


def test_a_folder_that_cannot_be_written_is_named_after_the_outcome(run_demo, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert run_demo(Graphless(), out='file/out') == 2
    streams = capsys.readouterr()
    assert 'task done' in streams.out and 'could not write' in streams.err


@pytest.mark.parametrize(
    ('error', 'status'), [(SessionError('gone'), 2), (KeyboardInterrupt(), 130)]
)
def test_an_error_or_ctrl_c_ends_the_processes(run_demo, error, status):
    graphless = Graphless(error=error)
    assert run_demo(graphless) == status
    assert graphless.events[-1] == 'processes down'


@pytest.mark.parametrize(('arguments', 'shown'), [([], 1), (['--verbose'], 2)])
def test_only_warnings_of_the_nodes_are_shown_unless_asked(run_demo, capsys, arguments, shown):
    graphless = Graphless()
    run_demo(graphless, *arguments)
    capsys.readouterr()
    graphless.sink('policy_node', '[INFO] [1.0] [policy_node]: all is well')
    graphless.sink('policy_node', '[WARN] [1.0] [policy_node]: late')
    assert len(capsys.readouterr().out.splitlines()) == shown
