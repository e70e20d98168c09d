"""Small NIfTI, DICOM and PNG files, as a learner may have them."""

import numpy as np

SHAPE = (30, 40, 20)


def marked(shape=SHAPE, seed=0):
    """RAS+ voxels with a bright block at the right, front and top, on a dim noisy ground."""
    voxels = np.random.default_rng(seed).uniform(10, 20, shape)
    x, y, z = (n // 3 for n in shape)
    voxels[-x:, -y:, -z:] = 100
    return voxels.astype(np.float32)


def save_nifti(path, voxels, spacing=(1, 1, 1), axes="RAS"):
    """Write RAS+ voxels in another storage order, with the affine that says so."""
    import nibabel
    from nibabel import orientations

    image = nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0]))
    change = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(axes))
    nibabel.save(image.as_reoriented(change), path)
    return path


def save_dicom(path, pixels, series="1.2.3", number=1, syntax=None, **tags):
    """A minimal DICOM file of one slice (rows, columns) or of frames (N, rows, columns), uncompressed unless told."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    pixels = pixels.astype("<i2") if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2 else pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = series
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    pydicom.dcmwrite(path, dataset)
    return path


def dicom_series(folder, voxels, spacing=(1.0, 1.0, 3.0), **tags):
    """RAS+ voxels as axial slices in the usual order: rows to the back, columns to the patient's left (LPS)."""
    folder.mkdir()
    for index in range(voxels.shape[2]):
        pixels = voxels[::-1, ::-1, index].T  # row 0 front, column 0 right
        position = [-(voxels.shape[0] - 1) * spacing[0], -(voxels.shape[1] - 1) * spacing[1], index * spacing[2]]
        name = folder / f"file{(index * 7) % voxels.shape[2]:03d}"  # names in no order, no extension
        save_dicom(
            name,
            pixels,
            number=index + 1,
            ImagePositionPatient=position,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[spacing[1], spacing[0]],
            **tags,
        )
    return folder


def save_png(path, pixels):
    """Write pixels as a PNG file; returns its path."""
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path
