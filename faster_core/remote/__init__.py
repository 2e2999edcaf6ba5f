"""The policy on another machine: a server beside the accelerator, a client without torch."""
