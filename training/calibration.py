"""Platt scaling per task, fitted so that the probabilities of real traffic come out right.

Knows logits, labels, weights and the chain of tasks. Does not know networks, metrics or files.

P(task | given) = sigmoid(slope * logit + intercept), slope > 0: the order of the scores, and so AUC, never
changes (Platt 1999). The two numbers maximise the likelihood times a weak prior,

    log slope ~ N(0, 0.5^2),   intercept ~ N(0, 2^2),

worth about as much as four positives for the slope and a quarter of one for the intercept, so that a handful of
positives cannot throw either to infinity and a thousand leave nothing of it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Calibration
from contract.errors import ScoreInvalid
from contract.tasks import Task, ancestry, outputs
from training.objectives import ObjectiveName

Floats = NDArray[np.float64]

PRIOR_PRECISION = np.array([0.5**-2, 2.0**-2])  # of log slope and intercept
STEPS = 100
TINY = 1e-300


def calibrate(
    tasks: tuple[Task, ...],
    logits: NDArray[np.floating],
    labels: NDArray[np.generic],
    *,
    weight: NDArray[np.floating] | None = None,
    objective: ObjectiveName = "independent",
    shift: float = 0.0,
) -> tuple[Calibration, ...]:
    """Fit one `Calibration` a task on held-out rows.

    `logits` [B, T] of P(task | given), `labels` [B, T] in {0, 1}, `weight` [B]. `independent` fits each task on
    the rows where its condition held. The others fit a conditional task on all rows, so that the product
    along `given`, with the ancestors as already calibrated, has the greatest likelihood for the joint label: it
    looks at pCTCVR of all traffic. The two agree if the ancestors' scores leave out nothing that drives the task;
    if they do, one holds to the given rows and the other leans towards the product.

    `shift` (see `downsampling_shift`) is added to the first task's logits before the fit and returned inside its
    intercept. A task whose rows are all of one class keeps slope 1. Raises: ScoreInvalid for a logit that is not
    finite.
    """
    z, y = np.array(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, dtype=np.float64)
    if z.shape != y.shape or z.shape != (w.size, len(tasks)):
        raise ValueError(f"logits {z.shape}, labels {y.shape} and weight {w.shape} do not fit {len(tasks)} tasks")
    if not np.isfinite(z).all():
        raise ScoreInvalid("a logit that is not a finite number")
    z[:, :1] += shift
    log_p = np.zeros_like(z)  # of the calibrated joint probabilities
    fitted: list[Calibration] = []
    for t, (task, chain) in enumerate(zip(tasks, ancestry(tasks), strict=True)):
        parent = log_p[:, chain[-2]] if len(chain) > 1 else np.zeros(w.size)
        if objective == "independent":
            given = y[:, chain[-2]] if len(chain) > 1 else np.ones(w.size)
            slope, intercept = _fit(z[:, t], y[:, t], w * given, np.zeros(w.size))
        else:
            slope, intercept = _fit(z[:, t], y[:, t], w, parent)
        log_p[:, t] = parent + _log_sigmoid(slope * z[:, t] + intercept)
        fitted.append(Calibration(task=task.name, slope=slope, intercept=intercept + (slope * shift if t == 0 else 0)))
    return tuple(fitted)


def identity(tasks: tuple[Task, ...]) -> tuple[Calibration, ...]:
    """The calibration that changes nothing."""
    return tuple(Calibration(task=task.name, slope=1.0, intercept=0.0) for task in tasks)


def downsampling_shift(rate: float) -> float:
    """What to add to the first task's logit when its negatives were kept with probability `rate`, unweighted.

    Keeping every positive and a share r of the negatives multiplies the odds by 1 / r whatever the features:
    p' / (1 - p') = p / ((1 - p) r), so logit p = logit p' + log r (He et al. 2014, section 6.3). Tasks given the
    first one lose no row of their own and need no shift. Other tasks do, but not a constant one: a run with
    several unconditional tasks has to weight its negatives by 1 / r instead.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"a rate of {rate}, which is not in (0, 1]")
    return float(np.log(rate))


def shifted(calibration: tuple[Calibration, ...], shift: float) -> tuple[Calibration, ...]:
    """`calibration` with `shift` added to the first task's calibrated logit.

    For a calibration fitted on downsampled, unweighted rows; one fitted on real traffic needs no more.
    """
    first = calibration[0]
    return (first.model_copy(update={"intercept": first.intercept + shift}), *calibration[1:])


