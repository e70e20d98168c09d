"""A day on a large GPU: the whole queue within a budget of minutes, several networks side by side, a process each.

In the folder of a day lie

- ``data/``: the arrays that networks are trained on, made beforehand by many processes;
- ``weights/``: the networks that ship, replaced by those of the day once they are measured;
- ``NAME.checkpoint.safetensors`` and ``fall/``: checkpoints, before and after the learning rate fell;
- ``results/``: what one takes home: for each network its weights, card and log; and ``summary.json``.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from course_lib import datasets, pretrained, runtime
from course_lib.checkpoints import read_checkpoint, save_checkpoint
from course_lib.eight_bits import rounded
from course_lib.files import write_atomically, write_together
from course_lib.recipes import queue
from course_lib.recipes.runs import checkpoint_path, measured, precision_of, run, settings, trained

LEVEL = 0.7  # of the steps, after which the learning rate falls
CLOSING = 0.03  # of the budget, kept for the end
MEASURING = 0.15  # of a network's time, kept for its measure
LONGEST = 0.45  # of the time left, that a network takes on which others wait
LAST = 50  # steps, over which the loss in the summary is the mean
BATCH = 4  # times the recipe's on a GPU, where a step of so small a network then costs hardly more
LEAST = 0.03  # of the budget, below which no network is begun any more


@dataclass(frozen=True)
class Day:
    """What the processes of a day share: its folder, cores for each process, whether networks are compiled, and the
    precision, None for the faster one."""

    folder: Path
    cores: int
    compiled: bool
    precision: torch.dtype | None


def gpu_day(minutes, folder, slots=6, compiled=False, precision=None, only=()):
    """Train the entries of the queue that have no result in the folder, within so many minutes; returns the summary,
    {name: what became of it}.

    slots : networks that are trained side by side. Each gets of the time left what its share is of the shares of all
    that still wait. One that fails is named in the summary, and the others go on. The same call again goes on with
    what has no result yet. only : names of the entries that are trained, all where it is empty; one whose predecessor
    is not among them, or could not be measured, starts from what ships. Raises ValueError for a name that the queue
    does not have.
    """
    if unknown := sorted(set(only) - {entry.name for entry in queue.QUEUE}):
        raise ValueError(f"only: the queue has no {', '.join(unknown)}; course_lib/recipes/queue.py names its entries")
    begin = time.time()
    end, closing = begin + 60 * minutes, 60 * minutes * CLOSING
    cores = max(1, (os.cpu_count() or 1) // slots)
    day = Day(Path(folder), cores, compiled, precision)
    _lay_out(day)
    wanted = [entry for entry in queue.QUEUE if not only or entry.name in only]
    entries = [entry for entry in wanted if "measure" not in _what_became(day, entry.name)]
    maker = _started(_make_data, day, [entry.name for entry in entries if not entry.own_data])
    try:
        _go_through(day, entries, maker, slots, end - closing, 60 * minutes * LEAST)
    finally:
        _stop(maker)
    summary = {entry.name: _what_became(day, entry.name) for entry in wanted}
    text = json.dumps({"minutes": round((time.time() - begin) / 60, 2), "networks": summary}, indent=2)
    write_atomically(day.folder / "results" / "summary.json", text.encode())
    return summary


def _lay_out(day):
    """Make the folders of a day, and lay into its weights what ships, and over it what an earlier call has measured."""
    for part in ("data", "weights", "fall", "results"):
        (day.folder / part).mkdir(parents=True, exist_ok=True)
    for path in pretrained.WEIGHTS.iterdir():
        _copy(path, day.folder / "weights")
    for entry in queue.QUEUE:
        if "measure" in _what_became(day, entry.name) and (day.folder / "results" / f"{entry.name}.json").exists():
            _use(day, entry.name)


def _copy(path, folder):
    """Copy a file into a folder, all of it or nothing."""
    write_atomically(folder / path.name, path.read_bytes())


def _go_through(day, waiting, maker, slots, end, least):
    """Start, watch and stop the processes of the entries, until all are done or the end is there."""
    running = {}  # name: (process, when it is to be done)
    try:
        while (waiting or running) and time.time() < end:
            running = {name: (process, until) for name, (process, until) in running.items() if process.is_alive()}
            ready = [entry for entry in waiting if _is_ready(day, entry, waiting, running, maker)]
            if end - time.time() < least:
                waiting = []
            elif ready and len(running) < slots:
                until = _until(ready[0], waiting, running, slots, end)
                running[ready[0].name] = _started(_train_and_measure, day, ready[0].name, until), until
                waiting = [other for other in waiting if other is not ready[0]]
            else:
                time.sleep(0.1)
    finally:
        for process, _ in running.values():
            _stop(process)


def _until(entry, waiting, running, slots, end):
    """When an entry that begins now is to be done: its share of the time that the slots have left."""
    now = time.time()
    free = slots * (end - now) - sum(max(0, until - now) for _, until in running.values())
    longest = LONGEST if any(entry.name in other.after for other in waiting) else 1
    return now + min(free * entry.share / sum(other.share for other in waiting), longest * (end - now))


def _is_ready(day, entry, waiting, running, maker):
    """Whether what the entry comes after is done, or failed, and its data are made, or failed."""
    others = {other.name for other in waiting} | running.keys()
    made = entry.own_data or _data_path(day, entry.name).exists() or not maker.is_alive()
    return made and not others & set(entry.after)


def _started(work, day, *arguments):
    """A process of its own that runs work(day, *arguments): on Linux a fork, so nothing before it may use the GPU."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    process = context.Process(target=_in_a_group, args=(work, day, *arguments))
    process.start()
    return process


