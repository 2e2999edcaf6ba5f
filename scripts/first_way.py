"""Which way a policy sets out to the posts: by what it sees, or by what its state says?

Of every scene the first chunk is taken at rest, and with a lateral speed of the base written into
the state, to the left and to the right. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

from faster_core import paths
from faster_core.observation import Observation
from faster_core.policy import Policy
from faster_core.provenance import git_commit
from faster_core.sim.demos import DemoConfig, through_jpeg
from faster_core.sim.r1_lite import R1LiteSim
from faster_core.sim.tasks import TASKS

SPEED = 0.1  # m/s
# As the demonstrations have them.
IMAGE_SIZE, JPEG_QUALITY = DemoConfig(episodes={}).image_size, DemoConfig(episodes={}).jpeg_quality


def measure(checkpoint: pathlib.Path, scenes: int, seed: int) -> dict[str, Any]:
    """Return how often the first chunk leads to the post's side, by what the state says."""
    policy, sim = Policy.from_pretrained(checkpoint, device='cpu'), R1LiteSim()
    robot = sim.embodiment
    base, lateral = robot.action_slices['base'], robot.state_slices['base'].start + 1
    drives = [name for name, task in TASKS.items() if task.motion == 'drive']
    right: dict[float, list[bool]] = {0.0: [], SPEED: [], -SPEED: []}
    along: dict[float, list[bool]] = {SPEED: [], -SPEED: []}
    for scene in range(seed, seed + scenes):
        for name in drives:
            sim.reset(scene, name)
            images = {
                c: through_jpeg(sim.render(c, IMAGE_SIZE), JPEG_QUALITY) for c in robot.cameras
            }
            for speed, found in right.items():
                state = np.array(sim.state(), dtype=np.float64)
                state[lateral] += speed
                observation = Observation(
                    images=images, state=state, instruction=sim.task.instruction, stamp=0.0
                )
                way = policy.predict(observation).values[:, base][:, 1].sum()
                found.append(bool(way * sim.data.body(sim.task.target).xpos[1] > 0.0))
                if speed:
                    along[speed].append(bool(way * speed > 0.0))
    return {
        'seeds': [seed, seed + scenes - 1],
        'chunks': len(right[0.0]),
        'right_way_at_rest': sum(right[0.0]),
        'moving': 2 * len(right[0.0]),
        'right_way_moving': sum(right[SPEED]) + sum(right[-SPEED]),
        'on_the_way_it_moves': sum(along[SPEED]) + sum(along[-SPEED]),
        'git_sha': git_commit(),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--checkpoint', type=pathlib.Path, default=paths.demo_checkpoint())
    parser.add_argument('--scenes', type=int, default=40)
    parser.add_argument('--seed', type=int, default=9000, help='9000-9999 choose checkpoints')
    args = parser.parse_args()
    print(json.dumps(measure(args.checkpoint, args.scenes, args.seed), indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
