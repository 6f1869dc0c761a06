"""What diffusers' schedulers do with their options: the cases of tests/engine/schedulers.json.

    python tests/reference/schedulers.py [--write]       (diffusers 0.42, torch 2, numpy 2)

Each case runs a whole trajectory of four numbers with a made-up model,
f(x, t) = 0.3 x + 0.0005 t - 0.2 of the scaled input, and keeps the tables and every latent on the
way. Without --write the cases are recomputed and compared with the file.
"""

import inspect
import json
import sys
import warnings

import diffusers
import numpy as np
import torch

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()
FILE = "tests/engine/schedulers.json"
START = torch.tensor([1.0, -0.5, 0.25, 2.0]).reshape(1, 4, 1, 1)
NOISE = torch.tensor([0.3, -1.2, 0.7, 0.1]).reshape(1, 4, 1, 1)

SD = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, num_train_timesteps=1000)
SDXL = dict(SD, steps_offset=1, timestep_spacing="leading", set_alpha_to_one=False, skip_prk_steps=True,
            clip_sample=False, interpolation_type="linear", prediction_type="epsilon")
SD15 = dict(SD, steps_offset=1, set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False)
WAN = dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
V = dict(SDXL, prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)

EULER, EULER_A = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
DPM, DDIM = "DPMSolverMultistepScheduler", "DDIMScheduler"
PNDM, UNIPC, LCM = "PNDMScheduler", "UniPCMultistepScheduler", "LCMScheduler"
FLOW = "FlowMatchEulerDiscreteScheduler"
WORDS = {"flow_euler": FLOW, "euler": EULER, "euler_a": EULER_A, "dpmpp_2m": DPM, "dpmpp_2m_karras": DPM,
         "ddim": DDIM, "pndm": PNDM, "unipc": UNIPC, "lcm": LCM}

