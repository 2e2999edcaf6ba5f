"""Episodes on disk and the chunk labels cut from them."""