def _in_a_group(work, *arguments):
    """Run work(*arguments) as the leader of a group of processes, which end together.

    Its progress bars have a lock of their own: a fork shares that of its parent, and a process that is stopped while it
    draws a bar would hold it for ever.
    """
    if hasattr(os, "setsid"):
        os.setsid()
    tqdm.set_lock(threading.RLock())
    work(*arguments)


def _stop(process):
    """End a process and those that it started, and wait for it."""
    for ask in ("SIGTERM", "SIGKILL"):
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, ask))
        elif process.is_alive():
            process.terminate()
        process.join(5)


def _entry(name):
    return next(entry for entry in queue.QUEUE if entry.name == name)


def _data_path(day, name):
    """The arrays of an entry's data, which the first entry with the same data names."""
    load = _entry(name).recipe().load_data
    owner = next(entry.name for entry in queue.QUEUE if entry.recipe().load_data is load)
    return day.folder / "data" / f"{owner}.npz"


# ---- Within a process of its own -------------------------------------------------------------------------------------


def _make_data(day, names):
    """Make the data of the entries, one after another, each by many processes, and keep them as arrays."""
    datasets.PROCESSES = os.cpu_count() or 1
    for name in names:
        try:
            if not _data_path(day, name).exists():
                _keep_data(_data_path(day, name), *_entry(name).recipe().load_data())
        except Exception:  # its own process will meet it again, and say so in its log
            continue


