"""Bags (rosbag2) without ROS: serialised messages in and out, our own types included."""

import contextlib
import functools

from project_files import ROOT
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

OURS = 'faster_vla_msgs'


@functools.cache
def store():
    """Return the types of Humble and of this project."""
    found, types = get_typestore(Stores.ROS2_HUMBLE), {}
    for file in sorted((ROOT / OURS / 'msg').glob('*.msg')):
        types |= get_types_from_msg(file.read_text(encoding='utf-8'), f'{OURS}/msg/{file.stem}')
    found.register(types)
    return found


def type_name(kind):
    """Return the name of a message class of rclpy as bags have it."""
    return f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'


def nanoseconds(message):
    """Return the stamp of a message (ns)."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@contextlib.contextmanager
def bag(path, topics):
    """Write a bag of `topics`, topic -> class; yields what writes topic, time (ns) and message.

    Messages are serialised ones.
    """
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        of = {
            topic: writer.add_connection(f'/{topic}', type_name(kind), typestore=store())
            for topic, kind in topics.items()
        }
        yield lambda topic, at, data: writer.write(of[topic], at, data)


def messages(path):
    """Return topic, time (ns) and serialised message of all in a bag, in its order."""
    with Reader(path) as reader:
        return [(c.topic.lstrip('/'), at, bytes(data)) for c, at, data in reader.messages()]


def rewrite(source, target, topics, change):
    """Write a bag anew; `change(number, message)` returns the message to write, None for none."""
    with bag(target, topics) as write:
        for number, (topic, at, data) in enumerate(messages(source)):
            name = type_name(topics[topic])
            message = change(number, store().deserialize_cdr(data, name))
            if message is not None:
                write(topic, at, bytes(store().serialize_cdr(message, name)))
    return target
