"""From sensor messages to the policy's observation; bad messages are refused with the reason."""