def _keep_data(path, images, labels):
    """Keep images and labels, or None, as one file of arrays."""
    temporary = path.with_suffix(".part.npz")
    with open(temporary, "wb") as file:
        np.savez(file, images=images, **({} if labels is None else {"labels": labels}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _kept_data(path):
    """The images and labels of such a file."""
    with np.load(path) as arrays:
        return arrays["images"], arrays.get("labels")


def _train_and_measure(day, name, until):
    """Train an entry and keep it in the results, measure it, keep it with what was measured, and only then lay it into
    the weights of the day: they hold the network that it started from, whose card its own counts on."""
    log = open(day.folder / "results" / f"{name}.log", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - to the end
    sys.stdout = sys.stderr = log
    os.dup2(log.fileno(), 1)  # what compilers print, too
    os.dup2(log.fileno(), 2)
    said = _what_became(day, name) | {"result": "stopped at the end of the day"}
    _say(day, name, said)
    try:
        torch.set_num_threads(day.cores)
        datasets.PROCESSES = day.cores
        pretrained.WEIGHTS = day.folder / "weights"
        entry, begin, results = _entry(name), time.time(), day.folder / "results"
        recipe, folder, loss = _train(day, entry, until)
        net, steps = trained(recipe, folder)
        said |= {"result": "trained, not measured", "images": steps * recipe.batch_size}
        if loss is not None:  # else an earlier call has trained it, and said so
            said |= {"seconds": round(time.time() - begin, 1), "loss": loss}
        made = recipe.describe()
        # there may be no time to measure
        pretrained.save(name, rounded(net), made | {"steps": steps}, folder=results, stored="int8")
        _say(day, name, said)
        net, about, extra = measured(recipe, folder)
        about |= {"training_images": len(recipe.load_data()[0])}
        pretrained.save(name, net, about, extra, results, stored="int8")
        missed = entry.misses(about)
        said |= {"result": "; ".join(missed) or "meets its bar"}
        _say(day, name, said | {"measure": {key: value for key, value in about.items() if key not in made}})
        _use(day, name)
    except Exception as error:
        traceback.print_exc()
        _say(day, name, said | {"result": f"failed: {type(error).__name__}: {error}"})
        sys.exit(1)


def _train(day, entry, until):
    """Train an entry until then; returns its recipe, of the steps that it came to, the folder of its checkpoint, and
    the loss over the last steps, None where an earlier call has taken all of them.

    It starts anew where the weights that it is to start from were left at home. Nobody knows beforehand how many steps
    there is time for. So the learning rate stays level for its share of the time; then the steps are known, and it
    falls from the checkpoint of there. Once it has begun to fall, another call goes on with that.
    """
    path = _data_path(day, entry.name)
    load = partial(_kept_data, path) if path.exists() else entry.recipe().load_data
    size = entry.recipe().batch_size * (BATCH if runtime.device() == "cuda" else 1)
    recipe = entry.recipe(entry.many, load_data=load, batch_size=size)
    begin, fall = time.time(), day.folder / "fall"
    last = begin + (1 - MEASURING) * (until - begin)
    is_here = entry.start and (pretrained.WEIGHTS / f"{entry.start}.safetensors").exists()
    options = day.precision or precision_of(recipe), entry.start if is_here else None, day.compiled
    if _steps_done(recipe, fall) > _steps_done(recipe, day.folder):
        recipe = dataclasses.replace(recipe, steps=settings(recipe, fall)["steps"])
    else:
        recipe = _train_level(recipe, day.folder, options, begin + LEVEL * (last - begin))
        _copy(checkpoint_path(recipe, day.folder), fall)
    losses = deque(maxlen=LAST)
    for state in run(recipe, fall, *options):
        losses.append(float(state.loss.mean()))
        if time.time() > last:
            save_checkpoint(checkpoint_path(recipe, fall), state)
            break
    print(f"\nended after step {_steps_done(recipe, fall)} of {recipe.steps}", flush=True)
    return recipe, fall, round(sum(losses) / len(losses), 5) if losses else None


def _train_level(recipe, folder, options, until):
    """Train a recipe up to where its learning rate falls, or until then; returns it with as many steps as that is the
    level share of."""
    level, done = max(1, int(LEVEL * recipe.steps)), _steps_done(recipe, folder)
    if done < level:
        for state in run(recipe, folder, *options):
            if time.time() > until or state.step >= level:
                save_checkpoint(checkpoint_path(recipe, folder), state)
                break
        done = state.step
    return dataclasses.replace(recipe, steps=max(done + 1, int(done / LEVEL))) if done < level else recipe


def _steps_done(recipe, folder):
    """The steps of a recipe's checkpoint in a folder; 0 without one."""
    path = checkpoint_path(recipe, folder)
    return read_checkpoint(path)[3] if path.exists() else 0


def _say(day, name, about):
    """Keep what is to be said of a network, for the summary."""
    write_atomically(day.folder / f"{name}.state.json", json.dumps(about).encode())


def _what_became(day, name):
    """What the summary says of a network."""
    path = day.folder / f"{name}.state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"result": "not begun"}


def _use(day, name):
    """Lay a network of the results, weights and card together, into the weights of the day."""
    files = (f"{name}.safetensors", f"{name}.json")
    write_together({day.folder / "weights" / file: (day.folder / "results" / file).read_bytes() for file in files})
