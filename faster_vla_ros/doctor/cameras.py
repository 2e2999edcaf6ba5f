"""Pictures: usable, of one size, large enough for the model, and not twice the same."""

from __future__ import annotations

from collections.abc import Iterator
import itertools

from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.inputs import Input
from faster_vla_ros.doctor.report import fail, Finding, ok, warn
from faster_vla_ros.doctor.snapshot import Heard, Snapshot

SIDES = ('left', 'right')


def check_pictures(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at what every camera sent."""
    cameras = [i for i in expected.inputs if i.camera and snapshot.of(i.topic).arrivals]
    for each in cameras:
        yield _picture(each, snapshot.of(each.topic), expected.checkpoint.image_size)
    for a, b in itertools.combinations(cameras, 2):
        own = snapshot.of(a.topic).pictures
        if same := own & snapshot.of(b.topic).pictures:
            yield warn(
                'picture',
                a.subject,
                f'{len(same)} of {len(own)} different pictures are those of {b.subject}',
                expected='two cameras that see different things',
                advice='look for a topic given twice, a camera with two names, or covered lenses',
            )


def _picture(each: Input, heard: Heard, least: int | None) -> Finding:
    if heard.refused:
        why, number = heard.refused.most_common(1)[0]
        return fail(
            'picture',
            each.subject,
            f'{number} of {len(heard.arrivals)} refused: {why}',
            expected='8-bit colour or grey, JPEG or PNG',
            advice='change the encoding in the driver',
        )
    if heard.undecodable:
        return fail(
            'picture',
            each.subject,
            heard.undecodable,
            expected='a picture that can be decoded',
            advice='look at driver and network',
        )
    sizes = ', '.join(f'{w} x {h}' for w, h in heard.sizes)
    if len(heard.sizes) > 1:
        return fail(
            'picture',
            each.subject,
            f'sizes change: {sizes}',
            expected='one size; others than the first are refused',
            advice='look for a second publisher, or a driver that changes its mode',
        )
    if least is not None and min(min(size) for size in heard.sizes) < least:
        return warn(
            'picture',
            each.subject,
            sizes,
            expected=f'at least {least} pixels each way: the model looks at {least} x {least}',
            advice='choose a larger mode of the camera',
        )
    return ok('picture', each.subject, sizes)


def check_sides(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare 'left' and 'right' in names of components and of their topics.

    That two topics are not swapped cannot be proven: only a look at the pictures tells.
    """
    del snapshot
    names = [(i.camera, i.topic) for i in expected.inputs if i.camera]
    for each in expected.inputs:
        names += [(n.removesuffix(' feedback'), each.topic) for n in each.sources]
    if expected.dispatcher is not None:
        names += [(n, c.topic or c.action) for n, (_, c) in expected.dispatcher.outputs.items()]
    for name, topic in dict.fromkeys(names):
        for side, other in (SIDES, SIDES[::-1]):
            if side in name.lower() and other in topic.lower() and side not in topic.lower():
                yield warn(
                    'sides',
                    name,
                    f'its topic is {topic}',
                    expected=f'one with {side} in its name, or neither',
                    advice='look whether left and right are exchanged in the parameter file',
                )
