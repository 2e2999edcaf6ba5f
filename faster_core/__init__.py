"""FASTer without ROS: tokenizer, policy, decoding, execution, simulation, training.

Nothing in this package imports rclpy or any message type (checked by `test/test_imports.py`).
"""

__version__ = '0.1.0'
