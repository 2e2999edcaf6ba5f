"""FASTerVQ: action chunks to residual vector-quantised codes of fixed shape, and back."""

from faster_core.tokenizer.faster_vq import FasterVQ

__all__ = ['FasterVQ']
