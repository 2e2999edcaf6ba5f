"""Pictures of a MuJoCo scene: one renderer per size, without shadows and reflections."""

from __future__ import annotations

import atexit

import mujoco
import numpy as np


class Renderers:
    """The renderers of one model; they belong to the thread that first renders."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Make none yet."""
        self._model = model
        self._by_size: dict[tuple[int, int], mujoco.Renderer] = {}

    def render(self, data: mujoco.MjData, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Return what a camera of the model sees.

        Args:
            data: state of the model.
            camera: name in the model.
            size: (width, height) in pixels.

        Returns:
            RGB uint8 [height, width, 3].
        """
        width, height = size
        renderer = self._by_size.get((width, height))
        if renderer is None:
            renderer = mujoco.Renderer(self._model, height, width)
            # Registered after mujoco's own exit hook, hence run before it: contexts must be
            # freed while the GL display still exists.
            atexit.register(self.close)
            flags = renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            self._by_size[width, height] = renderer
        renderer.update_scene(data, camera)
        return renderer.render()

    def close(self) -> None:
        """Free the renderers."""
        while self._by_size:
            self._by_size.popitem()[1].close()
