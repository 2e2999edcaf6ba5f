"""Quality of service of every endpoint, with the reason."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


# Best effort matches every publisher; an old image is worth nothing.
IMAGE = _profile(2, reliable=False)
# Several messages are kept so that the one nearest to an image can be chosen.
STATE = _profile(10, reliable=False)
# Volatile: a transient-local subscription would silently not match `ros2 topic pub`.
INSTRUCTION = _profile(1)
# Reliable publishers satisfy both kinds of subscriber; only the newest chunk or command counts.
CHUNK = _profile(1)
COMMAND = _profile(1)
# Every report and timing is wanted by an observer.
REPORT = _profile(10)
# Late subscribers get the current state.
LATCHED = _profile(1, latched=True)
