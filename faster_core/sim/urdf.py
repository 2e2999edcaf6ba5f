"""A simulated robot as a URDF, made from the model that is simulated.

For robot_state_publisher and RViz: joints under the names that ROS knows them by, shapes, and the
cameras' optical frames. Speeds and efforts are 0, which means that nothing is said of them.

The root is the world. A base stands on joints of its own, two slides and a turn, so that whoever
knows them knows where the robot is; a slide without an end gets one, as a URDF wants it. A gripper
that is measured by its stroke has a joint without a shape for it, and each finger goes its share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from faster_core.sim.robot import make_robot, SimulatedRobot

ROOT_LINK = 'world'
# Metres that a slide without an end is said to have to either side.
FAR = 100.0
_JOINTS = {mujoco.mjtJoint.mjJNT_HINGE: 'revolute', mujoco.mjtJoint.mjJNT_SLIDE: 'prismatic'}
# MuJoCo's cameras look along -z with y upwards, optical frames along z with y downwards.
_OPTICAL = np.diag([1.0, -1.0, -1.0])


def description(parameters: Mapping[str, Any]) -> str:
    """Return the URDF of what `mujoco_robot` plays.

    Args:
        parameters: of `mujoco_robot`: `robot`, `arm_model`; its defaults where left out.

    Raises:
        ConfigError: unknown robot or arm.
    """
    name = parameters.get('robot', 'r1_lite')
    return urdf(make_robot(name, arm_model=parameters.get('arm_model', '')), name)


def urdf(sim: SimulatedRobot, name: str, joints: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the URDF of a robot; what stands or lies around it is left out.

    Args:
        sim: the robot.
        name: of the robot in the URDF.
        joints: part -> names of its joints, where they are not those of `sim.parts`.

    Raises:
        ValueError: a joint moves that nobody tells.
    """
    model = sim.model
    root = ElementTree.Element('robot', name=name)
    ElementTree.SubElement(root, 'link', name=ROOT_LINK)
    names, strokes = _ros_names(sim, joints or {})
    followers = _followers(model, names, strokes)
    for body in range(1, model.nbody):
        if _is_loose(model, body):
            continue
        link = ElementTree.SubElement(root, 'link', name=model.body(body).name)
        for geom in range(model.ngeom):
            if model.geom_bodyid[geom] == body:
                _add_visual(link, model, geom)
        _add_joints(root, model, body, names, followers)
    for stroke, fingers in strokes.items():
        _add_stroke(root, model, stroke, fingers)
    for camera, inner in sim.camera_names.items():
        _add_camera(root, model, camera, inner)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode')


