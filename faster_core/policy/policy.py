"""The policy as a user sees it: an observation in, a chunk in physical units out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import pathlib
import time
from typing import Any

import numpy as np
import torch

from faster_core.chunk import ActionChunk, StageTiming
from faster_core.data.reference import ABSOLUTE, reference_of
from faster_core.decoding.blockwise import Block
from faster_core.decoding.sampling import SamplingConfig
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, DecodeError
from faster_core.observation import Observation
from faster_core.policy import checkpoint
from faster_core.policy.certainty import certainty
from faster_core.policy.engines import make_engine, ModelInputs
from faster_core.policy.engines.drawing import draw
from faster_core.policy.flow import FlowVla
from faster_core.policy.images import to_square
from faster_core.policy.inputs import state_input
from faster_core.policy.model import FasterVla
from faster_core.policy.precision import move

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


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
            engine: 'auto' or a name of `faster_core.policy.engines.ENGINES`.
            temperature: 0 is greedy.
            top_k: tokens drawn from when the temperature is positive.
            seed: of the drawing.

        Raises:
            ConfigError: an unknown device, dtype or engine.
        """
        self._device = choose_device(device)
        if dtype == 'auto':
            dtype = 'bfloat16' if self._device.type == 'cuda' else 'float32'
        if dtype not in DTYPES:
            raise ConfigError(f'dtype: expected auto or {", ".join(DTYPES)}, found {dtype!r}')
        self._parts = parts
        self._model = move(parts.model, self._device, DTYPES[dtype]).eval()
        self._tokenizer = parts.tokenizer
        if hasattr(self._tokenizer, 'model'):
            self._tokenizer.model.to(self._device)
        self._engine = make_engine(engine, self._model, self._tokenizer)
        self._sampling = SamplingConfig(temperature=temperature, top_k=top_k)
        self._generator = torch.Generator()
        self._seed = seed
        self._text: tuple[str, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._state_names = [f'{c.name}/{n}' for c in self.embodiment.state for n in c.names]
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
    def engine(self) -> str:
        """Name of the engine that runs the model."""
        return self._engine.name

    @property
    def whole(self) -> bool:
        """Whether the engine runs an inference as one, without stages."""
        return self._engine.whole

    @property
    def model(self) -> FasterVla | FlowVla:
        """What is run."""
        return self._model

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

    def warmup(self, iterations: int = 3, *, coarse: bool = False) -> None:
        """Run a few inferences so that the first real one is not slow.

        Args:
            iterations: how many.
            coarse: `on_chunk` will be given: an engine that runs all as one needs its stages then.
        """
        example, on_chunk = self.make_example(), (lambda _: None) if coarse else None
        for _ in range(iterations):
            self.predict(example, on_chunk=on_chunk)
        self.reset()

    @torch.inference_mode()
    def predict(
        self,
        observation: Observation,
        num_levels: int | None = None,
        on_chunk: Callable[[ActionChunk], None] | None = None,
        *,
        staged: bool = False,
    ) -> ActionChunk:
        """Compute the chunk for an observation.

        Args:
            observation: images of any size, state in SI units, instruction.
            num_levels: decode only the first levels of the residual quantiser (faster, coarser);
                only with order 'level'.
            on_chunk: called with the coarser chunk as soon as a level is complete, all levels but
                the last one.
            staged: run and time stage by stage even with an engine that runs all as one.

        Returns:
            Chunk in SI units with codes, confidence and the time of every stage; row 0 is due one
            step period after the observation.

        Raises:
            ObservationError, InstructionError: the observation is not usable.
            DecodeError: the result is not finite, or the tokens stand for nothing.
            ValueError: `num_levels` out of range.
        """
        clock = _Stopwatch(self._device)
        observation.validate(self.embodiment, self._parts.config.missing_cameras)
        self._parts.state.check(np.asarray(observation.state), self._state_names)
        self.check_instruction(observation.instruction)
        reference = reference_of(
            observation.state,
            self.embodiment,
            getattr(self._tokenizer.config, 'reference', ABSOLUTE),
        )
        inputs = self._inputs(observation)
        noise = draw(self._model, self._sampling, self._generator)
        preprocess = clock.lap()
        vision = prefill = 0.0
        self._sequence_id += 1

        def chunk(values: np.ndarray, **fields: Any) -> ActionChunk:
            values = values + reference
            if not np.isfinite(values).all():
                raise DecodeError('the decoded chunk is not finite')
            detokenize = clock.lap()
            period = self.embodiment.step_period
            timing = StageTiming(
                preprocess_ms=preprocess,
                vision_ms=vision,
                prefill_ms=prefill,
                decode_block_ms=tuple(passes),
                detokenize_ms=detokenize,
                total_ms=clock.total(),
            )
            return ActionChunk(
                values=values,
                stamp=observation.stamp,
                first_step_offset=period,
                step_period=period,
                sequence_id=self._sequence_id,
                embodiment_checksum=self.embodiment.checksum,
                timing=timing,
                **fields,
            )

        passes: list[float] = []
        at_once = self._engine.whole and not staged
        if at_once and num_levels is None and on_chunk is None:
            made = self._engine.run(inputs, self._sampling, noise)
            passes.append(clock.lap())
            values = self._tokenizer.physical(made.chunk)
            return chunk(values, **self._coded(made.tokens, made.logits[:, None]))
        features = self._engine.vision(inputs.pixels)
        vision = clock.lap()
        self._engine.prefill(features, inputs)
        prefill = clock.lap()
        if self._parts.config.head == 'flow':
            values = self._tokenizer.physical(self._engine.integrate(noise)[0])
            passes.append(clock.lap())
            return chunk(values)
        blocks: list[Block] = []

        def on_block(block: Block) -> None:
            blocks.append(block)
            passes.append(block.milliseconds)
            if on_chunk is not None and (levels := self._complete_levels(len(blocks))):
                codes = self._codes(torch.cat([b.tokens for b in blocks], dim=1))
                clock.lap()
                on_chunk(chunk(self._engine.detokenize(codes), codes=codes, num_levels=levels))

        tokens = self._engine.decode(
            self._sampling,
            num_blocks=self._num_blocks(num_levels),
            noise=noise,
            on_block=on_block,
        )
        clock.lap()
        coded = self._coded(tokens, [b.logits for b in blocks])
        return chunk(self._engine.detokenize(coded['codes']), **coded)

    @torch.inference_mode()
    def decode_again(
        self, sampling: SamplingConfig, on_block: Callable[[Block], None] | None = None
    ) -> torch.Tensor:
        """Decode the last observation once more; return token ids [1, n] in decoding order."""
        noise = draw(self._model, sampling, self._generator)
        return self._engine.decode(sampling, noise=noise, on_block=on_block)

    def _coded(self, tokens: torch.Tensor, logits: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Return codes and confidence of token ids [1, n] and the logits of their blocks."""
        if not len(logits):
            return {}
        size, model = self._model.block_size, self._model
        chosen = [part - model.token_offset(i) for i, part in enumerate(tokens.split(size, dim=1))]
        log_prob, entropy = certainty(logits, chosen)
        return {
            'codes': self._codes(tokens),
            'log_prob': tuple(log_prob),
            'entropy': tuple(entropy),
        }

    def _codes(self, tokens: torch.Tensor) -> np.ndarray:
        """Return what the tokenizer decodes, of one chunk, from token ids [1, n]."""
        codes = self._model.codes(tokens)[0].cpu().numpy()
        if self._model.end_code is not None:
            ends = np.flatnonzero(codes == self._model.end_code)
            if not len(ends):
                raise DecodeError(
                    f'no end within {self._model.num_tokens} tokens: the chunk is incomplete'
                )
            return codes[: ends[0]]
        return self._tokenizer.codes(codes[None])[0]

    def _inputs(self, observation: Observation) -> ModelInputs:
        size, cameras = self.image_size, self.embodiment.cameras
        missing = [c not in observation.images for c in cameras]
        grey = np.full((size, size, 3), 127, dtype=np.uint8)
        images = [
            grey if gone else to_square(observation.images[camera], size)
            for camera, gone in zip(cameras, missing, strict=True)
        ]
        state = state_input(
            self._parts.state(observation.state), self._parts.config, self._parts.text
        )
        if state.is_floating_point():
            state = state.to(self._engine.dtype)
        present = torch.tensor([[not gone for gone in missing]], device=self._device)
        ids, valid = self._text_tensors(observation.instruction)
        return ModelInputs(
            pixels=torch.from_numpy(np.stack(images))[None].to(self._device),
            text_ids=ids,
            text_valid=valid,
            state=state[None].to(self._device),
            present=present if any(missing) else None,
        )

    def _text_tensors(self, instruction: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and valid ones, computed once per instruction."""
        if self._text is None or self._text[0] != instruction:
            arrays = self._parts.text.encode(instruction)
            tensors = tuple(torch.from_numpy(a)[None].to(self._device) for a in arrays)
            self._text = (instruction, tensors)
        return self._text[1]

    def _num_blocks(self, num_levels: int | None) -> int | None:
        if num_levels is None:
            return None
        layout = self._model.layout
        if not 1 <= num_levels <= layout.num_levels:
            raise ValueError(f'num_levels: expected 1..{layout.num_levels}, found {num_levels}')
        if layout.order != 'level':
            raise ValueError('num_levels: only a policy of order level decodes coarse first')
        return num_levels * layout.tokens_per_level // self._model.block_size

    def _complete_levels(self, num_blocks: int) -> int:
        """Return how many levels are complete after some blocks; 0 if none just became so."""
        layout = self._model.layout
        levels, rest = divmod(num_blocks * self._model.block_size, layout.tokens_per_level)
        done = layout.order == 'level' and not rest and levels < layout.num_levels
        return levels if done else 0


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


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ConfigError if it is unknown or not there."""
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
