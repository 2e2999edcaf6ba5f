"""`faster-vla bench policy`: engines and heads against each other, and against the hardware."""
