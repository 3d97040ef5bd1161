"""Two published ways to adapt the rate to the held-out loss: ReduceLROnPlateau and GreedyLR, as pure functions."""

from dataclasses import replace

from ayllu.train.adapt import AdaptConfig, AdaptState, Decision


def reduce_on_plateau(config: AdaptConfig, state: AdaptState, held: float | None) -> tuple[AdaptState, Decision]:
    """Shrink after more than `patience` evaluations in a row without a gain: torch's ReduceLROnPlateau.

    A gain is a loss lower than the best by the share `threshold` (torch's mode `rel`).
    """
    if held is None:
        return state, Decision()
    if held < state.best * (1 - config.threshold):
        return replace(state, best=held, bad=0), Decision()
    state = replace(state, bad=state.bad + 1)
    if state.bad <= config.patience:
        return state, Decision()
    return _shrink(config, replace(state, bad=0), f"no gain in {state.bad} evaluations")


def greedy(config: AdaptConfig, state: AdaptState, held: float | None) -> tuple[AdaptState, Decision]:
    """Grow after more than `patience` gains in a row, shrink after as many failures: GreedyLR (arXiv:2512.14527).

    As in the authors' code a gain is a loss lower than the best by `threshold`, in absolute terms; without smoothing,
    waiting periods and the reset at the lower bound.
    """
    if held is None:
        return state, Decision()
    if held < state.best - config.threshold:
        state = replace(state, best=held, bad=0, good=state.good + 1)
    else:
        state = replace(state, bad=state.bad + 1, good=0)
    if state.good > config.patience:
        grown = min(state.multiplier / config.factor, config.most)
        reason = f"{state.good} gains in a row: rate x {grown:.3g}"
        return replace(state, multiplier=grown, good=0), Decision("grow", reason)
    if state.bad > config.patience:
        return _shrink(config, replace(state, bad=0), f"no gain in {state.bad} evaluations")
    return state, Decision()


def _shrink(config: AdaptConfig, state: AdaptState, why: str) -> tuple[AdaptState, Decision]:
    lower = max(state.multiplier * config.factor, config.least)
    return replace(state, multiplier=lower), Decision("shrink", f"{why}: rate x {lower:.3g}")
