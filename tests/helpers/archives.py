"""Tiny archives of the public data sets' structure, and what the tests of the cache ask about them."""

import gzip
import io
import re
import tarfile

import numpy as np

from data_fetch import __main__, mednist

COUNTS = {"AbdomenCT": 3, "BreastMRI": 21, "CXR": 40, "ChestCT": 2, "Hand": 5, "HeadCT": 4}


def jpeg(value):
    """The bytes of a JPEG of 64 x 64 pixels of one grey level."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64), value, np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def mednist_members(counts=None):
    """Grey level = 20 x class + number, so that order and labels can be read from the pixels."""
    counts = counts or COUNTS
    return {
        f"MedNIST/{name}/{number:06d}.jpeg": jpeg(40 * index + number)
        for index, name in enumerate(mednist.CLASSES)
        for number in reversed(range(counts[name]))
    }


def nifti(voxels):
    """The bytes of a gzipped NIfTI file with the identity as its affine."""
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())


def hippocampus_members(ids=(1, 2, 3, 4, 16, 18), label_shift=0):
    """{name: bytes} of volumes whose grey levels are drawn with their number as the seed, in two scanners' units."""
    members = {"Task04_Hippocampus/dataset.json": b"{}"}
    for number in ids:
        rng = np.random.default_rng(number)
        image = rng.uniform(0, 112 if number % 2 else 1.7e6, (5 + number % 3, 6, 7)).astype(np.float32)
        label = rng.integers(0, 3, image.shape).astype(np.uint8) + label_shift
        members[f"Task04_Hippocampus/imagesTr/hippocampus_{number:03d}.nii.gz"] = nifti(image)
        members[f"Task04_Hippocampus/labelsTr/hippocampus_{number:03d}.nii.gz"] = nifti(label.astype(np.uint8))
    return members


def write_tar(path, members, mode="w:gz"):
    """Write {name: bytes} as a tar archive; returns its path."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def fails(capsys, *arguments):
    """The one sentence that the command prints to standard error; asserts that it failed without a traceback."""
    assert __main__.main([str(argument) for argument in arguments]) != 0
    text = capsys.readouterr().err
    message = [line for line in re.split(r"[\r\n]", text) if line.startswith("error: ")]
    assert len(message) == 1
    assert "Traceback" not in text
    return message[0]


def snapshot(folder):
    """{name: bytes} of all files below a folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
