"""`faster-vla say | enable | disable | stop | reset`: short commands to a running graph."""

from __future__ import annotations

import argparse

from faster_vla_ros.session import Session

_TRIGGERS = {
    'stop': ('/action_dispatcher/stop', 'stop the robot; latched until `faster-vla reset`'),
    'reset': ('/action_dispatcher/reset', 'clear a stop; does not enable'),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add all of them."""
    say = subparsers.add_parser('say', help='send an instruction; "" ends the current one')
    say.add_argument('instruction')
    say.set_defaults(run=_say)
    _add_namespace(say)
    for name, on, text in (
        ('enable', True, 'allow motion'),
        ('disable', False, 'forbid motion: the safe commands are sent'),
    ):
        parser = subparsers.add_parser(name, help=text)
        parser.set_defaults(run=_enable, on=on)
        _add_namespace(parser)
    for name, (service, text) in _TRIGGERS.items():
        parser = subparsers.add_parser(name, help=text)
        parser.set_defaults(run=_trigger, service=service)
        _add_namespace(parser)


def _add_namespace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--namespace', default='', help='of the robot, if it has one')


def _say(args: argparse.Namespace) -> int:
    with Session(name='faster_vla_say', namespace=args.namespace) as session:
        session.say(args.instruction)
    return 0


def _enable(args: argparse.Namespace) -> int:
    with Session(name='faster_vla_enable', namespace=args.namespace) as session:
        print(session.enable(args.on) or ('enabled' if args.on else 'disabled'))
    return 0


def _trigger(args: argparse.Namespace) -> int:
    with Session(name='faster_vla_trigger', namespace=args.namespace) as session:
        print(session.trigger(args.service) or 'done')
    return 0
