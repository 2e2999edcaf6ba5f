"""What is fitted: every tokenizer, operating point and ablation on every data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
from typing import Any

from faster_core.errors import ConfigError

FASTER, FAST, FAST_UNIVERSAL, BINS, BSPLINE = 'faster', 'fast', 'fast_universal', 'bins', 'bspline'
MINIVLA, VQVLA = 'minivla', 'vqvla'
NAMES = (FASTER, FAST, FAST_UNIVERSAL, BINS, MINIVLA, VQVLA, BSPLINE)
LEARNED = (FASTER, MINIVLA, VQVLA)
# In the order of their fits.
KINDS = ('headline', 'point', 'joint', 'ablation')


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The whole comparison.

    Attributes:
        data: name of a motion set -> fields of `FasterVQConfig` for it (grid and groups).
        training: fields of `TokenizerTrainConfig` that all learned tokenizers share: equal steps,
            batch and trials.
        training_of: learned tokenizer -> fields of its training that differ: how it starts.
        learning_rates, trial_steps: every learned headline is first trained for `trial_steps`
            with each of these; the one with the best held-out VRR is taken for all its steps.
        faster: fields of `FasterVQConfig` on every data set.
        points: label -> fields that differ from the headline, further points of FasterVQ's
            rate-distortion curve; `only` names the data sets it is for.
        ablations: label -> fields that differ, at equal steps; same form.
        joint: label -> one model of FasterVQ over several data sets, with shared codebooks: `data`
            (set -> fields that differ), `model` (fields of all), `weights` (set -> its share of
            every batch; equal if left out) and `strangers` (sets it is not trained on but tried
            on, with `layout: by_kind`).
        joint_steps, ablation_steps: of joint models and ablations; None: as `training`.
        rivals: learned rival -> fields of its configuration.
        fast_scales: FAST's curve; the published 10 is its headline.
        fast_vocab, universal_vocab: entries of the byte-pair encoding.
        spline_points: B-splines' curve, as share of the horizon; the first is the headline.
    """

    data: dict[str, dict[str, Any]]
    training: dict[str, Any]
    faster: dict[str, Any] = dataclasses.field(default_factory=dict)
    training_of: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    learning_rates: tuple[float, ...] = ()
    trial_steps: int = 500
    joint_steps: int | None = None
    ablation_steps: int | None = None
    joint: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    points: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    ablations: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rivals: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    fast_scales: tuple[float, ...] = (10.0, 2.5, 5.0, 20.0, 40.0, 80.0)
    fast_vocab: int = 1024
    universal_vocab: int = 2048
    spline_points: tuple[float, ...] = (0.33, 0.2, 0.5)

    def __post_init__(self) -> None:
        """Refuse a study of nothing and unknown names (ConfigError)."""
        if not self.data:
            raise ConfigError('data: expected at least one motion set')
        if unknown := set(self.rivals) - {MINIVLA, VQVLA}:
            raise ConfigError(f'rivals: expected minivla, vqvla, found {sorted(unknown)}')
        for field in ('points', 'ablations'):
            for label, values in getattr(self, field).items():
                if unknown := set(values.get('only', ())) - set(self.data):
                    raise ConfigError(f'{field}.{label}.only: unknown data {sorted(unknown)}')
        if unknown := set(self.training_of) - set(LEARNED):
            raise ConfigError(f'training_of: expected of {LEARNED}, found {sorted(unknown)}')
        for label, values in self.joint.items():
            unknown = set(values) - {'data', 'model', 'weights', 'strangers'}
            if unknown or len(values.get('data', ())) < 1:
                raise ConfigError(
                    f'joint.{label}: expected data and, if wanted, model, weights and strangers; '
                    f'found {sorted(values)}'
                )
            if unknown := set(values.get('weights', ())) - set(values['data']):
                raise ConfigError(f'joint.{label}.weights: unknown data {sorted(unknown)}')
        object.__setattr__(self, 'learning_rates', tuple(self.learning_rates))
        object.__setattr__(self, 'fast_scales', tuple(self.fast_scales))
        object.__setattr__(self, 'spline_points', tuple(self.spline_points))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing to fit.

    Attributes:
        data: motion sets it is fitted on: one, or all for the universal FAST.
        name: one of `NAMES`.
        label: operating point; '' is the headline of the table.
        kind: 'headline', 'point' of a curve, 'ablation' or 'joint'.
        fields: of the tokenizer's configuration, or of the training with `learned`.
        learning_rates, trial_steps: what is tried first (`StudyConfig`).
        strangers: sets that are evaluated too but not trained on -> fields for them.
    """

    data: tuple[str, ...]
    name: str
    label: str = ''
    kind: str = 'headline'
    fields: Mapping[str, Any]
    learning_rates: tuple[float, ...] = ()
    trial_steps: int = 0
    strangers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def joint(self) -> bool:
        """Whether the result is a folder per data set."""
        return len(self.data) > 1

    @property
    def learned(self) -> bool:
        """Whether it is trained by gradient descent."""
        return self.name in LEARNED

    @property
    def title(self) -> str:
        """What a person reads."""
        return ' '.join(filter(None, ('+'.join(self.data), self.name, self.label)))

    def key(self, fingerprints: Mapping[str, str]) -> str:
        """Return the hash of everything that decides the result.

        Args:
            fingerprints: motion set -> checksum of its content.
        """
        values = {
            'data': {name: fingerprints[name] for name in self.data},
            'name': self.name,
            'fields': self.fields,
        }
        if self.learning_rates:
            values['trials'] = [list(self.learning_rates), self.trial_steps]
        text = json.dumps(values, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan(config: StudyConfig) -> list[Entry]:
    """Return everything to fit, headlines first."""
    entries = []
    for data in config.data:
        entries += _fitted(config, data)
        entries += [_learned(config, data, rival, '', {}) for rival in (MINIVLA, VQVLA)]
        entries.append(_learned(config, data, FASTER, '', {}))
    everything = tuple(config.data)
    for i, scale in enumerate(config.fast_scales):
        fields = {'scale': scale, 'vocab_size': config.universal_vocab}
        entries.append(_point(everything, FAST_UNIVERSAL, f'scale {scale:g}', i, fields))
    for kind, table in (('point', config.points), ('ablation', config.ablations)):
        for label, values in table.items():
            fields = {k: v for k, v in values.items() if k != 'only'}
            if kind == 'ablation' and config.ablation_steps is not None:
                fields = {'steps': config.ablation_steps, **fields}
            entries += [
                dataclasses.replace(_learned(config, data, FASTER, label, fields), kind=kind)
                for data in values.get('only', config.data)
            ]
    entries += [_joint(config, label, values) for label, values in config.joint.items()]
    return sorted(entries, key=lambda e: KINDS.index(e.kind))


def _fitted(config: StudyConfig, data: str) -> Sequence[Entry]:
    entries = [Entry(data=(data,), name=BINS, fields={})]
    for i, scale in enumerate(config.fast_scales):
        fields = {'scale': scale, 'vocab_size': config.fast_vocab}
        entries.append(_point((data,), FAST, f'scale {scale:g}', i, fields))
    for i, share in enumerate(config.spline_points):
        entries.append(_point((data,), BSPLINE, f'points {share:g} H', i, {'share': share}))
    return entries


def _point(
    data: tuple[str, ...], name: str, label: str, index: int, fields: Mapping[str, Any]
) -> Entry:
    kind = 'point' if index else 'headline'
    return Entry(data=data, name=name, label=label if index else '', kind=kind, fields=fields)


def _learned(
    config: StudyConfig, data: str, name: str, label: str, changes: Mapping[str, Any]
) -> Entry:
    training = config.training | config.training_of.get(name, {})
    changes = dict(changes)
    training |= {'steps': changes.pop('steps', training['steps'])}
    if name == FASTER:
        model = {**config.faster, **config.data[data], **changes}
    else:
        model = dict(config.rivals.get(name, {}))
    fields = {**training, 'tokenizer': name, 'model': model}
    entry = Entry(data=(data,), name=name, label=label, fields=fields)
    if label:
        return entry
    return dataclasses.replace(
        entry, learning_rates=config.learning_rates, trial_steps=config.trial_steps
    )


def _joint(config: StudyConfig, label: str, values: Mapping[str, Any]) -> Entry:
    fields = {
        **config.training,
        **config.training_of.get(FASTER, {}),
        'steps': config.joint_steps or config.training['steps'],
        'model': {**config.faster, **values.get('model', {})},
        'robots': dict(values['data']),
        'weights': dict(values.get('weights', {})),
    }
    return Entry(
        data=tuple(values['data']),
        name=FASTER,
        label=label,
        kind='joint',
        fields=fields,
        strangers=values.get('strangers', {}),
    )
