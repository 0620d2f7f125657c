"""Several processes that train together: how they start, agree and end.

Every process runs the same program on its own part of each batch (JAX's multi-controller model). Process 0 alone writes
logs, metrics and reports; checkpoints are written by all. What one process decides by itself (a signal came, a file is
damaged) has to be agreed on first, or the others wait for ever in a collective that it does not join.
"""

import atexit
import contextlib
import importlib.util
import inspect
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import escape, interrupt

HEARTBEAT_SECS = 20  # after so long without a sign of life from one process, the others end
START_SECS = 120  # for all processes to come
_FLAGS = "--coordinator HOST:PORT --num-processes N --process-id I"


# In the errors of those that are left when another process has ended.
_GONE = ("Gloo", "oordination service", "barrier", "eartbeat", "another task", "Connection reset", "closed by peer")
_AGAIN = "start all of them again, with the same command; the run resumes from its last checkpoint"

_joined = False  # whether `start` has found others


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the other processes, before anything else is computed; alone, it does nothing.

    Without arguments the processes find each other through what started them: SLURM, Open MPI, Kubernetes or a TPU pod.

    Raises:
      UserError: arguments that do not belong together, or the others do not come.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    if num_processes == 1:
        return
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) in (1, 2):
        raise UserError(f"{missing[0]} is missing; several processes need {_FLAGS}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"--coordinator is {coordinator!r}; expected HOST:PORT of process 0, as 10.0.0.1:9876")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"--process-id is {process_id}; expected 0 to {num_processes - 1}, a different one for each")
    cluster = "the flags" if coordinator else detect(os.environ)
    if cluster is None:
        return
    import jax

    global _joined
    known = inspect.signature(jax.distributed.initialize).parameters
    options: dict[str, Any] = {"initialization_timeout": START_SECS, "heartbeat_timeout_seconds": HEARTBEAT_SECS,
               "shutdown_timeout_seconds": 300}  # fmt: skip
    # JAX's own notice of a preemption is SIGTERM, told to all through the coordinator; it would take it from `Stop`,
    # which does the same, and Ctrl-C besides.
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    waits = f"ended while it waited for the other processes, found by {cluster} ({START_SECS} s at most)"
    quiet = _leave_last_words(waits, f"check that all of them were started with the same coordinator, or pass {_FLAGS}")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, **{k: v for k, v in options.items() if k in known}
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = escape.message(error, 200)
        raise UserError(f"several processes, by {cluster}, did not find each other: {reason}\npass {_FLAGS}") from None
    finally:
        quiet()
    _joined = True
    said = f"process {jax.process_index()} of {jax.process_count()} was ended by force: "
    quiet = _leave_last_words(f"{said}killed, or aborted because another one of this run has ended", _AGAIN)
    interrupt.before_leaving.append(quiet)
    atexit.register(quiet)


def _leave_last_words(said: str, then: str) -> Callable[[], None]:
    """Has a shell say two lines if this process is ended without a message; returns a function that cancels this.

    JAX's runtime aborts a process, without Python, when another one dies or does not come. The shell waits at a pipe.
    """
    if not os.access("/bin/sh", os.X_OK):
        return lambda: None
    script = 'read -r end || printf "error: %s\\n%s\\n" "$1" "$2" >&2'
    shell = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", said, then],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def quiet() -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            shell.communicate(b"end\n", timeout=1)

    return quiet


def detect(environment: Mapping[str, str]) -> str | None:
    """Returns what has started several processes, or None. JAX reads the details itself."""
    e = environment

    def number(word: str) -> int:
        return int(e.get(word, "")) if e.get(word, "").isdecimal() else 1

    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    # within srun only: the script of a batch job has the number of tasks too, but is one process
    if all(word in e for word in step) and number("SLURM_NTASKS") > 1 and number("SLURM_STEP_NUM_TASKS") > 1:
        return "SLURM"
    if number("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if "KUBERNETES_SERVICE_HOST" in e and "JOB_COMPLETION_INDEX" in e:
        return "Kubernetes"
    hosts = e.get("TPU_PROCESS_ADDRESSES") or e.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts:
        return "TPU pod"
    on_tpu = any(os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/0"))
    if on_tpu and not hosts and e.get("JAX_PLATFORMS", "tpu") != "cpu" and importlib.util.find_spec("libtpu"):
        return "TPU pod"  # Compute Engine: JAX asks the machine's metadata, also whether it is one of several
    return None


def is_main() -> bool:
    """Whether this is process 0, the one that logs and writes reports."""
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: Any) -> Any:
    """Returns process 0's value (anything that JSON can hold) in every process; all call it at the same point."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode() if is_main() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(-(-size // 1024) * 1024, np.uint8)  # of few lengths: each is compiled once
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size]))


def by_main(decide: Callable[[], Any]) -> Any:
    """Returns in every process what `decide()` gives in process 0, the only one that calls it; its UserError too."""
    import jax

    if jax.process_count() == 1:
        return decide()
    outcome = None
    if is_main():
        try:
            outcome = {"value": decide()}
        except UserError as error:
            outcome = {"error": str(error)}
    outcome = agree(outcome)
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["value"]


def gone(error: BaseException) -> str | None:
    """What to say of an error that means that another process has ended, in two lines; None for any other."""
    said = " ".join(str(error).split())
    if not _joined or not any(words in said for words in _GONE):
        return None
    return f"another process of this run has ended ({type(error).__name__}: {escape.message(error, 160)})\n{_AGAIN}"


def end(code: int) -> None:
    """Ends a process that failed, with `code`: without the others, for which an orderly end would wait."""
    if not _joined or code in (0, 130, 143):
        return
    if is_main():  # it keeps the list of the living: those who fail with it should have said so themselves
        time.sleep(2)
    interrupt.leave(code)


class Stop:
    """The signal that some process got, told to all of them at the same step.

    Each call sends this process's own and returns what was sent at the call before: the devices compute meanwhile.
    """

    def __init__(self) -> None:
        """All processes make one at the same point."""
        import jax

        self._alone = jax.process_count() == 1
        self._sent: Any = None
        if self._alone:
            return
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        mesh = Mesh(np.asarray(jax.devices()), ("all",))
        self._places = NamedSharding(mesh, PartitionSpec("all"))
        self._greatest = jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, signum: int | None) -> int | None:
        """`signum`: what this process got so far, or None."""
        if self._alone:
            return signum
        import jax

        before = None if self._sent is None else int(self._sent)
        own = np.full(jax.local_device_count(), signum or 0, np.int32)
        self._sent = self._greatest(jax.make_array_from_process_local_data(self._places, own))
        return before or None
