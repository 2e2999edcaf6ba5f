"""Quantised control points of B-splines (BEAST, Zhou et al. 2025, arXiv 2506.06072).

Every dimension of a chunk is fitted by a clamped B-spline in the least-squares sense with a small
ridge; its control points are the tokens, 256 uniform bins between their percentiles in the data.
Tokens are ordered control point by control point, all dimensions of one together.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from faster_core.errors import ConfigError
from faster_core.tokenizer.baselines.fitted import FittedConfig, FittedTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BSplineConfig(FittedConfig):
    """Shape of the splines.

    Attributes:
        num_points: control points per dimension; the number of tokens is D times that.
        degree: of the polynomial pieces.
        num_bins: per control point.
        ridge: weight of the squared control points in the fit.
        percentile: the bins reach from this percentile of the data to its complement.
        centre, half_range: [num_points][D] of the control points; empty until fitted.
    """

    num_points: int = 10
    degree: int = 4
    num_bins: int = 256
    ridge: float = 1e-6
    percentile: float = 0.1
    centre: tuple[tuple[float, ...], ...] = ()
    half_range: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse splines that do not exist (ConfigError)."""
        super().__post_init__()
        if not 1 <= self.degree < self.num_points <= self.horizon:
            raise ConfigError(
                f'num_points: expected degree {self.degree} < num_points <= horizon '
                f'{self.horizon}, found {self.num_points}'
            )
        if self.num_bins < 2:
            raise ConfigError(f'num_bins: expected at least 2, found {self.num_bins}')
        for name in ('centre', 'half_range'):
            rows = tuple(tuple(map(float, row)) for row in getattr(self, name))
            object.__setattr__(self, name, rows)
            if rows and np.shape(rows) != (self.num_points, self.action_dim):
                raise ConfigError(
                    f'{name}: expected [{self.num_points}, {self.action_dim}], '
                    f'found {list(np.shape(rows))}'
                )


class BSplineTokenizer(FittedTokenizer):
    """Chunks to control points and back."""

    kind = 'bspline'
    config_class = BSplineConfig

    def __init__(self, config: BSplineConfig, normalizer: ActionNormalizer) -> None:
        """Bind a fitted configuration."""
        super().__init__(config, normalizer)
        self.vocab_size = config.num_bins
        self._basis, self._solve = spline_matrices(config)
        self._centre, self._half_range = np.array(config.centre), np.array(config.half_range)

    @classmethod
    def fit(
        cls, config: BSplineConfig, normalizer: ActionNormalizer, chunks: np.ndarray
    ) -> BSplineTokenizer:
        """Take the range of the control points from normalised chunks [M, H, D]."""
        points = spline_matrices(config)[1] @ chunks.astype(np.float64)
        ends = [config.percentile, 100 - config.percentile]
        low, high = np.percentile(points, ends, axis=0)
        half = np.maximum((high - low) / 2, 1e-3)
        fitted = dataclasses.replace(
            config, centre=((low + high) / 2).tolist(), half_range=half.tolist()
        )
        return cls(fitted, normalizer)

    @property
    def num_tokens(self) -> int:
        """Control points times D."""
        return self.config.num_points * self.action_dim

    @property
    def num_parameters(self) -> int:
        """Ranges of the control points."""
        return self._centre.size + self._half_range.size

    def _encode(self, normal: np.ndarray) -> np.ndarray:
        points = self._solve @ normal.astype(np.float64)
        share = ((points - self._centre) / self._half_range + 1) / 2
        bins = np.floor(share * self.config.num_bins).astype(np.int64)
        return np.clip(bins, 0, self.config.num_bins - 1).reshape(len(normal), -1)

    def _decode(self, codes: Any) -> np.ndarray:
        bins = np.stack(self._check_tokens(codes, self.num_tokens))
        share = (bins.reshape(-1, self.config.num_points, self.action_dim) + 0.5) * 2
        points = (share / self.config.num_bins - 1) * self._half_range + self._centre
        return (self._basis @ points).astype(np.float32)


def spline_matrices(config: BSplineConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the basis [H, P] (chunk = basis @ points) and its ridge pseudo-inverse [P, H]."""
    inner = np.linspace(0, 1, config.num_points - config.degree + 1)
    knots = np.concatenate([np.zeros(config.degree), inner, np.ones(config.degree)])
    times = np.linspace(0, 1, config.horizon)
    basis = BSpline.design_matrix(times, knots, config.degree).toarray()
    gram = basis.T @ basis + config.ridge * np.eye(config.num_points)
    return basis, np.linalg.solve(gram, basis.T)
