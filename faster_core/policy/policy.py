"""The policy as a user sees it: an observation in, a chunk in physical units out."""

from __future__ import annotations

import pathlib
import time

import numpy as np
import torch

from faster_core.chunk import ActionChunk, StageTiming
from faster_core.data.reference import reference_of
from faster_core.decoding.blockwise import decode
from faster_core.decoding.cache import StaticKV
from faster_core.decoding.sampling import SamplingConfig
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, DecodeError
from faster_core.observation import Observation
from faster_core.policy import checkpoint
from faster_core.policy.images import to_square
from faster_core.policy.inputs import state_input

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
ENGINES = ('eager',)


class Policy:
    """FASTerVLA with its tokenizer, ready to run. Not thread-safe: one inference at a time."""

    def __init__(
        self,
        parts: checkpoint.PolicyParts,
        *,
        device: str = 'auto',
        dtype: str = 'auto',
        engine: str = 'auto',
        temperature: float = 0.0,
        top_k: int = 50,
        seed: int = 0,
    ) -> None:
        """Move the parts of a checkpoint to a device.

        Args:
            parts: what `checkpoint.load` returns.
            device: 'auto' (CUDA if there is one), 'cpu', 'cuda', 'cuda:1', …
            dtype: 'auto' (bfloat16 on CUDA, float32 elsewhere), 'float32' or 'bfloat16'.
            engine: 'auto' or 'eager'.
            temperature: 0 is greedy.
            top_k: tokens drawn from when the temperature is positive.
            seed: of the drawing.

        Raises:
            ConfigError: an unknown device, dtype or engine.
        """
        if engine not in ('auto', *ENGINES):
            raise ConfigError(f'engine: expected auto or {", ".join(ENGINES)}, found {engine!r}')
        self._device = _device(device)
        if dtype == 'auto':
            dtype = 'bfloat16' if self._device.type == 'cuda' else 'float32'
        if dtype not in DTYPES:
            raise ConfigError(f'dtype: expected auto or {", ".join(DTYPES)}, found {dtype!r}')
        self._parts = parts
        self._model = parts.model.to(self._device, DTYPES[dtype]).eval()
        self._tokenizer = parts.tokenizer
        self._tokenizer.model.to(self._device)
        self._sampling = SamplingConfig(temperature=temperature, top_k=top_k)
        self._generator = torch.Generator(self._device)
        self._seed = seed
        self._cache: StaticKV | None = None
        self._sequence_id = 0
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        path: str | pathlib.Path,
        device: str = 'auto',
        dtype: str = 'auto',
        engine: str = 'auto',
        temperature: float = 0.0,
        top_k: int = 50,
        seed: int = 0,
    ) -> Policy:
        """Load a checkpoint folder; see `__init__` for the arguments.

        Raises:
            CheckpointError: the folder is missing, damaged or its parts do not fit.
            ConfigError: an unknown device, dtype or engine.
        """
        return cls(
            checkpoint.load(path),
            device=device,
            dtype=dtype,
            engine=engine,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )

    @property
    def embodiment(self) -> Embodiment:
        """The robot this policy was trained for."""
        return self._parts.embodiment

    @property
    def image_size(self) -> int:
        """Side of the square the policy sees, pixels."""
        return self._parts.config.image_size

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: sampling starts from `seed` (default: the policy's own) again."""
        self._generator.manual_seed(self._seed if seed is None else seed)
        self._sequence_id = 0

    def check_instruction(self, text: str) -> None:
        """Refuse an empty, over-long or unknown instruction (InstructionError)."""
        self._parts.text.check(text)

    def make_example(self) -> Observation:
        """Return an observation of the right shapes: grey images, the mean state."""
        size = self.image_size
        grey = np.full((size, size, 3), 127, dtype=np.uint8)
        return Observation(
            images=dict.fromkeys(self.embodiment.cameras, grey),
            state=self._parts.state.centre.copy(),
            instruction=self._parts.text.known_words(),
        )

    def warmup(self, iterations: int = 3) -> None:
        """Run a few inferences so that the first real one is not slow."""
        example = self.make_example()
        for _ in range(iterations):
            self.predict(example)
        self.reset()

    @torch.inference_mode()
    def predict(self, observation: Observation, num_levels: int | None = None) -> ActionChunk:
        """Compute the chunk for an observation.

        Args:
            observation: images of any size, state in SI units, instruction.
            num_levels: decode only the first levels of the residual quantiser (faster, coarser).

        Returns:
            Chunk in SI units with codes and the time of every stage; row 0 is due one step
            period after the observation.

        Raises:
            ObservationError, InstructionError: the observation is not usable.
            DecodeError: the result is not finite.
        """
        clock = _Stopwatch(self._device)
        observation.validate(self.embodiment)
        self.check_instruction(observation.instruction)
        pixels, text_ids, text_valid, state = self._tensors(observation)
        preprocess = clock.lap()
        features = self._model.backbone.vision(pixels)
        vision = clock.lap()
        prefix, _ = self._model.encode(features, text_ids, text_valid, state)
        self._cache = self._model.prepare(prefix, self._cache)
        prefill = clock.lap()
        blocks: list[float] = []
        tokens = decode(
            self._model,
            prefix,
            sampling=self._sampling,
            num_blocks=self._num_blocks(num_levels),
            device=self._device,
            generator=self._generator,
            on_block=blocks.append,
        )
        clock.lap()
        codes = self._tokenizer.codes(tokens - self._level_offsets(tokens.shape[1]))[0]
        codes = codes.cpu().numpy()
        values = self._tokenizer.decode(codes) + reference_of(
            observation.state, self.embodiment, self._tokenizer.config.reference
        )
        if not np.isfinite(values).all():
            raise DecodeError('the decoded chunk is not finite')
        detokenize = clock.lap()
        self._sequence_id += 1
        period = self.embodiment.step_period
        return ActionChunk(
            values=values,
            stamp=observation.stamp,
            first_step_offset=period,
            step_period=period,
            sequence_id=self._sequence_id,
            embodiment_checksum=self.embodiment.checksum,
            codes=codes,
            timing=StageTiming(
                preprocess_ms=preprocess,
                vision_ms=vision,
                prefill_ms=prefill,
                decode_block_ms=tuple(blocks),
                detokenize_ms=detokenize,
                total_ms=clock.total(),
            ),
        )

    def _tensors(self, observation: Observation) -> tuple[torch.Tensor, ...]:
        images = [
            to_square(observation.images[camera], self.image_size)
            for camera in self.embodiment.cameras
        ]
        ids, valid = self._parts.text.encode(observation.instruction)
        state = state_input(
            self._parts.state(observation.state), self._parts.config, self._parts.text
        )
        if state.is_floating_point():
            state = state.to(self._model.head.weight.dtype)
        tensors = (
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(ids),
            torch.from_numpy(valid),
            state,
        )
        return tuple(t[None].to(self._device) for t in tensors)

    def _num_blocks(self, num_levels: int | None) -> int | None:
        layout = self._model.layout
        if num_levels is None:
            return None
        if not 1 <= num_levels <= layout.num_levels:
            raise ValueError(f'num_levels: expected 1..{layout.num_levels}, found {num_levels}')
        return num_levels * layout.tokens_per_level // self._model.block_size

    def _level_offsets(self, count: int) -> torch.Tensor:
        layout = self._model.layout
        levels = torch.arange(count, device=self._device) // layout.tokens_per_level
        return levels * layout.codebook_size


class _Stopwatch:
    """Milliseconds between laps; waits for the accelerator first."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._last = time.perf_counter_ns()

    def lap(self) -> float:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        now = time.perf_counter_ns()
        lap, self._last = (now - self._last) / 1e6, now
        return lap

    def total(self) -> float:
        return (self._last - self._start) / 1e6


def _device(name: str) -> torch.device:
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ConfigError(f'device: {e}') from e
    if device.type not in ('cpu', 'cuda'):
        raise ConfigError(f'device: expected auto, cpu or cuda, found {name!r}')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f'device: {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA '
            'devices'
        )
    return device
