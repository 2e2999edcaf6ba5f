"""Processes that need not import torch: forks of one that has done nothing else.

The import takes a process several seconds of processor time, which a test of something else need
not wait for. Nothing of this project is imported beforehand, and no ROS.
"""

import multiprocessing
import os
import runpy
import socket
import sys

PRELOADED = [
    'torch',
    'torch._dynamo',
    'torch.distributed.checkpoint',
    'torch.distributed.fsdp',
    'torch.distributed.tensor',
    'accelerate',
    'matplotlib.pyplot',
    'safetensors.torch',
    'scipy.fft',
    'scipy.interpolate',
    'scipy.optimize',
    'scipy.spatial.transform',
    'transformers.masking_utils',
    'transformers.modeling_layers',
    'transformers.modeling_utils',
]
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(PRELOADED)


class Warm:
    """A process that runs a function; what it says goes into a file."""

    def __init__(self, log, function, *args, **environment):
        self._log = log
        log.touch()
        self._process = CONTEXT.Process(target=_run, args=(log, environment, function, args))
        self._process.start()

    def wait(self, timeout):
        """Return (status, what it said); a process that takes longer is killed."""
        self._process.join(timeout)
        self.kill()
        return self._process.exitcode, self._log.read_text(encoding='utf-8')

    def kill(self):
        self._process.kill()
        self._process.join()


def _run(log, environment, function, args):
    said = os.open(log, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(said, number)
    os.environ.update(environment)
    function(*args)


def run_code(code, *args):
    """What `python -c` does."""
    sys.argv = ['-c', *args]
    exec(compile(code, '<string>', 'exec'), {'__name__': '__main__'})


def run_module(name, *args):
    """What `python -m` does."""
    sys.argv = [name, *args]
    runpy.run_module(name, run_name='__main__', alter_sys=True)


def free_port():
    """Return a port nobody listens on."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def group(folder, count, name, *args, timeout=200):
    """Run a module in a group of processes, with the variables that torchrun sets."""
    shared = {
        'WORLD_SIZE': str(count),
        'LOCAL_WORLD_SIZE': str(count),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(free_port()),
        'GLOO_SOCKET_IFNAME': 'lo',
    }
    processes = [
        Warm(
            folder / f'rank{rank}.log',
            run_module,
            name,
            *args,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            **shared,
        )
        for rank in range(count)
    ]
    try:
        for process in processes:
            status, said = process.wait(timeout)
            assert status == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()