def probabilities(
    tasks: tuple[Task, ...], logits: NDArray[np.floating], calibration: Sequence[Calibration]
) -> dict[str, NDArray[np.float32]]:
    """What a bundle would answer for `logits` [B, T]: each output's probabilities [B], by name.

    A joint probability is the float32 product of its factors, exactly: pctcvr == pctr * pcvr.
    """
    by_task = {fitted.task: fitted for fitted in calibration}
    index = {task.name: t for t, task in enumerate(tasks)}
    conditional = []
    for t, task in enumerate(tasks):
        fitted = by_task[task.name]
        z = np.asarray(logits[:, t], dtype=np.float64)
        conditional.append(np.exp(_log_sigmoid(fitted.slope * z + fitted.intercept)).astype(np.float32))
    joint: list[NDArray[np.float32]] = []
    for t, chain in enumerate(ancestry(tasks)):
        joint.append(joint[chain[-2]] * conditional[t] if len(chain) > 1 else conditional[t])
    return {
        output.name: (conditional if output.kind == "conditional" else joint)[index[output.task]]
        for output in outputs(tasks)
    }


def _fit(z: Floats, y: Floats, w: Floats, parent: Floats) -> tuple[float, float]:
    """Slope and intercept of the most likely q = sigmoid(slope z + intercept), where P(y) = exp(parent) q.

    Fisher scoring on (log slope, intercept) with step halving; with `parent` = 0 it is logistic regression.
    """
    if not w.any():
        return 1.0, 0.0
    positives, total = float((w * y).sum()), float(w.sum())
    both = 0 < positives < total
    theta = np.zeros(2)
    cost = _cost(theta, z, y, w, parent)
    for _ in range(STEPS):
        step = _step(theta, z, y, w, parent, both)
        for _ in range(40):
            candidate = theta - step
            new = _cost(candidate, z, y, w, parent)
            if new <= cost:
                break
            step /= 2
        else:
            break
        theta, cost = candidate, new
        if np.abs(step).max() < 1e-10:
            break
    return float(np.exp(theta[0])), float(theta[1])


def _cost(theta: Floats, z: Floats, y: Floats, w: Floats, parent: Floats) -> float:
    log_p = parent + _log_sigmoid(np.exp(theta[0]) * z + theta[1])
    likelihood = (w * (y * log_p + (1 - y) * _log1mexp(log_p))).sum()
    return float((PRIOR_PRECISION * theta**2).sum() / 2 - likelihood)


def _step(theta: Floats, z: Floats, y: Floats, w: Floats, parent: Floats, both: bool) -> Floats:
    """The Newton step with the expected Hessian, which is never indefinite.

    With u the calibrated logit, q = sigmoid(u), p = P q: d cost / du = (p - y) (1 - q) / (1 - p), and its
    expected square is p (1 - q)^2 / (1 - p). Without `both` classes the slope stays.
    """
    u = np.exp(theta[0]) * z + theta[1]
    log_p = parent + _log_sigmoid(u)
    odds = np.exp(_log_sigmoid(-u) - _log1mexp(log_p))  # (1 - q) / (1 - p), at most 1
    p = np.exp(log_p)
    slope = w * (p - y) * odds
    curvature = w * p * odds * np.exp(_log_sigmoid(-u))
    directions = np.stack([(u - theta[1]) * both, np.ones_like(u)])  # du / d log slope, du / d intercept
    gradient = np.einsum("ib,b->i", directions, slope) + PRIOR_PRECISION * theta
    hessian = np.einsum("ib,jb,b->ij", directions, directions, curvature) + np.diag(PRIOR_PRECISION)
    step = np.linalg.solve(hessian, gradient)
    step *= min(1.0, 2.0 / max(abs(step[0]), 1e-9))  # slope by at most e^2 at once, so that exp never overflows
    return step


def _log_sigmoid(u: Floats) -> Floats:
    return np.minimum(u, 0.0) - np.log1p(np.exp(-np.abs(u)))


def _log1mexp(x: Floats) -> Floats:
    """log(1 - exp(x)) for x <= 0 (Maechler 2012); finite at 0."""
    x = np.minimum(x, -TINY)
    near = x > -np.log(2)
    log: Floats = np.where(near, np.log(-np.expm1(x)), np.log1p(-np.exp(np.minimum(x, -np.log(2)))))
    return log
