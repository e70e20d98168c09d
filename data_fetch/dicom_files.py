"""DICOM files as scans: a series of slices, or a file of many frames, becomes a volume where positions allow it.

DICOM counts millimetres to the left and the back (LPS), the course RAS+. A tag that is there and empty counts as
absent.
"""

import zlib
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np

from data_fetch.errors import DataError
from data_fetch.scans import LIMIT, Scan, check_size, reading, volume

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DEFERRED = 1 << 16  # bytes; longer values, the pixels above all, are left in the file until they are asked for
_FRAMES = 1 << 16
_GREY = np.array([0.299, 0.587, 0.114])
_SAME_STEP = 0.1  # of the usual distance: slices closer than this to their place are taken to lie there


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a DICOM file, without its pixels.

    index: its number in a file of one or many; label: how it is called; shape: rows, columns; bits: of a pixel;
    spacing: mm between rows and between columns; position (3,): mm of its first pixel, and orientation (2, 3): the
    directions along a row and along a column, or None; many: True where its file has others.
    """

    file: Path
    series: str
    index: int
    label: str
    shape: tuple
    bits: int
    spacing: tuple
    position: np.ndarray | None
    orientation: np.ndarray | None
    many: bool


def has_mark(file):
    """True when the file says of itself that it is DICOM."""
    with reading(file, "cannot be read", "check the disk"), open(file, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


# ---- Headers ---------------------------------------------------------------------------------------------------------


def frames(file):
    """The list of `Frame` of a DICOM file. Raises DataError, naming the file."""
    with reading(file, "is no readable DICOM file"):
        header, _, _ = _open(file)
        if not any(keyword in header for keyword in _PIXELS):
            raise DataError(f"{file} holds no image (DICOM without pixel data); leave it out or export it again.")
        shape, count = (int(header.Rows), int(header.Columns)), int(header.get("NumberOfFrames") or 1)
        bits = int(header.BitsAllocated) * int(header.get("SamplesPerPixel") or 1)
        check_size(file, shape[0] * shape[1] * count, bits / 8)
        if count > _FRAMES:
            raise DataError(f"{file} has {count} frames, at most {_FRAMES} are read; export a part of it.")
        series = str(header.get("SeriesInstanceUID") or file)
        found = []
        for index in range(count):
            spacing, position, orientation = _geometry(file, header, index, count)
            label = f"{file}, frame {index + 1}" if count > 1 else str(file)
            own = f"{series} {file}" if count > 1 else series  # frames of one file belong together
            found.append(Frame(file, own, index, label, shape, bits, spacing, position, orientation, count > 1))
        return found


def _open(file):
    """(header, source of the pixels for pydicom, transfer syntax) of a file."""
    import pydicom
    from pydicom import uid

    check_size(file, file.stat().st_size)
    syntax, dataset = _inflated(file)
    if dataset is not None:
        return dataset, dataset, syntax
    header = pydicom.dcmread(file, force=True, defer_size=_DEFERRED)
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:  # implicit little endian is DICOM's default; pydicom has looked whether that fits
        implicit, little = header.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        syntax = uid.ImplicitVRLittleEndian if implicit else explicit
    return header, header if syntax.is_encapsulated else file, syntax  # frames that are not compressed: one at a time


def _inflated(file):
    """(transfer syntax, dataset) of a file that is compressed as a whole, else (.., None).

    pydicom unpacks such a file whatever its size: 2 MB can hold 2 GB of zeros.
    """
    import pydicom
    from pydicom import filereader, uid

    with open(file, "rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return None, None
        meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
            return None, None
        packed = stream.read()
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpack.decompress(packed, LIMIT // 4)
    if len(content) == LIMIT // 4:
        raise DataError(f"{file} unpacks to more than {LIMIT // 4 / 1e9:.1f} GB; export it again without compression.")
    if not unpack.eof:
        raise DataError(f"{file} is cut short; copy or export it again.")
    dataset = pydicom.FileDataset(str(file), filereader.read_dataset(BytesIO(content), False, True))
    dataset.set_original_encoding(False, True)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian  # what it is now
    return uid.ExplicitVRLittleEndian, dataset


def _geometry(file, header, index, count):
    """(spacing, position or None, orientation or None) of a frame."""
    groups = _groups(header, index)

    def numbers(name, expected):
        value = next((group[name].value for group in (*groups, header) if name in group), None)
        return _numbers(file, name, value, expected)

    spacing = (1.0, 1.0)
    for name in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        if found := numbers(name, 2):
            if min(found) <= 0:
                raise DataError(f"{file}: its {name} is {found}, two numbers above 0 are expected; export it again.")
            spacing = found
            break
    orientation = numbers("ImageOrientationPatient", 6)
    if orientation is None:
        return spacing, None, None
    orientation = np.reshape(orientation, (2, 3))
    if np.abs(orientation @ orientation.T - np.eye(2)).max() > 0.05:
        raise DataError(
            f"{file}: its ImageOrientationPatient is {tuple(orientation.ravel().tolist())}, two directions at right "
            "angles are expected; export it again."
        )
    return spacing, _position(numbers, header, groups, index, count, orientation), orientation


def _position(numbers, header, groups, index, count, orientation):
    """Where a frame lies, float64 (3,), or None. In a file of many frames the header's own position is the first's."""
    position = numbers("ImagePositionPatient", 3)
    if position is None or count == 1 or any("ImagePositionPatient" in group for group in groups):
        return None if position is None else np.array(position)
    offsets = header.get("GridFrameOffsetVector") or ()  # of radiotherapy doses
    if len(offsets) != count:
        return None
    return position + np.cross(*orientation) * (float(offsets[index]) - float(offsets[0]))


def _groups(header, index):
    """The functional groups that speak of a frame's geometry and scaling: its own first, then the shared ones."""
    own, shared = (header.get(f"{kind}FunctionalGroupsSequence") or () for kind in ("PerFrame", "Shared"))
    items = [*own[index : index + 1], *shared[:1]]
    names = ("PixelMeasures", "PlaneOrientation", "PlanePosition", "PixelValueTransformation")
    return [item[f"{name}Sequence"][0] for item in items for name in names if item.get(f"{name}Sequence")]


