"""The arms on a table as a URDF, made from the model that is simulated.

For robot_state_publisher and RViz: joints under the names that ROS knows them by, shapes, and the
cameras' optical frames. Speeds and efforts are 0, which means that nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from faster_core.sim.table_arms import DualArmSim, SingleArmSim, TableArms

ROOT_LINK = 'world'
_JOINTS = {mujoco.mjtJoint.mjJNT_HINGE: 'revolute', mujoco.mjtJoint.mjJNT_SLIDE: 'prismatic'}
# MuJoCo's cameras look along -z with y upwards, optical frames along z with y downwards.
_OPTICAL = np.diag([1.0, -1.0, -1.0])


def description(parameters: Mapping[str, Any]) -> str:
    """Return the URDF of what `mujoco_robot` plays; '' if it tells no joints by name.

    Args:
        parameters: of `mujoco_robot`: `robot`, `arm_model`.
    """
    if parameters.get('robot') == 'single_arm':
        return urdf(SingleArmSim(parameters.get('arm_model', 'fr3')), 'single_arm')
    if parameters.get('robot') == 'dual_arm':
        return urdf(DualArmSim(), 'dual_arm')
    return ''


def urdf(sim: TableArms, name: str) -> str:
    """Return the URDF of arms on a table; what lies there loosely is left out."""
    model = sim.model
    root = ElementTree.Element('robot', name=name)
    ElementTree.SubElement(root, 'link', name=ROOT_LINK)
    names = _ros_names(sim)
    for body in range(1, model.nbody):
        if any(model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE for j in _joints(model, body)):
            continue
        link = ElementTree.SubElement(root, 'link', name=model.body(body).name)
        for geom in range(model.ngeom):
            if model.geom_bodyid[geom] == body:
                _add_visual(link, model, geom)
        _add_joint(root, model, body, names)
    for camera in sim.cameras:
        _add_camera(root, model, camera)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode')


def _ros_names(sim: TableArms) -> dict[str, str]:
    """Return joint of the model -> name that ROS knows it by."""
    found = {}
    for part in sim.parts:
        prefix, kind = part.name[: -len(part.name.split('_')[-1])], part.name.split('_')[-1]
        inner = 'finger' if kind == 'gripper' else 'joint'
        found |= {f'{prefix}{inner}{i}': joint for i, joint in enumerate(part.joints, start=1)}
    return found


def _joints(model: mujoco.MjModel, body: int) -> range:
    first = int(model.body_jntadr[body])
    return range(first, first + int(model.body_jntnum[body]))


def _add_joint(
    root: ElementTree.Element, model: mujoco.MjModel, body: int, names: Mapping[str, str]
) -> None:
    """Add what holds a body to its parent: a joint of the robot, or nothing that moves."""
    inner = [model.joint(j).name for j in _joints(model, body)]
    own = model.body(body).name
    kind = _JOINTS[mujoco.mjtJoint(model.joint(inner[0]).type[0])] if inner else 'fixed'
    name = names.get(inner[0], inner[0]) if inner else f'{own}_fixed'
    parent = int(model.body_parentid[body])
    joint = ElementTree.SubElement(root, 'joint', name=name, type=kind)
    ElementTree.SubElement(joint, 'parent', link=_link(model, parent))
    ElementTree.SubElement(joint, 'child', link=own)
    _add_origin(joint, model.body_pos[body], _matrix(model.body_quat[body]))
    if not inner:
        return
    row = model.joint(inner[0])
    ElementTree.SubElement(joint, 'axis', xyz=_text(row.axis))
    lower, upper = row.range
    limit = {'lower': lower, 'upper': upper, 'effort': 0.0, 'velocity': 0.0}
    ElementTree.SubElement(joint, 'limit', {k: f'{v:.6g}' for k, v in limit.items()})
    if inner[0] not in names:
        leader = _partner(model, row.id)
        ElementTree.SubElement(joint, 'mimic', joint=names[leader])


def _partner(model: mujoco.MjModel, joint: int) -> str:
    """Return the joint that another one is coupled to."""
    for a, b in zip(model.eq_obj1id, model.eq_obj2id, strict=True):
        if joint in (a, b):
            return model.joint(a if b == joint else b).name
    raise ValueError(f'joint {model.joint(joint).name}: neither named nor coupled to another')


def _add_camera(root: ElementTree.Element, model: mujoco.MjModel, camera: str) -> None:
    inner = [model.camera(i).name for i in range(model.ncam)]
    row = model.camera(camera if camera in inner else camera.removeprefix('cam_'))
    frame = f'{camera}_optical_frame'
    ElementTree.SubElement(root, 'link', name=frame)
    joint = ElementTree.SubElement(root, 'joint', name=f'{frame}_fixed', type='fixed')
    ElementTree.SubElement(joint, 'parent', link=_link(model, int(row.bodyid[0])))
    ElementTree.SubElement(joint, 'child', link=frame)
    _add_origin(joint, row.pos, _matrix(row.quat) @ _OPTICAL)


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
