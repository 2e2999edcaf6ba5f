"""What stands before the motors: plan, checks, limits, state machine. Never imports torch."""
