"""The one list of data sets: address, checksum, size, licence, citation, and the counts that an archive must hold."""

from dataclasses import dataclass, field

from data_fetch.errors import DataError


@dataclass(frozen=True)
class DataSet:
    """One data set. `url` is None for what cannot or need not be downloaded; `counts` is what the archive must hold."""

    name: str
    title: str
    contents: str
    licence: str
    citation: str
    url: str | None = None
    md5: str | None = None
    megabytes: int = 0
    folder: str = ""  # the top folder inside the archive, by which a local archive is recognised
    names: str = ""  # or, where that does not tell, a regular expression that the name of a member begins with
    counts: dict = field(default_factory=dict)
    files: tuple = ()  # (path below url, md5) where the set is many files and no archive
    content: str | None = None  # sha256 of the ready arrays, where the public archive has no checksum that lasts
    by_hand: str = ""  # how to get it where it cannot be downloaded

    @property
    def is_built_in(self):
        """True when there is nothing to download or to import."""
        return not (self.folder or self.names)


_MS_MASKS = """
672169070ec697c28bb1853536e353fd 559029e982f9c103b7f70302e12540ed fe65abaac7c44e616de5185ff6c28301
e24b499034f9183e7e472fe1ab506c03 13ac66f1d75f9e6b418ad6121f3c68e9 7f2a04e7e9482e7c257474780f3bc398
674dc63945bb4d1ba1a043d0b126ea20 6a3b527005f42a58ac707fa63ada18b4 4ab2d25a0e673ae4df4d37fae8caf726
6257e2caf9324f6ffcea08632ce7e2b9 1c03ddb2ed57f1e6061633c35d9e3c77 5431d1be354d61da0828a769b4101a76
188c9c05fda05a039f27773705846c6a b9abd147fd34286740afbb79b3d26faa 5670f63b33c03da46ccf74f859c5860f
dd3c13c1787e2fded9a27b76381f3884 fdc0336dc9c85f0db472ea22db9fa90b 33a473c727917b2afc3f9743867dfcbc
1dc5474cc911e05054073e890ae6c8f5 550530c5f7475e5cc97e1151e5b7ad4d a3de0781345dfe3e77af1b4c0b3611bd
e0538076099ee74884f21ada72c37820 bfbccf29b9deab5861abd37f8fa440e2 0a0ca00750bb2eb7992728668b8b4fa1
5aae736d7d8c6988bd4de13822837686 0d4f58e148315350d313751a3ee4d55f a61396885769bc3d7e4465e0ea4a181e
ebb46db5bb4512666e544cc15e139861 144262bc77e3eee6ea16afc22e04c00c e7cbc5fbb664bfaf8e6ab7bba1ae8daa
"""  # md5, persons 1 to 30
_MS_VOLUMES = {
    7: "e3bc07574dda5e7a0a3376a79115ab00 438fb0d35ad70dc18eca5a7354ada392 bf7bf91f6497493ead2be6c1f06656fd "
    "58d44bc6d8cde64008cc66feabbad5a0",
    19: "d013d3b520da4666955f9da6c4c8583a 9b3fd60eb702dc0895464926398cbf0d f3b6cb714825490b293fe923caafa0ac "
    "aeda01ca340da1f7a8faaaf352b0541a",
    26: "4afc13c8a0fe0bc711430cb00e2b2477 75777f45a21163eba991fb82e048f994 06027604e7f0f36bf56a42188ee1c7e6 "
    "2f80075d83a927b9da2784d5e50327fb",
}  # md5 of FLAIR, T1, T1 after contrast and T2


def _ms_files():
    """(path, md5) of what the course reads of open_ms_data."""
    kinds = [f"{kind}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4" for kind in ("FLAIR", "T1", "T1POST", "T2")]
    mask = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR"
    sums = {(number, mask): md5 for number, md5 in enumerate(_MS_MASKS.split(), 1)}
    for number, text in _MS_VOLUMES.items():
        sums |= {(number, kind): md5 for kind, md5 in zip(kinds, text.split(), strict=True)}
    folder = "cross_sectional"
    volumes = ((f"{folder}/MNI/patient{n:02}/{kind}_regtoMNI.nii.gz", md5) for (n, kind), md5 in sums.items())
    return ((f"{folder}/patient_info.csv", "ef8787918aaed452a7b9d8e7432ad702"), *volumes)


