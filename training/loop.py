"""What all trainings here have in common: they last some minutes, and go on from what they wrote."""
import math
import os
import time

import torch


def steps(minutes, opt, top, warm=50, end=.03, done=0):
    """Counts from 1 until the minutes are over: yields step, seconds, whether it is the last.

    Sets the learning rate: up to `top` in `warm` steps, of which `done` were made before, then down
    to the share `end` of it as a cosine."""
    begin, step, part = time.time(), 0, 0
    while part < 1:
        seconds = time.time() - begin
        part = seconds / (minutes * 60)
        step += 1
        for g in opt.param_groups:
            g['lr'] = top * min(1, (step + done) / warm) * (end + (1 - end) * (.5 + .5 * math.cos(math.pi * min(part, 1))))
        yield step, seconds, part >= 1


def keep(path, **what):
    """Writes a checkpoint; one that is there is whole at every moment."""
    torch.save(what, path + '.part')
    os.rename(path + '.part', path)
