"""What may keep a robot from moving although the plan is good: who else has a say."""
