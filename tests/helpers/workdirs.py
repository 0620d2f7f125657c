"""What a run left in its workdir, read back for comparison."""

import json

from jaxvit.workdir.checkpoint import Checkpoints


def lines(workdir):
    """The lines of metrics.jsonl, as dicts."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def final_state(workdir):
    """The arrays of the last checkpoint, as they lie on disk."""
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(workdir / "checkpoints")
    step = checkpoints.steps("last")[-1]
    checkpoints.close()
    return ocp.StandardCheckpointer().restore((workdir / "checkpoints" / "last" / str(step) / "state").absolute())
