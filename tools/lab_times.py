"""Measure the lab in the page: seconds, processor seconds, memory and agreement with PyTorch, as docs/lab.md has them.

python tools/lab_times.py FOLDER     FOLDER: a lab that tools/web_lab.py wrote; needs Linux and Chromium

Processor seconds are those of the page's process, with its worker, in which the lab computes. On a machine with other
work they say more than seconds. A phone is taken to be four times as slow.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import lab_server  # noqa: E402

PHONE = 4  # times as slow
# What, the job that client.mjs is asked for, evaluations, arguments in JavaScript: x is a head, k a way to scan
JOBS = [
    ("first picture, all loaded before it", "draw", 8, "{seed: 3, y: 4, w: 1, n: 8}"),
    ("another picture", "draw", 8, "{seed: 3, y: 4, w: 1, n: 8}"),
    ("another, guided by w = 3", "draw", 16, "{seed: 3, y: 4, w: 3, n: 8}"),
    ("one look", "look", 1, "{x_0: new Float32Array(4096), seed: 3, t: 0.5}"),
    ("first fill, its network loaded before it", "fill", 15, "{x, m: x.map((_, i) => +(i % 96 > 40)), seed: 1, n: 15}"),
    ("another fill", "fill", 15, "{x, m: x.map((_, i) => +(i % 96 > 40)), seed: 2, n: 15}"),
    ("a healed head", "heal", 8, "{x, t_0: 0.4, seed: 1, n: 8}"),
    ("a scan, with zeros", "scan", 0, "{x, lines: lab.lines[4], sigma_y: lab.sigma_y}"),
    (
        "a reconstruction",
        "reconstruct",
        15,
        "{y: scanned.y, lines: lab.lines[4], sigma_y: lab.sigma_y, seed: 1, n: 15}",
    ),
]
ASK = """async () => {
    const { ask } = await import('./client.mjs');
    const lab = window.lab ??= await (await fetch('lab.json')).json();
    const bytes = new Uint8Array(await (await fetch('patients.bin')).arrayBuffer());
    const x = Float32Array.from(bytes.subarray(0, 96 * 96), (v) => v / 127.5 - 1), scanned = window.scanned;
    const k = { lines: lab.lines[4], sigma_y: lab.sigma_y };
    const begin = performance.now();
    const found = await ask('%s', %s);
    if (found.zeroFilled) window.scanned = found;
    return [(performance.now() - begin) / 1000, [...(found.x_0 ?? [])]];
}"""


def renderer(browser):
    """Process number and processor seconds of the page's process, the busiest of its kind."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    busiest = max((p for p in processes if p["type"] == "renderer"), key=lambda p: p["cpuTime"])
    return busiest["id"], busiest["cpuTime"]


def most_memory(pid):
    """The most memory that a process has held, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def agreement(image):
    """The largest difference of the first picture from PyTorch's, same seed, float32."""
    import torch
    import web_lab

    from course_lib import pretrained
    from course_lib.samplers import dpmpp_2m_step, sample
    from course_lib.schedules import log_snr_times

    denoiser = pretrained.load_denoiser("mednist", precision=torch.float32)
    noise = torch.tensor(web_lab.normal(3, 0, 64 * 64)).reshape(1, 1, 64, 64)
    ours = sample(denoiser.given(torch.tensor([4])), noise, log_snr_times(denoiser.schedule, 8), dpmpp_2m_step)
    return float((torch.tensor(image) - ours.flatten()).abs().max())


def measure(folder):
    """Print the table."""
    print("| what | evaluations | seconds | processor seconds | on a phone |\n|---|---:|---:|---:|---:|")
    images = {}
    with lab_server.served(folder) as address, lab_server.chromium(390, 844) as page:
        page.set_default_timeout(lab_server.PATIENCE)
        page.goto(address)
        page.wait_for_function("document.getElementById('trouble').hidden")
        browser = page.context.browser
        for name, job, evaluations, given in JOBS:
            before = renderer(browser)[1]
            seconds, images[name] = page.evaluate(ASK % (job, given))
            took = renderer(browser)[1] - before
            print(f"| {name} | {evaluations or ''} | {seconds:.1f} | {took:.2f} | {PHONE * took:.1f} |", flush=True)
        print(f"\nmemory {most_memory(renderer(browser)[0]):.0f} MB; load of the machine {os.getloadavg()[0]:.1f}")
    print(f"largest difference from PyTorch {agreement(images[JOBS[0][0]]):.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the lab")
    measure(parser.parse_args().folder)
