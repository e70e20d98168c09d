"""The one list of data sets: address, checksum, size, licence, citation, and the counts that an archive must hold."""

from dataclasses import dataclass, field

from data_fetch.errors import DataError


@dataclass(frozen=True)
class DataSet:
    """One data set. `url` is None for what needs no download; `counts` is what the archive must hold."""

    name: str
    title: str
    contents: str
    licence: str
    citation: str
    url: str | None = None
    md5: str | None = None
    megabytes: int = 0
    folder: str = ""  # the top folder inside the archive, by which a local archive is recognised
    counts: dict = field(default_factory=dict)


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
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def find(name):
    """The data set called `name`; DataError with the list of names when there is none."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(f"There is no data set {name!r}; choose one of: {', '.join(DATASETS)}.") from None
