"""Where a URDF puts its links: written anew, to judge the URDF that the simulation makes."""

import numpy as np

from faster_core.sim.urdf import ROOT_LINK


def rotation(axis, angle):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pose(xyz, matrix):
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, xyz
    return full


def numbers(element, key):
    return [float(v) for v in element.get(key).split()]


def forward(robot, positions):
    """Return link -> pose in the root link [4, 4] for joint positions by name."""
    joints = {j.find('child').get('link'): j for j in robot.findall('joint')}

    def of(link):
        if link == ROOT_LINK:
            return np.eye(4)
        joint = joints[link]
        origin = joint.find('origin')
        roll, pitch, yaw = numbers(origin, 'rpy')
        turned = rotation([0, 0, 1], yaw) @ rotation([0, 1, 0], pitch) @ rotation([1, 0, 0], roll)
        placed = pose(numbers(origin, 'xyz'), turned)
        mimic = joint.find('mimic')
        if joint.get('type') != 'fixed':
            name, share = joint.get('name'), 1.0
            if mimic is not None:
                name, share = mimic.get('joint'), float(mimic.get('multiplier'))
            axis, value = np.array(numbers(joint.find('axis'), 'xyz')), share * positions[name]
            if joint.get('type') == 'prismatic':
                placed = placed @ pose(axis * value, np.eye(3))
            else:
                placed = placed @ pose([0, 0, 0], rotation(axis, value))
        return of(joint.find('parent').get('link')) @ placed

    return {link: of(link) for link in joints}
