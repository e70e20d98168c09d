"""Tiny archives of the public data sets' structure, and what the tests of the cache ask about them."""

import functools
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


def png(pixels):
    """The bytes of a PNG: of 1 bit for bool pixels (H, W), of 8 for uint8."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


# {(person, nodule): slices in the public copy}. Person 41 is left out; the seventh of the 8 slices is nobody's; of the
# other 7 those at even distances are 0, 1, 2, 4, 5 and 6, and the largest, 3, comes in place of 2.
LIDC_SLICES = {(1, 0): 3, (1, 1): 1, (8, 0): 2, (9, 0): 2, (12, 3): 8, (41, 0): 2}
LIDC_KEPT = {(1, 0): (0, 1, 2), (1, 1): (0,), (8, 0): (0, 1), (9, 0): (0, 1), (12, 3): (0, 1, 3, 4, 5, 7)}


def lidc_slice(place):
    """Image uint8 and masks bool (4, H, W), 128 x 128, of (person, nodule, slice): noise, and squares, larger for later
    readers; as many readers as the slice's number says, and from slice 4 on the first alone, with a small one."""
    image = np.random.default_rng(place).integers(0, 256, (128, 128), dtype=np.uint8)
    masks = np.zeros((4, 128, 128), bool)
    for reader in range(place[2] + 1 if place[2] < 4 else place[2] != 6):
        masks[reader, 60 : 64 + reader, 61 : 68 + reader] = True
    return image, masks


def lidc_members(side=64, slices=None):
    """{name: bytes} of the slices that are kept, 64 x 64, or of the public copy with its clutter, 128 x 128."""
    edge = (128 - side) // 2
    top, members = ("LIDC-IDRI-slices", {}) if side == 64 else ("Pulmoseg-045c0c6b", {"Pulmoseg-045c0c6b/README": b"x"})
    chosen = LIDC_KEPT if side == 64 else {key: range(n) for key, n in LIDC_SLICES.items()}
    for (person, nodule), numbers in (slices or chosen).items():
        for k in numbers:
            image, masks = lidc_slice((person, nodule, k))
            folder = f"{'' if side == 64 else top + '/'}LIDC-IDRI-slices/LIDC-IDRI-{person:04}/nodule-{nodule}"
            for kind, picture in zip(("images", "mask-0", "mask-1", "mask-2", "mask-3"), (image, *masks)):
                crop = picture[edge : edge + side, edge : edge + side]
                members[f"{folder}/{kind}/slice-{k}.png"] = png(
                    crop * np.uint8(255) if side == 128 and crop.dtype == bool else crop
                )
    return members


MS_GRID = (12, 10, 9)
MS_INFO = (
    b"patient_id,age,sex,ms_type,edss,criteria\n1,31,F,RR,1.5,McDonald 2010\n2,33,M,CIS,0.0,x\n3,37,F,N/A,N/A,N/A\n"
)


def mni_nifti(voxels, affine=None):
    """The bytes of a gzipped NIfTI file on the grid of MNI152, whose first axis goes from right to left."""
    import nibabel

    stored = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
    return gzip.compress(nibabel.Nifti1Image(voxels, stored if affine is None else affine).to_bytes(), 1)


def ms_voxels(number, kind):
    """The mask uint8, or the volume float32 with negative voxels, of a person, as the files have them."""
    rng = np.random.default_rng([number, *kind.encode()])
    return rng.random(MS_GRID).round().astype(np.uint8) if kind == "mask" else rng.normal(50, 30, MS_GRID).astype("f4")


def ms_path(number, kind):
    """Where a mask or a volume lies in the archive."""
    name = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR"
    if kind != "mask":
        name = f"{kind}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4"
    return f"open_ms_data/cross_sectional/MNI/patient{number:02}/{name}_regtoMNI.nii.gz"


def ms_members():
    """{name: bytes} of the masks of three persons and the volumes of the second."""
    kinds = {1: ("mask",), 2: ("mask", "FLAIR", "T1", "T1POST", "T2"), 3: ("mask",)}
    files = {ms_path(n, kind): mni_nifti(ms_voxels(n, kind)) for n, found in kinds.items() for kind in found}
    clutter = {"open_ms_data/cross_sectional/LICENSE.txt": b"CC BY"}
    return clutter | {"open_ms_data/cross_sectional/patient_info.csv": MS_INFO} | files


TUMOUR_NUMBERS = {"meningioma": range(1, 41), "glioma": range(1841, 1881), "pituitary": range(1283, 1323)}


def tumour_slice(number):
    """Image uint8 from 0 to 255 and mask bool, 128 x 128, of a number."""
    image = np.random.default_rng(number).integers(0, 256, (128, 128), dtype=np.uint8)
    image[0, :2] = 0, 255
    mask = np.zeros((128, 128), bool)
    mask[10 : 20 + number % 7, 30:45] = True
    return image, mask


@functools.cache
def tumour_members():
    """{name: bytes} of pictures of 40 slices of each class, and their labels."""
    rows, members = ["number,tumour"], {}
    for kind, numbers in TUMOUR_NUMBERS.items():
        for number in numbers:
            image, mask = tumour_slice(number)
            members |= {f"images/{number}.png": png(image), f"masks/{number}.png": png(mask)}
            rows.append(f"{number},{kind}")
    return members | {"labels.csv": "\n".join(rows).encode()}


def matlab(label, patient, picture, mask, **fields):
    """The bytes of a MATLAB 7.3 file as the tumours are published: HDF5 after 512 bytes of MATLAB's own, a struct
    ``cjdata``, columns first; fields replace or, where None, leave out datasets."""
    import h5py

    border = np.array([[3.0, 4, 3, 9, 8, 9]]).T
    known = {"label": [[float(label)]], "PID": [[ord(letter)] for letter in patient], "tumorBorder": border}
    known |= {"image": picture.T, "tumorMask": mask.T.astype(np.uint8)} | fields
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, value in known.items():
            if value is not None:
                value = np.array(value, "u2") if key == "PID" else np.asarray(value)
                group.create_dataset(key, data=value, compression="gzip" if value.size > 99 else None)
    content = bytearray(stream.getvalue())
    content[:19] = b"MATLAB 7.3 MAT-file"
    return bytes(content)


@functools.cache
def matlab_members(slices_each=3):
    """{name: bytes} of the slices of :func:`tumour_members`, 256 x 256 in a scanner's units, so many a patient, and of
    what else was published: another plane (number 211) and the folds."""
    twice, members = np.ones((2, 2), int), {}
    for label, numbers in enumerate(TUMOUR_NUMBERS.values(), 1):
        for k, number in enumerate(numbers):
            image, mask = tumour_slice(number)
            image, mask = (np.kron(image, twice) * 5 - 100).astype(np.int16), np.kron(mask, twice)
            members[f"set/{number}.mat"] = matlab(label, f"{label}{k // slices_each:03}", image, mask)
    return members | {"set/211.mat": members["set/1.mat"], "set/cvind.mat": b"folds", "set/README.txt": b"x"}


def kspace():
    """K-space complex64 of the public file's shape and number of samples."""
    rng = np.random.default_rng(0)
    where = np.zeros((230, 180), bool)
    where[103:127, 78:102] = True
    where.ravel()[rng.permutation(np.flatnonzero(~where))[: 5148 - where.sum()]] = True
    real, imaginary = rng.normal(size=(2, 8, 230, 180))
    return ((real + 1j * imaginary) * where).astype(np.complex64)


def npy(array, **options):
    """The bytes of a NumPy file."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


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
