"""A study declares what is measured; :func:`run` loops, resumes and writes."""

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from course_lib import pretrained, runtime
from course_lib.experiments.record import path, resumed, write


@dataclass(frozen=True)
class Study:
    """What a study declares.

    name: of its record. plan(record): the rows that are wanted, each a dict of the entries that tell it from the
    others, what the notebook needs most first; a generator may look at the rows measured so far. measure(**key): the
    other entries of the row, and tensors by name. begin(): what stands above the rows, and tensors; called once.
    shared: names of the networks that all rows use. networks(key): names of those that a row uses besides, where rows
    differ in that; such a row is measured anew when one of them has changed, and left out while one is not there.
    """

    name: str
    plan: Callable
    measure: Callable
    begin: Callable
    shared: tuple = ()
    networks: Callable | None = None

    def needs(self, key):
        """sha256 of the networks that a row uses besides the shared ones; None where one of them is not there."""
        return pretrained.sha256_of(self.networks(key)) if self.networks else {}

    def is_fresh(self, row):
        """Whether a row was measured with the networks as they are now."""
        return row.get("needs", {}) == self.needs(row)

    def fresh(self, record):
        """The rows of a record that were measured with the networks as they are now."""
        return [row for row in record["rows"] if self.is_fresh(row)]


@dataclass(frozen=True)
class Method:
    """What a study compares. run: as the study says; settings: those to choose from on validation subjects; networks:
    names; evaluations: of networks, for one image."""

    run: Callable
    settings: tuple = ({},)
    networks: tuple = ()
    evaluations: int = 0


def study_of(name):
    """The study that makes the record of that name."""
    return import_module(f"course_lib.experiments.{name[3:]}").STUDY


def grid(**values):
    """Settings to choose from: a dict for each combination of the values."""
    return tuple(dict(zip(values, chosen)) for chosen in itertools.product(*values.values()))


def chosen(rows, name):
    """The validation row of a method with the highest average precision. Raises ValueError where there is none."""
    found = [row for row in rows if row["split"] == "validation" and row["method"] == name]
    if not found:
        raise ValueError(f"no validation row of {name!r}; there are: {sorted({row['method'] for row in rows})}")
    return max(found, key=lambda row: row["average_precision"])


def tuned(record, methods, study, tested=({},)):
    """The rows of a study that chooses settings: of each method whose networks are there all settings on validation,
    then the best of them on test, once for each of ``tested``, dicts of what else tells these rows apart. Test rows of
    a setting that is no longer the best, as may be once there are more of them, are taken out of the record."""
    for name, method in methods.items():
        if study.needs({"method": name}) is None:
            continue
        yield from ({"split": "validation", "method": name, "setting": setting} for setting in method.settings)
        offered = [row for row in record["rows"] if row.get("setting") in method.settings]
        best = {"split": "test", "method": name, "setting": chosen(offered, name)["setting"]}
        record["rows"][:] = [row for row in record["rows"] if not outdated(row, best)]
        yield from (best | key for key in tested)


def outdated(row, best):
    """Whether a row is one of the test rows of a method, told by all that ``best`` has beside its setting, and not of
    its best setting."""
    return row.get("setting") != best["setting"] and all(row[key] == best[key] for key in best.keys() - {"setting"})


def run(study):
    """Measure the rows that the record of a study lacks, and write it after each of them. It may be interrupted.
    Raises ValueError where something else has written the record meanwhile, as a second process would."""
    record, kept = resumed(study.name, study.shared, study.begin, study.is_fresh)
    stored = path(study.name).read_bytes()
    runtime.precision()  # measured once, before the clocks of the rows start
    for key in study.plan(record):
        needs = study.needs(key)
        if needs is None or any(key.items() <= row.items() for row in record["rows"]):
            continue
        found, pictures = study.measure(**key)
        if path(study.name).read_bytes() != stored:
            raise ValueError(
                f"{path(study.name)} was changed while a row was measured: let one process at a time make a record, "
                f"and call the command again"
            )
        record["rows"].append(key | found | ({"needs": needs} if study.networks else {}))
        kept |= pictures
        write(study.name, record, kept)
        stored = path(study.name).read_bytes()
        print(study.name, *key.values(), flush=True)


def timed(measure):
    """A ``measure`` whose rows say how many processor seconds they took."""

    @functools.wraps(measure)
    def measured(**key):
        start = time.process_time()
        found, pictures = measure(**key)
        return found | {"cpu_seconds": round(time.process_time() - start, 1)}, pictures

    return measured
