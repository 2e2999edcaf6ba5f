"""Layouts for RViz and Foxglove, and the diagnostics tree: valid files about what is there."""

import json
import re

from project_files import ROOT
import pytest
from robot_files import parameters
import yaml

from faster_vla_ros.graph import GRAPHS

CONFIG = ROOT / 'config'
# What the nodes publish and offer beside what a robot file names -> where it stands.
OWN_TOPICS = {
    'policy_node/status': 'policy_status.py',
    'action_dispatcher/state': 'dispatcher_status.py',
    'action_dispatcher/planned': 'dispatcher_status.py',
    'action_dispatcher/planned_path': 'planned_path.py',
}
DESCRIPTION = 'robot_description'
SERVICES = {f'action_dispatcher/{s}': 'action_dispatcher.py' for s in ('enable', 'stop', 'reset')}
SHARED = {'/diagnostics', 'instruction', DESCRIPTION}
DISPLAYS = {'Grid', 'RobotModel', 'TF', 'Path', 'Image'}
PANELS = {
    *('Image', 'Plot', 'RawMessages', 'DiagnosticSummary', 'Publish', 'CallService', '3D'),
}

graphs = pytest.mark.parametrize('name', GRAPHS)


def topics_of(name):
    """Return the topics that are there when the graph runs in simulation."""
    made = GRAPHS[name](nodes=['mujoco_robot', 'action_dispatcher'])
    (file,) = made.node('action_dispatcher').parameter_files
    named = {
        value
        for node in ('policy_node', 'action_dispatcher')
        for key, value in parameters(file, node).items()
        if key.rpartition('.')[2] == 'topic'
    }
    return named | set(OWN_TOPICS) | SHARED


def absolute(names):
    return {n if n.startswith('/') else f'/{n}' for n in names}


def rviz(name):
    return yaml.safe_load((CONFIG / 'rviz' / f'{name}.rviz').read_text(encoding='utf-8'))


def foxglove(name):
    return json.loads((CONFIG / 'foxglove' / f'{name}.json').read_text(encoding='utf-8'))


def found(value, keys):
    """Return the values of some keys, wherever they stand."""
    if isinstance(value, dict):
        here = [v for k, v in value.items() if k in keys and isinstance(v, str)]
        return here + [v for child in value.values() for v in found(child, keys)]
    if isinstance(value, list):
        return [v for child in value for v in found(child, keys)]
    return []


def test_every_graph_has_both_layouts_and_there_are_no_others():
    assert {p.stem for p in (CONFIG / 'rviz').iterdir()} == set(GRAPHS)
    assert {p.stem for p in (CONFIG / 'foxglove').iterdir()} == set(GRAPHS)


@pytest.mark.parametrize(('name', 'file'), [*OWN_TOPICS.items(), *SERVICES.items()])
def test_names_of_our_nodes_stand_in_their_code(name, file):
    text = (ROOT / 'faster_vla_ros' / file).read_text(encoding='utf-8')
    assert f"'~/{name.split('/')[1]}'" in text


@graphs
def test_rviz_shows_topics_of_the_graph_only(name):
    displays = rviz(name)['Visualization Manager']['Displays']
    topics = [d[key]['Value'] for d in displays for key in d if key.endswith('Topic')]
    assert len(topics) >= 3
    assert set(topics) <= topics_of(name)
    assert {d['Class'] for d in displays} <= {f'rviz_default_plugins/{d}' for d in DISPLAYS}


@graphs
def test_rviz_shows_every_camera_best_effort(name):
    displays = rviz(name)['Visualization Manager']['Displays']
    images = [d for d in displays if d['Class'].endswith('/Image')]
    made = GRAPHS[name](nodes=['mujoco_robot', 'action_dispatcher'])
    policy = parameters(made.node('action_dispatcher').parameter_files[0], 'policy_node')
    assert [d['Topic']['Value'] for d in images] == [
        policy[f'{c}.topic'] for c in policy['cameras']
    ]
    assert {d['Topic']['Reliability Policy'] for d in images} == {'Best Effort'}


@graphs
def test_rviz_takes_the_description_of_the_robot_as_it_is_latched(name):
    displays = rviz(name)['Visualization Manager']['Displays']
    (model,) = [d for d in displays if d['Class'].endswith('/RobotModel')]
    assert model['Description Topic']['Value'] == DESCRIPTION
    assert model['Description Topic']['Durability Policy'] == 'Transient Local'
    text = (ROOT / 'faster_vla_ros' / 'robot_description.py').read_text(encoding='utf-8')
    assert f"'{DESCRIPTION}', qos.LATCHED" in text


@graphs
def test_foxglove_shows_topics_and_calls_services_of_the_graph_only(name):
    panels = foxglove(name)['configById']
    topics = found(panels, {'imageTopic', 'topicPath', 'topicName', 'topicToRender'})
    topics += [path['value'].split('.')[0] for p in panels.values() for path in p.get('paths', [])]
    topics += [t for p in panels.values() for t in p.get('topics', {})]
    assert len(topics) >= 6
    assert set(topics) <= absolute(topics_of(name))
    services = found(panels, {'serviceName'})
    assert set(services) == absolute(SERVICES)
    for payload in found(panels, {'requestPayload'}):
        json.loads(payload)


@graphs
def test_foxglove_shows_the_robot_where_it_shows_frames(name):
    views = [p for n, p in foxglove(name)['configById'].items() if n.startswith('3D!')]
    assert [p['topics'][f'/{DESCRIPTION}'] for p in views] == [{'visible': True}]


@graphs
def test_foxglove_places_every_panel_once_and_knows_its_kind(name):
    layout = foxglove(name)

    def leaves(node):
        if isinstance(node, str):
            return [node]
        assert node['direction'] in ('row', 'column')
        assert 0 < node['splitPercentage'] < 100
        return leaves(node['first']) + leaves(node['second'])

    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    assert {panel.split('!')[0] for panel in layout['configById']} <= PANELS


def test_the_dispatchers_diagnostics_have_a_place_in_the_aggregator():
    tree = yaml.safe_load((CONFIG / 'diagnostics' / 'aggregator.yaml').read_text(encoding='utf-8'))
    groups = [v for v in tree['analyzers']['ros__parameters'].values() if isinstance(v, dict)]
    text = (ROOT / 'faster_vla_ros' / 'dispatcher_status.py').read_text(encoding='utf-8')
    tasks = re.findall(r"'(state|chunks|feedback|tick)'", text)
    assert set(tasks) == {'state', 'chunks', 'feedback', 'tick'}
    for task in tasks:
        name = f'action_dispatcher: {task}'
        assert [g for g in groups if any(map(name.startswith, g.get('startswith', [])))]
