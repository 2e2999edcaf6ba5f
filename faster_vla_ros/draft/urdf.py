"""A URDF, for drafts and the doctor: the tree of joints, what mimics what, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from xml.etree import ElementTree
from xml.parsers import expat

from faster_core.errors import ConfigError

MOVABLE = ('revolute', 'continuous', 'prismatic')
# A URDF is some kilobytes; what is larger is not one, or means no good.
MAX_BYTES = 20_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """One joint.

    Attributes:
        name: of the joint.
        kind: type in the URDF.
        parent, child: links.
        lower, upper: rad or m; infinite where there is no range.
        velocity: rad/s or m/s; infinite where none is given.
        mimics: joint that it follows; '' if it moves by itself.
    """

    name: str
    kind: str
    parent: str
    child: str
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    mimics: str = ''

    @property
    def moves(self) -> bool:
        """Whether it has a motor of its own."""
        return self.kind in MOVABLE and not self.mimics

    @property
    def unlimited(self) -> tuple[str, ...]:
        """What a motor needs and the URDF does not say."""
        missing = [] if math.isfinite(self.velocity) else ['velocity']
        if self.kind != 'continuous' and not math.isfinite(self.lower):
            missing.append('range')
        return tuple(missing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robot:
    """A URDF.

    Attributes:
        name: of the robot.
        joints: name -> joint, in the order of the file.
    """

    name: str
    joints: Mapping[str, Joint]

    def chain(self, tip: str) -> tuple[Joint, ...]:
        """Return the joints with motors from the root to a link.

        Raises:
            ConfigError: no such link.
        """
        above = {j.child: j for j in self.joints.values()}
        if tip not in above:
            known = ', '.join(self.tips)
            raise ConfigError(f'link {tip}: expected one of the URDF, such as {known}')
        found: list[Joint] = []
        while tip in above:
            found.append(above[tip])
            tip = above[tip].parent
        return tuple(j for j in reversed(found) if j.moves)

    def below(self, link: str) -> tuple[Joint, ...]:
        """Return all joints of the tree that hangs on a link, nearer ones first."""
        found, links = [], [link]
        while links:
            children = [j for j in self.joints.values() if j.parent in links]
            found += children
            links = [j.child for j in children]
        return tuple(found)

    @property
    def tips(self) -> tuple[str, ...]:
        """Links on which nothing hangs."""
        parents = {j.parent for j in self.joints.values()}
        return tuple(j.child for j in self.joints.values() if j.child not in parents)

    @property
    def followers(self) -> Mapping[str, tuple[Joint, ...]]:
        """Return joint -> the joints that mimic it."""
        found: dict[str, tuple[Joint, ...]] = {}
        for joint in self.joints.values():
            if joint.mimics:
                found[joint.mimics] = (*found.get(joint.mimics, ()), joint)
        return found


def load(path: str | pathlib.Path) -> Robot:
    """Read a URDF file.

    Raises:
        ConfigError: it cannot be read, is not a URDF, or is a xacro that was not expanded.
    """
    path = pathlib.Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f'{path}: expected a URDF, at most {MAX_BYTES} bytes')
        content = path.read_bytes()
    except OSError as e:
        raise ConfigError(f'{path}: {e.strerror or e}') from e
    try:
        return parse(content)
    except ConfigError as e:
        raise ConfigError(f'{path}: {e}') from e


def parse(content: str | bytes) -> Robot:
    """Read a URDF.

    Raises:
        ConfigError: not XML, a document with entities, not a robot, a xacro, not one tree.
    """
    root = _tree(content)
    if root.tag != 'robot':
        raise ConfigError(f'expected <robot> at the top, found <{root.tag}>')
    _refuse_xacro(root)
    elements = root.findall('joint')
    joints = [_joint(e) for e in elements]
    _check(joints)
    return Robot(name=root.get('name', ''), joints={j.name: j for j in joints})


def _refuse_xacro(root: ElementTree.Element) -> None:
    for element in root.iter():
        found = [v for v in element.attrib.values() if '${' in v or '$(' in v]
        if element.tag.startswith('{') and 'xacro' in element.tag:
            found = [f'<xacro:{element.tag.rpartition("}")[2]}>']
        if found:
            raise ConfigError(
                f'found {found[0]}: this is a xacro, expand it first (`xacro robot.urdf.xacro > '
                'robot.urdf`)'
            )


def _tree(content: str | bytes) -> ElementTree.Element:
    """Parse XML that declares no entities: they expand without bound, or read other files."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator='}')

    def refuse(name: str, *_: object) -> None:
        raise ConfigError(f'found the entity {name}: expected a URDF without a DTD')

    def start(name: str, attributes: dict[str, str]) -> None:
        builder.start(_qualified(name), attributes)

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: builder.end(_qualified(name))
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError) as e:
        raise ConfigError(f'expected XML, found an error: {e}') from e


def _qualified(name: str) -> str:
    return f'{{{name}' if '}' in name else name


def _joint(element: ElementTree.Element) -> Joint:
    name, kind = element.get('name', ''), element.get('type', '')
    ends = {}
    for end in ('parent', 'child'):
        child = element.find(end)
        if child is None or not child.get('link'):
            raise ConfigError(f'joint {name}: expected <{end} link="…">, found none')
        ends[end] = child.get('link')
    mimic = element.find('mimic')
    return Joint(
        name=name,
        kind=kind,
        mimics='' if mimic is None else mimic.get('joint', ''),
        **ends,
        **_limits(name, kind, element.find('limit')),
    )


def _limits(name: str, kind: str, limit: ElementTree.Element | None) -> dict[str, float]:
    """Return what is limited; exporters write 0 for what they do not know."""
    if limit is None:
        return {}
    found = {key: _number(name, key, limit.get(key, '0')) for key in _LIMITS}
    result = {}
    if kind != 'continuous' and found['lower'] < found['upper']:
        result |= {'lower': found['lower'], 'upper': found['upper']}
    if found['velocity'] > 0:
        result['velocity'] = found['velocity']
    return result


_LIMITS = ('lower', 'upper', 'velocity')


def _number(joint: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as e:
        raise ConfigError(f'joint {joint}: {key}: expected a number, found {text!r}') from e
    if not math.isfinite(value):
        raise ConfigError(f'joint {joint}: {key}: expected a finite number, found {text!r}')
    return value


def _check(joints: Sequence[Joint]) -> None:
    """Refuse what is no tree of joints."""
    names = [j.name for j in joints]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f'joints named twice: {", ".join(twice)}')
    children = [j.child for j in joints]
    if twice := sorted({c for c in children if children.count(c) > 1}):
        raise ConfigError(f'links with two parents: {", ".join(twice)}')
    if not any(j.moves for j in joints):
        raise ConfigError('expected joints that move, found none')
    above = {j.child: j.parent for j in joints}
    for start in above:
        seen, link = {start}, above[start]
        while link in above:
            if link in seen:
                raise ConfigError(f'link {link}: its parents go round in a circle')
            seen.add(link)
            link = above[link]
    for joint in joints:
        if joint.mimics and joint.mimics not in names:
            raise ConfigError(f'joint {joint.name} mimics {joint.mimics}, which does not exist')
