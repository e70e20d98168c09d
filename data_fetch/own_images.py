"""Images of the learner's own (NIfTI, DICOM, PNG, JPEG) as 2-D slices that the course's networks can take.

Orientation: volumes are turned to the nearest RAS+ axes (by 90 degree turns and flips; oblique scans stay oblique) and
shown as radiologists do: axial with the front up and the patient's right on the left of the image, coronal with the
head up and the patient's right on the left, sagittal with the head up and the front on the left. Single pictures
(X-rays, photographs) stay as they are stored. Pixels are made square and the picture is padded, never stretched.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_fetch.errors import DataError, first_line

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_NIFTI = (".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg")
_ACCEPTED = "NIfTI (.nii, .nii.gz), DICOM, PNG or JPEG"


@dataclass(frozen=True)
class OwnImages:
    """images: float32 (N, size, size) in [-1, 1]; sources: N strings, the file and slice that each came from."""

    images: np.ndarray
    sources: tuple


@dataclass(frozen=True)
class _Scan:
    """Voxels (X, Y, Z) RAS+ of a volume, or (rows, columns) of a picture, with their spacing in mm."""

    source: str
    voxels: np.ndarray
    spacing: tuple


def load(path, size=64, plane="axial", per_volume=8):
    """Slices of a file, or of every image file under a folder, as `OwnImages`.

    plane: "axial", "coronal" or "sagittal", of volumes. per_volume: so many slices, evenly spaced over the middle 60 %
    of a volume's filled part; None for all slices. Intensities: the 0.5th percentile of each volume or picture becomes
    -1, the 99.5th 1, what lies beyond is clipped; DICOM rescaling is applied before, MONOCHROME1 is inverted.
    Raises DataError, naming the file, for what cannot be read and when there is nothing to read.
    """
    if plane not in PLANES:
        raise DataError(f"There is no plane {plane!r}; choose one of: {', '.join(PLANES)}.")
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"There is no file or folder {path}; check the path.")
    images, sources = [], []
    for scan in _scans(path):
        scaled = _scale(scan)
        for label, picture, spacing in _pictures(scan, scaled, plane, per_volume):
            images.append(_fit(picture, spacing, size))
            sources.append(label)
    return OwnImages(np.stack(images), tuple(sources))


def _scans(path):
    """Every volume and picture of a file or folder; DICOM files are gathered by series."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    scans, series = [], {}
    for file in files:
        name = file.name.lower()
        if name.startswith("."):
            continue
        if name.endswith(_NIFTI):
            scans.append(_nifti(file))
        elif name.endswith(_PICTURES):
            scans.append(_picture(file))
        elif name != "dicomdir" and (name.endswith(".dcm") or _has_dicom_mark(file)):
            header = _read_dicom(file)
            series.setdefault(str(header.get("SeriesInstanceUID", file)), []).append((file, header))
    for members in series.values():
        scans.extend(_dicom(members))
    if not scans:
        raise DataError(f"{path} holds no image that can be read; give {_ACCEPTED} files, or a folder of them.")
    return scans


def _nifti(file):
    import nibabel

    try:
        image = nibabel.load(file)
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:  # damaged headers raise many kinds
        raise DataError(f"{file} is no readable NIfTI file ({first_line(error)}); export it again.") from error
    if voxels.dtype.names:
        raise DataError(f"{file} is a colour NIfTI file; convert it to grey values first.")
    return _volume(str(file), voxels, image.affine)


def _volume(source, voxels, affine):
    """A scan on the nearest RAS+ axes; of a series over time the first volume."""
    import nibabel

    while voxels.ndim > 3:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or 0 in voxels.shape or not np.isfinite(affine).all():
        raise DataError(f"{source} has shape {voxels.shape}; a volume of three dimensions is needed.")
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels.astype(np.float32), affine))
    return _Scan(source, np.asarray(image.dataobj), tuple(map(float, nibabel.affines.voxel_sizes(image.affine))))


def _picture(file):
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            image = ImageOps.exif_transpose(image)
            deep = image.mode.startswith(("I", "F"))  # 16- and 32-bit grey; "L" would cut it to 8 bits
            pixels = np.asarray(image if deep else image.convert("RGB").convert("L"), np.float32)
    except Exception as error:  # PIL raises many kinds, some not OSError
        raise DataError(f"{file} is no readable picture ({first_line(error)}); export it again as PNG.") from error
    return _Scan(str(file), pixels, (1.0, 1.0))


def _has_dicom_mark(file):
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check its permissions.") from error


def _read_dicom(file):
    import pydicom

    try:
        return pydicom.dcmread(file, force=True)
    except Exception as error:
        raise DataError(f"{file} is no readable DICOM file ({first_line(error)}); export it again.") from error


def _dicom(members):
    """The scans of one DICOM series: one volume where positions allow it, else one picture a frame."""
    frames = [(file, header, _dicom_pixels(file, header)) for file, header in members]
    if len(frames) > 1 and _stackable(frames):
        return [_stack(frames)]
    scans = []
    for file, header, pixels in frames:
        spacing = [float(step) for step in header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1, 1)]
        layers = pixels[None] if pixels.ndim == 2 else pixels
        scans.extend(_Scan(str(file), layer, tuple(spacing)) for layer in layers)
    return scans