# class, options, steps, {swap: word, first: entry to start from}
CASES = [
    (EULER, SDXL, (1, 4, 30), {}),
    (EULER, SD15, (6,), {}),
    (EULER, dict(SDXL, timestep_spacing="trailing"), (3, 7), {}),
    (EULER, dict(SDXL, timestep_spacing="linspace"), (1, 5), {}),
    (EULER, dict(SDXL, use_karras_sigmas=True), (1, 10), {}),
    (EULER, dict(SDXL, use_karras_sigmas=True, sigma_min=0.05, sigma_max=9.0), (6,), {}),
    (EULER, dict(SDXL, interpolation_type="log_linear"), (6,), {}),
    (EULER, dict(SDXL, use_exponential_sigmas=True), (1, 7), {}),
    (EULER, dict(SDXL, use_exponential_sigmas=True, sigma_min=0.05, sigma_max=9.0), (5,), {}),
    (EULER, dict(SDXL, final_sigmas_type="sigma_min"), (5,), {}),
    (EULER, V, (6,), {}),
    (EULER, dict(SDXL, prediction_type="sample"), (5,), {}),
    (EULER, dict(SD, beta_schedule="linear"), (4,), {}),
    (EULER, dict(SD, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"), (5,), {}),
    (EULER, dict(num_train_timesteps=400), (4,), {}),
    (EULER, SDXL, (10,), dict(first=7)),
    (EULER_A, dict(SDXL, timestep_spacing="trailing"), (1, 4), {}),
    (EULER_A, SDXL, (10,), {}),
    (EULER_A, V, (5,), {}),
    (EULER_A, SD15, (6,), dict(first=2)),
    (DPM, SDXL, (1, 2, 3, 16, 20), {}),
    (DPM, SD15, (6,), {}),
    (DPM, dict(SDXL, use_karras_sigmas=True), (1, 2, 8, 20), {}),
    (DPM, dict(SDXL, use_exponential_sigmas=True), (6,), {}),
    (DPM, dict(SDXL, solver_order=1), (4,), {}),
    (DPM, dict(SDXL, solver_order=3), (2, 5, 17), {}),
    (DPM, dict(SDXL, solver_type="heun"), (6,), {}),
    (DPM, dict(SDXL, final_sigmas_type="sigma_min", euler_at_final=True), (16,), {}),
    (DPM, dict(SDXL, final_sigmas_type="sigma_min", lower_order_final=False), (5,), {}),
    (DPM, dict(SDXL, timestep_spacing="trailing", prediction_type="v_prediction"), (5,), {}),
    (DPM, V, (5,), {}),
    (DPM, dict(SDXL, prediction_type="sample"), (5,), {}),
    (DPM, SDXL, (20,), dict(first=14)),
    (DPM, dict(SDXL, solver_order=3, use_karras_sigmas=True), (12,), dict(first=5)),
    (DDIM, SD15, (1, 4, 20), {}),
    (DDIM, dict(SD15, set_alpha_to_one=True, timestep_spacing="trailing"), (7,), {}),
    (DDIM, dict(SD15, timestep_spacing="linspace", prediction_type="sample"), (5,), {}),
    (DDIM, V, (5,), {}),
    (DDIM, dict(SD15, prediction_type="v_prediction"), (6,), {}),
    (DDIM, SD15, (10,), dict(first=4)),
    (DDIM, dict(SD15, clip_sample=True), (6,), {}),
    (DDIM, dict(SD15, clip_sample=True, clip_sample_range=0.4, prediction_type="v_prediction"), (5,), dict(first=1)),
    (PNDM, SD15, (1, 2, 6, 20), {}),
    (PNDM, dict(SD15, prediction_type="v_prediction", timestep_spacing="trailing"), (6,), {}),
    (PNDM, dict(SD15, set_alpha_to_one=True, timestep_spacing="linspace"), (5,), {}),
    (PNDM, SD15, (8,), dict(first=2)),
    (PNDM, dict(SD15, skip_prk_steps=False), (4, 10), {}),
    (PNDM, dict(SD15, skip_prk_steps=False, prediction_type="v_prediction"), (6,), {}),
    (PNDM, dict(SD15, skip_prk_steps=False), (8,), dict(first=2)),
    (PNDM, dict(SD15, skip_prk_steps=False, timestep_spacing="trailing"), (9,), dict(first=5)),
    (UNIPC, WAN, (1, 2, 8, 30), {}),
    (UNIPC, dict(WAN, flow_shift=5.0), (1, 2, 30, 50), {}),
    (UNIPC, dict(WAN, solver_order=3), (3, 9), {}),
    (UNIPC, dict(WAN, solver_order=1), (4,), {}),
    (UNIPC, dict(SDXL, solver_type="bh1", final_sigmas_type="sigma_min"), (6,), {}),
    (UNIPC, dict(WAN, final_sigmas_type="sigma_min"), (4,), {}),
    (UNIPC, WAN, (10,), dict(first=6)),
    (UNIPC, dict(WAN, use_dynamic_shifting=True), (4,), dict(mu=0.7)),
    (UNIPC, SDXL, (1, 5, 20), {}),
    (UNIPC, dict(SDXL, use_karras_sigmas=True), (6,), {}),
    (UNIPC, dict(SDXL, use_exponential_sigmas=True), (6,), {}),
    (UNIPC, dict(SDXL, solver_order=3, timestep_spacing="trailing"), (6,), {}),
    (UNIPC, V, (5,), {}),
    (UNIPC, dict(SDXL, solver_order=3), (9,), dict(first=3)),
    (LCM, SDXL, (1, 4, 8), {}),
    (LCM, dict(original_inference_steps=100, timestep_scaling=5.0, prediction_type="v_prediction"), (6,), {}),
    (LCM, dict(prediction_type="sample", set_alpha_to_one=False), (7,), {}),
    (LCM, SDXL, (8,), dict(first=4)),
    (LCM, dict(SDXL, clip_sample=True), (5,), {}),
    (FLOW, dict(shift=3.0), (1, 4, 9), {}),
    (FLOW, dict(use_dynamic_shifting=True), (4,), dict(mu=2.29118)),
    (FLOW, dict(use_dynamic_shifting=True, time_shift_type="linear"), (4,), dict(mu=1.3)),
    (FLOW, dict(shift=2.0), (8,), dict(first=3)),
    # another kind than the file's own: its keys go along, absent ones fall to the new class's own
    (PNDM, SD15, (6,), dict(swap="euler")),
    (PNDM, SD15, (6,), dict(swap="euler_a")),
    (PNDM, SD15, (6,), dict(swap="dpmpp_2m")),
    (PNDM, SD15, (6,), dict(swap="dpmpp_2m_karras")),
    (PNDM, SD15, (6,), dict(swap="ddim")),
    (PNDM, SD15, (6,), dict(swap="unipc")),
    (PNDM, SD15, (4,), dict(swap="lcm")),
    (EULER, SDXL, (6,), dict(swap="pndm")),
    (EULER, SD, (6,), dict(swap="ddim")),
    (EULER, SD, (6,), dict(swap="pndm", first=1)),
    (EULER, SDXL, (6,), dict(swap="lcm")),
    (DPM, dict(SDXL, use_karras_sigmas=True), (6,), dict(swap="dpmpp_2m")),
    (EULER, {"prediction_type": "epsilon"}, (4,), dict(swap="lcm")),
    (FLOW, dict(shift=3.0), (6,), dict(swap="unipc")),
    (FLOW, dict(use_dynamic_shifting=True), (6,), dict(swap="unipc", mu=1.1)),
]


def build(class_name, options, swap):
    """The scheduler as a user of diffusers would get it."""
    extra = {"dpmpp_2m": dict(use_karras_sigmas=False), "dpmpp_2m_karras": dict(use_karras_sigmas=True)}.get(swap, {})
    if class_name == FLOW and swap == "unipc":
        extra = dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=options.get("shift", 1.0))
    cls = getattr(diffusers, WORDS[swap] if swap else class_name)
    known = inspect.signature(cls.__init__).parameters
    merged = {k: v for k, v in dict(options, **extra).items() if k in known}
    return cls(**merged)


def set_timesteps(s, steps, mu):
    if isinstance(s, diffusers.FlowMatchEulerDiscreteScheduler):
        s.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    elif mu is not None:
        s.set_timesteps(steps, mu=mu)
    else:
        s.set_timesteps(steps)


def noised(s, i, clean, noise):
    """The clean latent as it looks at entry i of the list."""
    t = s.timesteps[i : i + 1]
    if hasattr(s, "set_begin_index"):
        s.set_begin_index(i)
    if isinstance(s, diffusers.FlowMatchEulerDiscreteScheduler):
        return s.scale_noise(clean, t, noise)
    return s.add_noise(clean, noise, t)


def numbers(values):
    return [float("%.8g" % v) for v in torch.as_tensor(values, dtype=torch.float64).flatten().tolist()]


def run(class_name, options, steps, swap=None, first=0, mu=None):
    s = build(class_name, options, swap)
    set_timesteps(s, steps, mu)
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    mixtures = [numbers([noised(s, i, one, zero).item(), noised(s, i, zero, one).item()])
                for i in range(first, len(s.timesteps))]
    x = noised(s, first, START, NOISE) if first else START * getattr(s, "init_noise_sigma", 1.0)
    if hasattr(s, "set_begin_index"):
        s.set_begin_index(first)
    generator = torch.Generator("cpu").manual_seed(7)
    draws = {"generator": generator} if "generator" in inspect.signature(s.step).parameters else {}
    trail, finished = [], []
    for t in s.timesteps[first:]:
        scaled = s.scale_model_input(x, t) if hasattr(s, "scale_model_input") else x
        out = s.step(0.3 * scaled + 0.0005 * t - 0.2, t, x, **draws)
        x = out.prev_sample
        trail.append(numbers(x))
        if hasattr(out, "pred_original_sample"):
            finished.append(numbers(out.pred_original_sample))
    sigmas = s.sigmas[first:] if hasattr(s, "sigmas") else []
    return dict({"_class_name": class_name, "options": options, "steps": steps},
                **({"swap": swap} if swap else {}), **({"first": first} if first else {}),
                **({"mu": mu} if mu is not None else {}),
                initial=float(getattr(s, "init_noise_sigma", 1.0)), timesteps=numbers(s.timesteps[first:]),
                sigmas=numbers(sigmas), noised=mixtures, x=trail, x0=finished)


def differ(a, b):
    if isinstance(a, dict):
        return a.keys() != b.keys() or any(differ(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) != len(b) or any(map(differ, a, b))
    return abs(a - b) > 1e-5 * max(1, abs(a)) if isinstance(a, float) else a != b


cases = [run(c, o, n, **more) for c, o, steps, more in CASES for n in steps]
if "--write" in sys.argv:
    with open(FILE, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
else:
    with open(FILE) as f:
        held = json.load(f)
    wrong = [i for i, (a, b) in enumerate(zip(cases, held)) if differ(json.loads(json.dumps(a)), b)]
    if wrong or len(held) != len(cases):
        sys.exit("%s: cases %s differ from diffusers' (%d held, %d made)" % (FILE, wrong, len(held), len(cases)))
print("%d cases of diffusers %s" % (len(cases), diffusers.__version__))
