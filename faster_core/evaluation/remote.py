"""What a policy server costs beside the inference itself, by image size and way of sending."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import cv2
import numpy as np

from faster_core.evaluation.statistics import percentiles
from faster_core.observation import Observation
from faster_core.remote.client import RemotePolicy
from faster_core.remote.wire import encode_jpeg

# (width, height): what the demo sees, what PaliGemma sees, what a camera sends.
SIZES = ((96, 96), (224, 224), (640, 480))
# camera: the cameras send JPEG files, which are passed on; jpeg, raw: arrays, sent as such.
WAYS = ('camera', 'jpeg', 'raw')
WARMUP = 20
_GRAIN = 8  # pixels per random dot: a scene is smoother than noise


def measure_overhead(
    address: str,
    *,
    size: tuple[int, int],
    way: str,
    iterations: int = 200,
    seed: int = 0,
    timeout: float = 10.0,
) -> dict[str, Any]:
    """Send fresh images to a policy server and return percentiles of the times, milliseconds.

    Args:
        address: 'host:port' of the server.
        size: width and height of the images of every camera, pixels.
        way: one of `WAYS`.
        iterations: calls that count, after `WARMUP` others.
        seed: of the images.
        timeout: seconds a call may take.

    Returns:
        `overhead_ms` is the whole call less `Policy.predict` in the server. `decode_ms`, a part of
        it, is the decoding of the images there, which a node with a policy of its own does too.

    Raises:
        ValueError: no iterations, or an unknown way.
        RemoteError: no server there.
    """
    if iterations < 1 or way not in WAYS:
        raise ValueError(
            f'expected iterations >= 1 and a way of {WAYS}, found {iterations}, {way}'
        )
    rng, calls = np.random.default_rng(seed), []
    with RemotePolicy(
        address, timeout=timeout, images='raw' if way == 'raw' else 'jpeg'
    ) as policy:
        example = policy.make_example()
        for index in range(WARMUP + iterations):
            policy.predict(_observation(example, rng, size, way))
            if index >= WARMUP:
                calls.append(policy.last_call)
    return {
        'width': size[0],
        'height': size[1],
        'images': way,
        'iterations': iterations,
        'cameras': len(example.images),
        'request_kb': round(float(np.mean([c.num_bytes for c in calls])) / 1e3, 1),
        'overhead_ms': percentiles([c.total_ms - c.predict_ms for c in calls]),
        'overhead_less_decode_ms': percentiles(
            [c.total_ms - c.predict_ms - c.decode_ms for c in calls]
        ),
        'decode_ms': percentiles([c.decode_ms for c in calls]),
        'predict_ms': percentiles([c.predict_ms for c in calls]),
        'total_ms': percentiles([c.total_ms for c in calls]),
    }


def _observation(
    example: Observation, rng: np.random.Generator, size: Sequence[int], way: str
) -> Observation:
    width, height = size
    dots = (max(1, height // _GRAIN), max(1, width // _GRAIN), 3)
    images = {}
    for camera in example.images:
        image = cv2.resize(
            rng.integers(0, 256, dots, dtype=np.uint8),
            (width, height),
            None,
            0,
            0,
            cv2.INTER_CUBIC,
        )
        images[camera] = encode_jpeg(image) if way == 'camera' else image
    return dataclasses.replace(example, images=images)
