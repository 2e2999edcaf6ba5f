"""Vision-language backbones behind one protocol: small ones built here, and pretrained ones."""

from faster_core.policy.backbones.base import Backbone, LayerKV
from faster_core.policy.backbones.build import build_backbone

__all__ = ['Backbone', 'LayerKV', 'build_backbone']