def _numbers(file, name, value, count):
    """A tag's value as a tuple of floats; None where it is empty."""
    if value is None or value == "" or (not np.isscalar(value) and len(value) == 0):
        return None
    numbers = tuple(float(number) for number in np.atleast_1d(value))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(f"{file}: its {name} is {value}, not {count} number(s); export it again.")
    return numbers


# ---- Pixels ----------------------------------------------------------------------------------------------------------


def _layers(file, indices):
    """(stored (rows, columns), slope, intercept) of the frames of a file. MONOCHROME1 has a negative slope; where all
    is padding, stored is None."""
    from pydicom import pixels, uid

    with reading(file, "has pixels that cannot be decoded", "copy or export it again"):
        header, source, syntax = _open(file)
        _check_decoder(file, header, syntax)
        # GDCM stands before Pillow in pydicom's list and rounds otherwise
        plugin = "pillow" if syntax == uid.JPEGBaseline8Bit else ""
        options = {} if source is header else {"transfer_syntax_uid": syntax}
        found = pixels.iter_pixels(source, indices=indices, decoding_plugin=plugin, **options)
        for index, stored in zip(indices, found):
            colour = header.PhotometricInterpretation == "PALETTE COLOR"
            if colour:
                stored = pixels.apply_color_lut(stored, header)
            if stored.ndim == 3:
                stored = (stored @ _GREY).astype(np.float32)
            padding = None if colour else _padding(header, stored)
            if "ModalityLUTSequence" in header:
                stored, (slope, intercept) = pixels.apply_modality_lut(stored, header), (1.0, 0.0)
            else:
                slope, intercept = _rescale(file, header, index)
            if header.PhotometricInterpretation == "MONOCHROME1":
                slope, intercept = -slope, -intercept
            yield _unpadded(stored, padding, slope), slope, intercept


def _check_decoder(file, header, syntax):
    """Raises DataError, naming the remedy, where no library that is installed decodes the pixels."""
    from pydicom import pixels, uid

    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        raise DataError(
            f"{file} is stored as {uid.UID(syntax).name}, which is not read here; export it again as single images."
        ) from None
    deep = syntax == uid.JPEGExtended12Bit and header.get("BitsStored", 8) > 8  # for GDCM and Pillow too deep
    if not decoder.is_available or (deep and "pylibjpeg" not in decoder.available_plugins):
        remedy = "python-gdcm"
        if deep or "HTJ2K" in decoder.UID.keyword:
            remedy = f"pylibjpeg pylibjpeg-{'libjpeg' if deep else 'openjpeg'}"
        raise DataError(
            f"{file} is compressed as {decoder.UID.name}{', 12 bits' * deep}, for which no decoder is installed; run "
            f"`pip install {remedy}` and start Python anew, or export it again without compression."
        )


def _rescale(file, header, index):
    groups = _groups(header, index)
    values = []
    for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = next((group[name].value for group in (*groups, header) if name in group), None)
        values.append((_numbers(file, name, value, 1) or (default,))[0])
    return values


