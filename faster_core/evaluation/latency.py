"""Latency of the policy alone: many inferences on fresh images, by stage."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import cv2
import numpy as np

from faster_core.chunk import StageTiming
from faster_core.evaluation.statistics import percentiles, stage_percentiles
from faster_core.observation import Observation
from faster_core.policy import Policy

WARMUP = 10
JPEG_QUALITY = 90


def random_observation(policy: Policy, rng: np.random.Generator) -> Observation:
    """Return an example whose images are random and came out of a JPEG decoder."""
    example = policy.make_example()
    size = policy.image_size
    images = {
        camera: _jpeg_decoded(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        for camera in example.images
    }
    return dataclasses.replace(example, images=images)


def measure(
    policy: Policy,
    *,
    iterations: int = 200,
    warmup: int = WARMUP,
    seed: int = 0,
    on_run: Callable[[], None] | None = None,
) -> list[StageTiming]:
    """Run the policy and return the timing of every inference after the warm-up.

    Args:
        policy: ready to run.
        iterations: inferences that count, at least 1.
        warmup: inferences before them.
        seed: of the images.
        on_run: called after every inference that counts.

    Raises:
        ValueError: no iterations.
    """
    if iterations < 1:
        raise ValueError(f'iterations: expected >= 1, found {iterations}')
    rng = np.random.default_rng(seed)
    policy.warmup(warmup)
    timings = []
    for _ in range(iterations):
        timings.append(policy.predict(random_observation(policy, rng)).timing)
        if on_run is not None:
            on_run()
    return timings


def summarize_latency(timings: list[StageTiming]) -> dict[str, Any]:
    """Return percentiles of the whole and of every stage, milliseconds."""
    totals = [t.total_ms for t in timings]
    return {
        'iterations': len(timings),
        'latency_ms': {
            **percentiles(totals),
            'mean': round(float(np.mean(totals)), 2),
            'max': round(max(totals), 2),
        },
        'stages_ms': stage_percentiles(timings),
    }


def _jpeg_decoded(image: np.ndarray) -> np.ndarray:
    ok, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise ValueError(f'could not encode an image of shape {image.shape}')
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
