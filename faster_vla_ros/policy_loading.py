"""What the policy node runs: a checkpoint in this process, or a policy server."""

from __future__ import annotations

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_vla_ros.inference import PolicyLike
from faster_vla_ros.policy_parameters import PolicyNodeConfig


def load_policy(config: PolicyNodeConfig) -> PolicyLike:
    """Load a checkpoint, or connect to a policy server.

    Torch is imported here and nowhere else in the node, and not at all with a server.
    """
    if config['remote']:
        return _remote_policy(config)
    import torch

    from faster_core.policy import Policy

    torch.set_num_threads(config['num_threads'])
    return Policy.from_pretrained(
        config['checkpoint_path'],
        device=config['device'],
        dtype=config['dtype'],
        engine=config['engine'],
        temperature=config['temperature'],
        seed=config['seed'],
    )


def _remote_policy(config: PolicyNodeConfig) -> PolicyLike:
    try:
        from faster_core.remote.client import RemotePolicy
    except ModuleNotFoundError as e:
        raise ConfigError(f"remote: {e.name} is missing: pip install '.[remote]'") from e
    file = config['remote_embodiment']
    return RemotePolicy(
        config['remote'],
        timeout=config['remote_timeout'],
        images=config['remote_images'],
        embodiment_checksum=Embodiment.load(file).checksum if file else '',
    )


def check_robot(config: PolicyNodeConfig, embodiment: Embodiment) -> None:
    """Refuse cameras or state sources that are not those of the policy's embodiment.

    Raises:
        ConfigError: names what was expected and what was found.
    """
    if set(config.cameras) != set(embodiment.cameras):
        raise ConfigError(
            f"cameras: expected the embodiment's {', '.join(embodiment.cameras)}, found "
            f'{", ".join(config.cameras)}'
        )
    expected = {c.name for c in embodiment.state}
    if set(config.sources) != expected:
        raise ConfigError(
            f"state_sources: expected the embodiment's {', '.join(sorted(expected))}, found "
            f'{", ".join(config.sources)}'
        )
