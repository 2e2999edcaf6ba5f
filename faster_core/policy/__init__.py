"""FASTerVLA: a vision-language backbone, a light action expert, block-wise action codes."""

from faster_core.policy.policy import Policy

__all__ = ['Policy']
