"""Other people's action tokenizers, as published, behind the interface of ours.

They exist to be compared with: same data, same normalisation, same split.
"""