def _padding(header, stored):
    """Mask of what lies outside the scanner's circle, or None. The value may be written signed or unsigned."""
    value, limit = (header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None or value == "" or stored.dtype.kind not in "iu":
        return None
    bounds = [int(v) for v in (value, value if limit in (None, "") else limit)]
    width, lowest = 1 << 8 * stored.dtype.itemsize, int(np.iinfo(stored.dtype).min)
    low, high = sorted((bound - lowest) % width + lowest for bound in bounds)
    return (stored >= low) & (stored <= high)


def _unpadded(stored, padding, slope):
    """The padding filled with the darkest value of the rest; None where there is no rest."""
    if padding is None or not padding.any():
        return stored
    if padding.all():
        return None
    known = stored[~padding]
    return np.where(padding, known.max() if slope < 0 else known.min(), stored)


# ---- Series ----------------------------------------------------------------------------------------------------------


def scans(members, source, plane_axis, notes):
    """The scans of the frames of one series: one volume where positions allow it, else one picture a frame.

    Frames of another size, spacing or direction than more than half of the series, such as localisers, and frames that
    cannot be decoded are left out. Slices that are missing, or lie at uneven heights, are interpolated between their
    neighbours where the wanted plane, counted by its RAS+ axis `plane_axis`, cuts through the stack; where it is the
    plane of the slices, they are taken as they are. What was left out or filled in is added to `notes`, a sentence
    each. Raises DataError, naming file or `source`.
    """
    stack = _stack_of(members)
    if not stack:
        for file, group in groupby(members, key=lambda frame: frame.file):
            yield from _pictures(file, list(group), notes)
        return
    apart = sorted({str(frame.file) for frame in set(members) - set(stack)})
    if apart:
        notes.append(
            f"{', '.join(apart[:3])}{' and others' if len(apart) > 3 else ''} left out: another size, spacing or "
            f"direction than the other slices of {source}, or no position; load alone what you want to see."
        )
    with reading(source, "cannot be stacked", "export the series again"):
        yield _stacked(stack, source, plane_axis, notes)


def _stack_of(members):
    """Those frames that form a volume: alike in size, spacing and direction, more than half of all; else none."""
    groups = []
    for frame in members:
        if frame.position is not None:
            group = next((group for group in groups if _alike(group[0], frame)), None)
            groups.append([frame]) if group is None else group.append(frame)
    largest = max(groups, key=len, default=[])
    return largest if len(largest) > max(1, len(members) / 2) else []


def _alike(one, two):
    return (
        one.shape == two.shape
        and np.allclose(one.spacing, two.spacing, rtol=1e-3)
        and np.abs(one.orientation - two.orientation).max() < 1e-3
    )


def _pictures(file, group, notes):
    """A scan of each frame of a file."""
    try:
        for frame, (stored, slope, intercept) in zip(group, _layers(file, [frame.index for frame in group])):
            if stored is None:
                notes.append(f"{frame.label} is blank (padding everywhere); leave it out.")
            else:
                yield Scan(frame.label, stored, frame.spacing, slope, intercept)
    except DataError as error:
        notes.append(str(error))


def _stacked(stack, source, plane_axis, notes):
    """The frames as one volume."""
    check_size(source, len(stack) * stack[0].shape[0] * stack[0].shape[1], stack[0].bits / 8)
    along_row, along_column = stack[0].orientation
    normal = np.cross(along_row, along_column)
    layers, stack = _decoded(sorted(stack, key=lambda frame: normal @ frame.position), notes)
    heights = np.array([normal @ frame.position for frame in stack])
    steps = np.diff(heights)
    if len(stack) > 1 and steps.min() < 1e-3:
        twin = int(steps.argmin())
        raise DataError(
            f"{source} holds several slices at one position, such as {stack[twin].label} and {stack[twin + 1].label} "
            "(time points or echoes in one series); export them as separate series."
        )
    affine = np.eye(4)
    rows, columns = stack[0].spacing
    affine[:3, 0], affine[:3, 1] = along_row * columns, along_column * rows
    affine[:3, 2], affine[:3, 3] = _step(stack, heights, normal), stack[0].position
    affine[:2] *= -1
    stored, slope, intercept = _one_array(source, layers)
    if len(stack) > 1 and int(np.abs(normal).argmax()) != plane_axis:  # the plane cuts through the stack
        _check_line(stack, heights, source)
        stored = _even(stored, heights, source, notes)
    return volume(source, stored.transpose(2, 1, 0), affine, slope, intercept)


def _decoded(stack, notes):
    """(layers, their frames) of those that can be decoded, in the order of `stack`."""
    layers, wanted = {}, {}
    for frame in stack:
        wanted.setdefault(frame.file, []).append(frame.index)
    for file, indices in wanted.items():
        try:
            for index, layer in zip(indices, _layers(file, indices)):
                layers[file, index] = layer
        except DataError as error:
            notes.append(str(error))
    kept = [frame for frame in stack if (frame.file, frame.index) in layers]
    if not kept:
        raise DataError(notes.pop())
    return [layers[frame.file, frame.index] for frame in kept], kept


def _one_array(source, layers):
    """(stored (slices, rows, columns), slope, intercept) of layers; as float64 where their scaling differs (PET).

    Empties `layers` as it goes, so that the series is not held twice.
    """
    known = [layer for layer in layers if layer[0] is not None]
    if not known:
        raise DataError(f"{source} is blank (padding everywhere); leave it out.")
    stored, slope, intercept = known[0]
    mixed = any(layer[1:] != (slope, intercept) for layer in known)
    kind = np.dtype(float) if mixed else np.result_type(*{layer[0].dtype for layer in known})
    check_size(source, len(layers) * stored.size, kind.itemsize)

    def values(stored, slope, intercept):
        return slope * stored.astype(float) + intercept if mixed else stored

    if len(known) < len(layers):
        darkest = min(values(*layer).min() for layer in known)
        if slope < 0 and not mixed:
            darkest = max(layer[0].max() for layer in known)
    whole = np.empty((len(layers), *stored.shape), kind)
    known.clear()
    for place in whole:
        layer = layers.pop(0)
        place[...] = darkest if layer[0] is None else values(*layer)
    return (whole, 1.0, 0.0) if mixed else (whole, slope, intercept)


def _usual_step(heights):
    """mm from slice to slice, where all are there."""
    steps = np.diff(heights)
    usual, mean = float(np.median(steps)), float(steps.mean())
    if np.abs(steps - usual).max() <= 1e-3 * usual:
        return usual
    if np.abs(heights - heights[0] - mean * np.arange(len(heights))).max() <= _SAME_STEP * mean:  # rounded positions
        return mean
    multiples = (steps / steps.min()).round()  # slices are missing
    if np.abs(steps / steps.min() - multiples).max() <= _SAME_STEP:
        return float(steps.sum() / multiples.sum())
    return usual


def _step(stack, heights, normal):
    """The way from a slice to the next, mm (3,): along the normal, or beside it where the gantry was tilted."""
    if len(stack) == 1:
        return normal
    usual = _usual_step(heights)
    way = (stack[-1].position - stack[0].position) / (heights[-1] - heights[0]) * usual
    return way if np.linalg.norm(way - normal * usual) > 0.02 * usual else normal * usual


def _check_line(stack, heights, source):
    """Raises DataError where slices are shifted sideways from the line of first and last by more than two pixels."""
    positions = np.array([frame.position for frame in stack])
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    line = positions[0] + share[:, None] * (positions[-1] - positions[0])
    if np.linalg.norm(positions - line, axis=1).max() > 2 * max(stack[0].spacing):
        raise DataError(
            f"{source}: its slices are shifted sideways against one another, which a plane across them would show as a "
            "break; ask for the plane of the slices."
        )


def _even(stored, heights, source, notes):
    """The slices (slices, rows, columns) at even heights, by linear interpolation where there is none."""
    places = (heights - heights[0]) / _usual_step(heights)
    count = round(places[-1]) + 1
    if count > 2 * len(places):
        raise DataError(
            f"{source}: its slices lie at too uneven heights ({_spread(heights)}) for a plane across them; export the "
            "series whole, or ask for the plane of the slices."
        )
    at = np.interp(np.arange(count), places, np.arange(len(places)))  # a wanted slice lies between at's neighbours
    nearest = at.round().astype(int)
    there = np.abs(places[nearest] - np.arange(count)) <= _SAME_STEP
    if there.all() and count == len(places):
        return stored
    check_size(source, (count + len(places)) * stored[0].size, stored.itemsize)
    even = np.empty((count, *stored.shape[1:]), stored.dtype)
    for k, new in enumerate(even):
        low = min(int(at[k]), len(places) - 2)
        between = (1 + low - at[k]) * stored[low] + (at[k] - low) * stored[low + 1]
        new[...] = stored[nearest[k]] if there[k] else between.round() if stored.dtype.kind in "iu" else between
    notes.append(
        f"{source}: its {len(places)} slices lie at uneven heights ({_spread(heights)}), as where some are missing; "
        f"{count - there.sum()} of {count} were interpolated between their neighbours."
    )
    return even


def _spread(heights):
    steps = np.diff(heights)
    return f"{steps.min():.4g} to {steps.max():.4g} mm apart"
