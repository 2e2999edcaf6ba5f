"""What a process may ask for to be punctual; on systems without it nothing happens."""

import gc
import os
import subprocess
import sys

from faster_vla_ros import punctual


def test_asked_for_the_process_keeps_its_policy_and_niceness_and_hands_them_on():
    code = (
        'import os, threading\n'
        'from faster_vla_ros import punctual\n'
        'policy, nice = os.sched_getscheduler(0), os.nice(3)\n'
        'assert punctual.ask_for_short_slices() in (True, False)\n'
        'found = []\n'
        'get = lambda: found.append((os.sched_getscheduler(0), os.getpriority(0, 0)))\n'
        'thread = threading.Thread(target=get); thread.start(); thread.join(); get()\n'
        'assert found == [(policy, nice)] * 2, found\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


def test_a_system_that_knows_no_slices_is_no_error(monkeypatch):
    monkeypatch.setattr(punctual.platform, 'machine', lambda: 'other')
    assert not punctual.ask_for_short_slices()


def test_a_real_time_priority_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, 'sched_getscheduler', lambda _: os.SCHED_FIFO)
    assert not punctual.ask_for_short_slices()


def test_what_was_there_is_not_collected_again_and_what_comes_is():
    code = (
        'import gc\n'
        'from faster_vla_ros import punctual\n'
        'before = gc.get_freeze_count()\n'
        'punctual.spare_start_up_from_collection()\n'
        'assert gc.get_freeze_count() > before\n'
        'class Circle: pass\n'
        'c = Circle(); c.itself = c; del c\n'
        'assert gc.collect() > 0\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
    assert gc.isenabled()
