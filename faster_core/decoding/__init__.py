"""Block-wise decoding of action tokens with a static cache, and its slow twin without one."""