_ALL = (
    DataSet(
        name="brain_cohort",
        title="Brain cohort (embedded, made)",
        contents="synthetic subjects drawn from the ICBM152 2009a T1 template; nothing to download",
        licence="template: copyright 1993-2004 Louis Collins, McConnell Brain Imaging Centre, McGill University; free "
        "use, modification and redistribution with this notice",
        citation="Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54(1), "
        "2011, 313-327; shipped with nilearn",
    ),
    DataSet(
        name="mednist",
        title="MedNIST",
        contents="58,954 grey 64x64 images: six classes (abdomen CT, breast MRI, chest X-ray, chest CT, hand, head CT)",
        licence="CC BY-SA 4.0",
        citation="gathered from TCIA, the RSNA bone age challenge and the NIH chest X-ray data set by Bradley J. "
        "Erickson, Mayo Clinic, Department of Radiology",
        url="https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/MedNIST.tar.gz",
        md5="0bc7306e7427e00ad1c5526a6677552d",
        megabytes=59,
        folder="MedNIST",
        counts={"AbdomenCT": 10000, "BreastMRI": 8954, "CXR": 10000, "ChestCT": 10000, "Hand": 10000, "HeadCT": 10000},
    ),
    DataSet(
        name="hippocampus",
        title="Medical Segmentation Decathlon, task 4: hippocampus",
        contents="T1 MRI cut out around one hippocampus each, 1 mm, with labels (1 anterior, 2 posterior)",
        licence="CC BY-SA 4.0",
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022, 4128; data of "
        "Vanderbilt University Medical Center",
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        md5="9d24dba78a72977dbd1d2e110310f31b",
        megabytes=27,
        folder="Task04_Hippocampus",
        counts={"volumes": (260, 263)},  # the public archives differ by three labelled volumes
    ),
    DataSet(
        name="lidc",
        title="LIDC-IDRI, crops of lung nodules",
        contents="9,959 CT slices of 2,349 nodules of 775 persons, 64x64, each with the outlines of up to four readers",
        licence="CC BY 3.0",
        citation="Armato et al., The Lung Image Database Consortium and Image Database Resource Initiative, Medical "
        "Physics 38(2), 2011, 915-931; TCIA, doi 10.7937/K9/TCIA.2015.LO9QL9SX; crops: "
        "github.com/periclesanfe/Pulmoseg",
        url="https://codeload.github.com/periclesanfe/Pulmoseg/tar.gz/045c0c6b793191819d964d0f7862124731559d42",
        megabytes=205,
        names=r"(?:[^/]+/)?LIDC-IDRI-slices/",
        counts={"persons": 775, "nodules": 2349, "slices": 9959},
        content="d0e7d3befeb385130dd0c104c0c6f83a554f28d58a6c5cc74e161cb820c066cc",
    ),
    DataSet(
        name="ms_lesions",
        title="Multiple sclerosis, lesions in MNI space",
        contents="lesion masks of 30 persons on the 1 mm grid of MNI152; FLAIR, T1, T1 after contrast and T2 of three",
        licence="CC BY",
        citation="Lesjak et al., A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion "
        "Segmentations Based on Multi-rater Consensus, Neuroinformatics 16, 2018, 51-63, doi "
        "10.1007/s12021-017-9348-7; in MNI space: github.com/muschellij2/open_ms_data",
        url="https://raw.githubusercontent.com/muschellij2/open_ms_data/65704901f60650824565aa5a4818611aa89716f4",
        megabytes=49,
        names=r"(?:[^/]+/)?cross_sectional/MNI/patient[0-9]",
        counts={"persons": 30, "scanned": (7, 19, 26), "grid": (182, 218, 182)},
        files=_ms_files(),
        content="f751364e4b8404946aa2623a855f6a747fd5dadb1620deb53557f651abbdb3e1",
    ),
    DataSet(
        name="brain_tumours",
        title="Brain tumours on MRI after contrast",
        contents="989 axial T1 slices, 128x128, with outline and class: meningioma, glioma or pituitary tumour",
        licence="CC BY 4.0",
        citation="J. Cheng, brain tumor dataset, figshare 1512427, version 5, 2017; Cheng et al., PLoS ONE 10(10), "
        "2015, e0140381",
        names=r"(?:[^/]+/)?(?:images|masks)/[0-9]+\.png$|(?:[^/]+/)*[0-9]+\.mat$",
        counts={"meningioma": 201, "glioma": 499, "pituitary": 289},
        by_hand="download the four zip files (880 MB) from "
        "https://figshare.com/articles/dataset/brain_tumor_dataset/1512427, unpack them into one folder, and run "
        "`python -m data_fetch import FOLDER`",
    ),
    DataSet(
        name="raw_mri",
        title="Raw MRI: k-space of a head",
        contents="one slice, eight coils, 230x180, Poisson-disk sampling of 12.4 % with a full centre",
        licence="BSD 3-Clause",
        citation="F. Ong and M. Lustig, SigPy: A Python Package for High Performance Iterative Reconstruction, ISMRM "
        "27, 2019, 4819; github.com/mikgroup/sigpy-mri-tutorial",
        url="https://raw.githubusercontent.com/mikgroup/sigpy-mri-tutorial/b21dcdcfac8557ebb4c2bda1e9faf2cb1e1b6a33/data/"
        "cartesian_ksp.npy",
        md5="bd59a4944075ff4d7abeeae983cc3956",
        megabytes=3,
        names=r"[^/]+\.npy$",
        counts={"shape": (8, 230, 180), "samples": 5148},
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def find(name):
    """The data set called `name`; DataError with the list of names when there is none."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(f"There is no data set {name!r}; choose one of: {', '.join(DATASETS)}.") from None