def _dicom_pixels(file, header):
    """float32 (rows, columns) or (frames, rows, columns) in real units, bright where MONOCHROME2 is bright."""
    from pydicom import pixels as tools

    if "PixelData" not in header:
        raise DataError(f"{file} holds no image (DICOM without pixel data); leave it out or export it again.")
    try:
        pixels = tools.pixel_array(header)
        if header.get("SamplesPerPixel", 1) > 1:
            pixels = pixels @ np.array([0.299, 0.587, 0.114])
        stored = pixels
        pixels = np.asarray(tools.apply_rescale(pixels, header), np.float32)
        padding = header.get("PixelPaddingValue")
        if padding is not None and (stored != padding).any():
            pixels[stored == padding] = pixels[stored != padding].min()  # what lies outside the scanner's circle
    except Exception as error:  # no decoder for the compression, or cut-off pixel data
        raise DataError(
            f"{file}: its pixels cannot be decoded ({first_line(error)}); export it again without compression."
        ) from error
    return -pixels if header.get("PhotometricInterpretation") == "MONOCHROME1" else pixels


def _stackable(frames):
    """True when all frames are single slices of one shape and direction at different positions."""
    headers = [header for _, header, _ in frames]
    if any("ImagePositionPatient" not in h or "ImageOrientationPatient" not in h for h in headers):
        return False
    directions = np.array([[float(v) for v in header.ImageOrientationPatient] for header in headers])
    shapes = {pixels.shape for _, _, pixels in frames}
    return len(shapes) == 1 and len(shapes.pop()) == 2 and np.abs(directions - directions[0]).max() < 1e-3


def _stack(frames):
    """One volume of a DICOM series. DICOM counts millimetres to the left and the back (LPS), the course RAS+."""
    first = frames[0][1]
    along_row, along_column = np.array([float(v) for v in first.ImageOrientationPatient]).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    position = {id(frame): np.array([float(v) for v in frame[1].ImagePositionPatient]) for frame in frames}
    frames = sorted(frames, key=lambda frame: normal @ position[id(frame)])
    heights = np.array([normal @ position[id(frame)] for frame in frames])
    steps = np.diff(heights)
    if steps.min() < 1e-3:
        raise DataError(
            f"{frames[0][0].parent} holds several slices at one position (time points or echoes in one series); "
            "export them as separate series."
        )
    rows, columns = (float(v) for v in first.get("PixelSpacing") or (1, 1))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * columns, along_column * rows
    affine[:3, 2], affine[:3, 3] = normal * np.median(steps), position[id(frames[0])]
    affine[:2] *= -1
    voxels = np.stack([pixels.T for _, _, pixels in frames], -1)  # (columns, rows, slices)
    return _volume(str(frames[0][0].parent), voxels, affine)


def _scale(scan):
    """float32 in [-1, 1], by percentiles that a few extreme voxels cannot move."""
    voxels = np.asarray(scan.voxels, np.float64)
    known = voxels[np.isfinite(voxels)]
    if known.size == 0 or known.min() == known.max():
        raise DataError(f"{scan.source} is blank (one value everywhere); leave it out.")
    low, high = np.percentile(known, [0.5, 99.5])
    if low == high:  # nearly everything has one value, as in a label map
        low, high = known.min(), known.max()
    filled = np.where(np.isfinite(voxels), voxels, low)
    return (2 * np.clip((filled - low) / (high - low), 0, 1) - 1).astype(np.float32)


def _pictures(scan, scaled, plane, per_volume):
    """(source, picture, (row, column) spacing) of each slice that is wanted."""
    if scaled.ndim == 2:
        return [(scan.source, scaled, scan.spacing)]
    axis = PLANES[plane]
    rows, columns = (1, 0) if plane == "axial" else (2, 0) if plane == "coronal" else (2, 1)
    stack = np.flip(scaled.transpose(axis, rows, columns), (1, 2))  # rows and columns fall in RAS+: front or head first
    spacing = scan.spacing[rows], scan.spacing[columns]
    return [(f"{scan.source}, {plane} slice {index}", stack[index], spacing) for index in _choose(stack, per_volume)]


def _choose(stack, count):
    """Indices of `count` slices, even over the middle 60 % of those that show something; all when count is None."""
    if count is None:
        return range(len(stack))
    shown = np.flatnonzero((stack > -0.8).mean((1, 2)) > 0.02)
    if len(shown) == 0:
        shown = np.arange(len(stack))
    first, last = np.percentile(shown, [20, 80])
    return np.unique(np.linspace(first, last, count).round().astype(int))


def _fit(picture, spacing, size):
    """float32 (size, size): square pixels, the longer side fills the frame, the rest is padded with -1."""
    from PIL import Image

    extent = np.array(picture.shape) * np.array(spacing)
    rows, columns = (max(1, round(side)) for side in size * extent / extent.max())
    image = Image.fromarray(np.ascontiguousarray(picture))
    # PIL widens the triangle filter when it shrinks, so nothing aliases; it never overshoots, so nothing rings
    resized = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
    framed = np.full((size, size), -1.0, np.float32)
    top, left = (size - rows) // 2, (size - columns) // 2
    framed[top : top + rows, left : left + columns] = resized
    return framed
