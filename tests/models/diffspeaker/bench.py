"""`python -m tests.models.diffspeaker.bench [vocaset|biwi …]`: the denoising loop of 50 steps, as released and as generated.

Of one clip, speech encoder apart: from noise to vertices, best of three runs, or of as many as begin within 20 s. The plain
loop is the release's (`reference.py`) with today's attention kernels; its noise, masks and biases are its own work, its table
of biases is not. Random weights.
"""

import resource
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from models.diffspeaker.config import PRESETS
from models.diffspeaker.generate import denoise, fold, sampler_steps, vertices
from models.diffspeaker.network import self_bias
from tests.models.diffspeaker import reference
from tests.models.diffspeaker.corpus import randomised

SECONDS, LONG, STEPS = (5, 10, 30, 60), 120, 50
RUNS, ENOUGH = 3, 20.0  # seconds


def best(run) -> float:
    times: list[float] = []
    while len(times) < RUNS and sum(times) < ENOUGH:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def measure(preset: str) -> None:
    network = randomised(replace(PRESETS[preset], audio="speech", speech_encoder="hubert-base"))
    config, weights = network.config, dict(network.named_parameters())
    steps = sampler_steps("ddim", STEPS, config.noise_schedule)
    style, template = torch.eye(config.styles)[:1], np.zeros((config.vertices, 3), np.float32)
    start = time.perf_counter()
    folded = fold(network)
    print(f"{preset}: folded in {time.perf_counter() - start:.1f} s, {torch.get_num_threads()} threads", flush=True)

    def fast(frames: int, heard: torch.Tensor) -> np.ndarray:
        noise = torch.randn(1, frames, config.channels) @ folded.noise.T
        summed, share = denoise(network, folded, noise, [heard], style, torch.tensor([frames]), steps)
        return vertices(network, summed[0], share, template)

    for seconds in SECONDS:
        frames = seconds * config.fps
        heard = torch.randn(1, frames, config.audio_width)
        table = self_bias(network.denoiser.slopes_H, config.period, frames, 0, frames)

        def plain(frames: int = frames, heard: torch.Tensor = heard, table: torch.Tensor = table) -> torch.Tensor:
            def answer(x: torch.Tensor, n: int) -> torch.Tensor:
                return reference.denoise(weights, x, torch.tensor([n]), style, heard, table, config.period, config.heads)

            noise = torch.randn(1, frames, 3 * config.vertices)
            return reference.sample(noise, answer, "ddim", [step.n for step in steps])

        ours, theirs = best(lambda frames=frames, heard=heard: fast(frames, heard)), best(plain)
        print(f"  {seconds:3d} s: plain {theirs:7.2f} s   fast {ours:6.2f} s   {theirs / ours:5.1f} times as fast", flush=True)


@torch.inference_mode()
def measure_memory(preset: str) -> None:
    """In a process of its own, as the largest memory of a process never falls."""
    network = randomised(replace(PRESETS[preset], audio="speech", speech_encoder="hubert-base"))
    config, frames = network.config, LONG * network.config.fps
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    folded, heard = fold(network), torch.randn(1, frames, config.audio_width)
    noise = torch.randn(1, frames, config.channels) @ folded.noise.T
    steps = sampler_steps("ddim", 4, config.noise_schedule)
    summed, share = denoise(network, folded, noise, [heard], torch.eye(config.styles)[:1], torch.tensor([frames]), steps)
    looped = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = vertices(network, summed[0], share, np.zeros((config.vertices, 3), np.float32))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{preset}, {LONG} s: largest memory of the process {before / 2**10:.0f} MiB with the network, {looped / 2**10:.0f} "
        f"after the loop, {after / 2**10:.0f} with the vertices, which are {made.nbytes / 2**20:.0f}"
    )


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if wanted[:1] == ["memory"]:
        measure_memory(wanted[1])
    else:
        for name in wanted or ("vocaset", "biwi"):
            measure(name)
