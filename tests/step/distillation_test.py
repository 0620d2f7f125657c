"""The objectives of distillation."""

import jax.numpy as jnp
import numpy as np

from jaxvit.step import distillation


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_objectives_by_hand():
    rng = np.random.default_rng(0)
    student, dist, teacher = rng.normal(size=(3, 4, 5))
    targets = np.eye(5)[rng.integers(5, size=4)]
    batch = {"targets": jnp.asarray(targets), "teacher_logits": jnp.asarray(teacher)}
    ce = -(targets * log_softmax(student)).sum(-1)
    p, q = log_softmax(teacher / 2), log_softmax(student / 2)
    first = teacher.argmax(-1)
    expected = {
        "soft": 0.7 * ce + 0.3 * 4 * (np.exp(p) * (p - q)).sum(-1),
        "hard": 0.7 * ce - 0.3 * log_softmax(student)[np.arange(4), first],
        "token": 0.7 * ce - 0.3 * log_softmax(dist)[np.arange(4), first],
    }
    for mode, loss in expected.items():
        outputs = (jnp.asarray(student), jnp.asarray(dist)) if mode == "token" else jnp.asarray(student)
        got, logits = distillation.make_objective(mode, alpha=0.3, temperature=2.0)(outputs, batch)
        np.testing.assert_allclose(got, loss, rtol=1e-5)
        mean = (student + dist) / 2 if mode == "token" else student
        np.testing.assert_allclose(logits, mean, rtol=1e-5, atol=1e-6)  # float32 against float64, with cancellation
