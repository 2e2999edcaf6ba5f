"""What stands before the motors: plan on absolute time, checks, limits, state machine. No torch."""
