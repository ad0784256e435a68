"""Where the jobs of a sweep run: on this machine, on Ray, on Slurm.

    executor = EXECUTORS["local"](Options(jobs=2))
    for finished in executor.run(Work(run_one, root), ["eps=08.00/seed=0", "eps=08.00/seed=1"]):
        print(finished.label, finished.error or "done")

A job is a folder and a label, which one importable function turns into files below the folder; what it is made of it reads
there, so that it is the same job wherever it runs. The function must skip what is complete and go on with what was cut.

A job that breaks, or whose process dies, is one :class:`Finished` with its error, and stops no other. Ctrl-C reaches every job
once, as an interrupt: it ends at its next step with a checkpoint; jobs that had not begun do not begin. A second Ctrl-C ends
all at once. In either case :meth:`Executor.run` then raises ``KeyboardInterrupt``, and no process is left.

* ``work.py``: what all executors share
* ``status.py``: what a running job says of itself, as a small file
* ``interrupt.py``: Ctrl-C, the first and the second
* ``processes.py``, ``worker.py``, ``nursery.py``: ``local``
* ``on_ray.py``, ``on_slurm.py``: ``ray`` and ``slurm``

Another one is registered like a model: ``@EXECUTORS.register("mine")`` on a class that is made from :class:`Options` and has
``run``.
"""

from dptrain.executor.status import Status, read_statuses
from dptrain.executor.work import Executor, Finished, Options, Work, threads_of
from dptrain.registry import EXECUTORS

__all__ = ["EXECUTORS", "Executor", "Finished", "Options", "Status", "Work", "read_statuses", "threads_of"]
