"""Prints the tables of tests/engine/test_schedule.c: what diffusers' scheduler makes of its options.

    python tests/reference/sigmas.py       (diffusers 0.42, numpy 2)
"""

import hashlib

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu


def sigmas(steps, shift, mu):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=mu is not None)
    raw = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(sigmas=raw, mu=mu)
    return scheduler.sigmas.numpy(), scheduler.timesteps.numpy()


print("/* steps, shift, mu (NAN: static), sha256 of sigmas and timesteps */")
for steps in (1, 2, 4, 24, 50, 1000):
    for shift, mu in ((2.0, None), (3.0, None), (1.0, None), (1.15, None), (3.0, 0.5), (3.0, 2.291180)):
        s, t = sigmas(steps, shift, mu)
        digest = hashlib.sha256(s.tobytes() + t.tobytes()).hexdigest()
        print('{%d, %r, %s, "%s"},' % (steps, shift, "NAN" if mu is None else repr(mu), digest))

print("/* tokens, steps, mu */")
for tokens in (64, 256, 1024, 4096, 4300, 4301, 8160, 65536):
    for steps in (1, 4, 24, 50):
        print("{%d, %d, %s}," % (tokens, steps, float(compute_empirical_mu(tokens, steps)).hex()))
