"""Gradual unfreezing: what trains from which epoch on, and the state of a run when more of it starts to train."""

from collections.abc import Sequence
from typing import Any

from jaxvit import optim, tree
from jaxvit.errors import UserError
from jaxvit.step.state import TrainState

EXAMPLE = '((2, "last_2_blocks"), (5, "none"))'


def read_phases(freeze: str, unfreeze: Sequence[Any], num_epochs: int) -> list[tuple[int, str]]:
    """Returns (first epoch, counted from 0, what is frozen from there on) of each phase, from the config's words.

    Raises:
      UserError: an entry is no such pair, or the epochs do not rise or are not reached.
    """
    phases = [(0, freeze)]
    for entry in unfreeze:
        pair: tuple[Any, ...] = tuple(entry) if isinstance(entry, list | tuple) else ()
        whole = len(pair) == 2 and isinstance(pair[0], int) and not isinstance(pair[0], bool)
        if not whole or not isinstance(pair[1], str):
            raise UserError(f"optim.unfreeze has {entry!r}; expected (epochs done, optim.freeze word), as {EXAMPLE}")
        if pair[0] <= phases[-1][0]:
            raise UserError(f"optim.unfreeze: epoch {pair[0]} does not come after {phases[-1][0]}; expected {EXAMPLE}")
        if pair[0] >= num_epochs:
            raise UserError(f"optim.unfreeze: epoch {pair[0]} is never reached; num_epochs is {num_epochs}")
        phases.append((pair[0], pair[1]))
    return phases


def trainable_masks(params: Any, phases: Sequence[tuple[int, str]]) -> list[Any]:
    """Returns what trains in each phase, trees of bools like the parameters (or their shapes).

    Raises:
      UserError: a phase trains nothing that the one before it did not, or freezes something again.
    """
    found = [optim.freeze_mask(params, freeze) for _, freeze in phases]
    for (epoch, freeze), before, after in zip(phases[1:], found, found[1:], strict=False):
        old, new = tree.named_leaves(before), tree.named_leaves(after)
        again = [path for path in old if old[path] and not new[path]]
        if again:
            raise UserError(f"optim.unfreeze: {freeze!r} of epoch {epoch} freezes {again[0]}, which trained before")
        if old == new:
            raise UserError(f"optim.unfreeze: {freeze!r} of epoch {epoch} thaws nothing")
    return found


def thawed(old: TrainState, fresh: TrainState) -> TrainState:
    """Returns `fresh`, the new phase's state at step 0 with the weights of `old`, at the place where `old` stands.

    The optimiser begins anew, except for its place in the schedule; the averages of the weights go on.
    """
    ema = fresh.ema
    if ema:
        known = tree.named_leaves(old.ema["params"])
        ema = {
            "params": tree.map_with_path(lambda path, leaf: known.get(path, leaf), ema["params"]),
            "batch_stats": old.ema["batch_stats"],
        }
    opt_state = optim.at_step(fresh.opt_state, old.step)
    return fresh.replace(step=old.step, opt_state=opt_state, ema=ema, lr_scale=old.lr_scale, key=old.key)