def _ros_names(
    sim: SimulatedRobot, joints: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return joint of the model -> name in ROS, and name of a stroke -> fingers of the model."""
    names: dict[str, str] = {}
    strokes: dict[str, tuple[str, ...]] = {}
    for part in sim.parts:
        told, inner = joints.get(part.name, part.joints), part.model_joints or part.joints
        if len(told) == len(inner):
            names |= zip(inner, told, strict=True)
        else:
            strokes[told[0]] = inner
    return names, strokes


def _followers(
    model: mujoco.MjModel, names: Mapping[str, str], strokes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, float]]:
    """Return joint of the model -> joint in ROS that it follows, and how much of its way."""
    found = {f: (stroke, 1 / len(all_)) for stroke, all_ in strokes.items() for f in all_}
    for row in np.flatnonzero(model.eq_type == mujoco.mjtEq.mjEQ_JOINT):
        pair = model.eq_obj1id[row], model.eq_obj2id[row]
        if min(pair) < 0:
            continue  # held at a place of its own
        a, b = (model.joint(j).name for j in pair)
        found |= {one: (names[other], 1.0) for one, other in ((a, b), (b, a)) if other in names}
    return found


def _is_loose(model: mujoco.MjModel, body: int) -> bool:
    """Return whether a body is none of the robot: it lies somewhere, or is placed by hand."""
    free = any(model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE for j in _joints(model, body))
    return free or model.body_mocapid[body] >= 0


def _joints(model: mujoco.MjModel, body: int) -> range:
    first = int(model.body_jntadr[body])
    return range(first, first + int(model.body_jntnum[body]))


def _add_joints(
    root: ElementTree.Element,
    model: mujoco.MjModel,
    body: int,
    names: Mapping[str, str],
    followers: Mapping[str, tuple[str, float]],
) -> None:
    """Add what holds a body to its parent: joints, with links between them, or a fixed one."""
    own, parent = model.body(body).name, _link(model, int(model.body_parentid[body]))
    pose = model.body_pos[body], _matrix(model.body_quat[body])
    rows = [model.joint(j) for j in _joints(model, body)]
    if not rows:
        _add_joint(root, f'{own}_fixed', 'fixed', (parent, own), pose)
    for row in rows:
        if row.name not in names and row.name not in followers:
            raise ValueError(f'joint {row.name}: neither named nor coupled to one that is')
        name = names.get(row.name, row.name)
        child = own if row is rows[-1] else f'{name}_link'
        if child != own:
            ElementTree.SubElement(root, 'link', name=child)
        kind, limited = _JOINTS[mujoco.mjtJoint(row.type[0])], bool(model.jnt_limited[row.id])
        kind = 'continuous' if kind == 'revolute' and not limited else kind
        joint = _add_joint(root, name, kind, (parent, child), pose)
        ElementTree.SubElement(joint, 'axis', xyz=_text(row.axis))
        if kind != 'continuous':
            _add_limit(joint, *(row.range if limited else (-FAR, FAR)))
        if row.name in followers:
            leader, share = followers[row.name]
            ElementTree.SubElement(joint, 'mimic', joint=leader, multiplier=f'{share:.6g}')
        parent, pose = child, (np.zeros(3), np.eye(3))


def _add_stroke(
    root: ElementTree.Element, model: mujoco.MjModel, stroke: str, fingers: Sequence[str]
) -> None:
    """Add the joint that is as far out as all fingers together; nothing hangs on it."""
    first = model.joint(fingers[0])
    palm = int(model.body_parentid[model.jnt_bodyid[first.id]])
    ElementTree.SubElement(root, 'link', name=f'{stroke}_link')
    ends = _link(model, palm), f'{stroke}_link'
    joint = _add_joint(root, stroke, 'prismatic', ends, (np.zeros(3), np.eye(3)))
    ElementTree.SubElement(joint, 'axis', xyz=_text(first.axis))
    _add_limit(joint, *sum(model.joint(f).range for f in fingers))


def _add_joint(
    root: ElementTree.Element,
    name: str,
    kind: str,
    ends: tuple[str, str],
    pose: tuple[np.ndarray, np.ndarray],
) -> ElementTree.Element:
    """Add a joint from a parent to a child, whose pose at zero is (xyz, matrix)."""
    joint = ElementTree.SubElement(root, 'joint', name=name, type=kind)
    for tag, link in zip(('parent', 'child'), ends, strict=True):
        ElementTree.SubElement(joint, tag, link=link)
    _add_origin(joint, *pose)
    return joint


def _add_limit(joint: ElementTree.Element, lower: float, upper: float) -> None:
    limit = {'lower': lower, 'upper': upper, 'effort': 0.0, 'velocity': 0.0}
    ElementTree.SubElement(joint, 'limit', {k: f'{v:.6g}' for k, v in limit.items()})


def _add_camera(root: ElementTree.Element, model: mujoco.MjModel, name: str, inner: str) -> None:
    row, frame = model.camera(inner), f'{name}_optical_frame'
    ElementTree.SubElement(root, 'link', name=frame)
    ends, pose = (_link(model, int(row.bodyid[0])), frame), (row.pos, _matrix(row.quat) @ _OPTICAL)
    _add_joint(root, f'{frame}_fixed', 'fixed', ends, pose)


def _add_visual(link: ElementTree.Element, model: mujoco.MjModel, geom: int) -> None:
    size, kind = model.geom_size[geom], mujoco.mjtGeom(model.geom_type[geom])
    shapes = {
        mujoco.mjtGeom.mjGEOM_BOX: ('box', {'size': _text(2 * size)}),
        mujoco.mjtGeom.mjGEOM_SPHERE: ('sphere', {'radius': f'{size[0]:.6g}'}),
    }
    rod = ('cylinder', {'radius': f'{size[0]:.6g}', 'length': f'{2 * size[1]:.6g}'})
    shapes |= {mujoco.mjtGeom.mjGEOM_CYLINDER: rod, mujoco.mjtGeom.mjGEOM_CAPSULE: rod}
    if kind not in shapes:
        return
    visual = ElementTree.SubElement(link, 'visual')
    _add_origin(visual, model.geom_pos[geom], _matrix(model.geom_quat[geom]))
    tag, attributes = shapes[kind]
    ElementTree.SubElement(ElementTree.SubElement(visual, 'geometry'), tag, attributes)
    material = ElementTree.SubElement(visual, 'material', name=f'geom{geom}')
    ElementTree.SubElement(material, 'color', rgba=_text(model.geom_rgba[geom]))


def _link(model: mujoco.MjModel, body: int) -> str:
    return model.body(body).name if body else ROOT_LINK


def _add_origin(element: ElementTree.Element, xyz: np.ndarray, matrix: np.ndarray) -> None:
    """Write a pose: roll, pitch and yaw about fixed axes, as URDF has them."""
    pitch = np.arcsin(np.clip(-matrix[2, 0], -1.0, 1.0))
    if abs(matrix[2, 0]) < 1.0 - 1e-9:
        roll = np.arctan2(matrix[2, 1], matrix[2, 2])
        yaw = np.arctan2(matrix[1, 0], matrix[0, 0])
    else:  # roll and yaw turn about one axis
        roll, yaw = 0.0, np.arctan2(-matrix[0, 1], matrix[1, 1])
    ElementTree.SubElement(element, 'origin', xyz=_text(xyz), rpy=_text((roll, pitch, yaw)))


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, dtype=float))
    return matrix.reshape(3, 3)


def _text(values: Sequence[float]) -> str:
    return ' '.join(f'{float(v) + 0.0:.6g}' for v in values)
