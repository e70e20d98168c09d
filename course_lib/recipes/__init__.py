"""One entry for each network that ships: its network, loss, data, measure and length of training.

``python -m course_lib.train NAME`` trains an entry. What it does not say itself, such as the licence, is that of its
data; the rest is as :class:`~course_lib.recipes.recipe.Recipe` has it.
"""

from functools import partial

from course_lib.applications.anomaly import with_coarse_noise
from course_lib.losses import (
    AugmentedLoss,
    AutoencoderLoss,
    DiffusionLoss,
    DistillationLoss,
    EDMLoss,
    MaskedLoss,
    MeanFlowLoss,
    RegressionLoss,
    SegmentationLoss,
    StableTargetLoss,
    StochasticSegmentationLoss,
)
from course_lib.recipes.brain import (
    CONTRASTS,
    HEALTHY,
    LARGE_WITH_LESIONS,
    LATENTS,
    MAPS_6000,
    MAPS_8000,
    SIX_KINDS,
    TWO_CLASSES,
    low_resolution,
    measure_autoencoder,
    measure_brain,
    measure_brain_features,
    measure_coarse,
    measure_control,
    measure_ct,
    measure_latent,
    measure_mri,
    measure_neck,
    measure_noisy_features,
    measure_segmenter,
    measure_super_resolution,
    measure_translation,
    measure_two_classes,
)
from course_lib.recipes.copies import COPIES, few_brains, measure_copies
from course_lib.recipes.hippocampus import (
    MAPS,
    SLICES,
    VOLUME_LATENTS,
    VOLUMES,
    among_latents,
    measure_hippocampus,
    measure_slices,
    measure_volume_autoencoder,
)
from course_lib.recipes.lesions import PAIRS, RATED, measure_raters
from course_lib.recipes.mednist import MEDNIST, measure_classifier, measure_diffusion, measure_noisy_classifier
from course_lib.recipes.nodules import MASKS_BESIDE, READINGS, measure_lidc
from course_lib.recipes.recipe import MUON, classifier, entry, guide, segmenter, unet, unrolled, vector_autoencoder
from course_lib.recipes.trends import EDM, SIGMA_DATA, SMALL_DIT, SMALL_MEDNIST, TREND, flow_teacher, measure_trend
from course_lib.recipes.tumours import TUMOURS, measure_tissue
from course_lib.scans import back_projected_scan, scan_ct, scan_mri_by_chance, zero_filled_scan
from course_lib.schedules import Cosine, Linear, RectifiedFlow

V = partial(DiffusionLoss, Cosine(), "v")
#: The loss that ``brain`` had at each time, against stable targets, before it was last trained on.
OF_BRAINS = StableTargetLoss(
    Cosine(),
    usual=(
        *((0, 0.6), (0.01, 0.45), (0.02, 0.336), (0.05, 0.16), (0.1, 0.085), (0.2, 0.046), (0.3, 0.0333)),
        *((0.5, 0.0247), (0.6, 0.0237), (0.7, 0.0254), (0.8, 0.029), (0.85, 0.024), (0.9, 0.0068), (0.93, 0.003)),
        (1, 0.003),
    ),
)
OF_SIZES = V(time_shift=2.0)  # how large a volume is shows at more noise than its edges
OF_MASKS = V(concat=1, time_shift=6.0)  # at much noise it must look at the image
COARSE_NOISE = RegressionLoss(with_coarse_noise, drawn=True)
FLOW = DiffusionLoss(RectifiedFlow(), "flow", 0.0)
DISTILLED = DistillationLoss(flow_teacher, RectifiedFlow())

SMALLER = {"channels": (32, 64), "num_res_blocks": 1, "patch": 2}
SMALL = SMALLER | {"channels": (32, 64, 64)}
WIDE = SMALLER | {"channels": (64, 128, 192)}
DEEP = SMALLER | {"channels": (64, 96, 128, 160)}
OF_LATENTS = SMALLER | {"channels": (64, 96, 128), "patch": 1, "in_channels": 8}
OF_COPIES = SMALLER | {"norm_groups": 8}
CONCAT = {"concat": 1}
#: All channels normalised together: what is normalised alone loses its size, and drawn volumes a third of their spread.
OF_VOLUMES = {"spatial_dims": 3, "norm_groups": 1}
SIX = {"num_classes": 6}
SPOTS = SIX | {"pool": "max"}
IN_NOISE = SIX | {"channels": (32, 64, 96), "patch": 4}
UNROLLED = SMALL | {"iterations": 4}  # one network for all of them: as many weights as SMALL
LATENTS_OF_8 = {"channels": (32, 64, 64), "latent_channels": 8, "patch": 2}
FAST = MUON | {"peak_rate": 8e-3}
FEW = {"batch_size": 8, "peak_rate": 1e-3}  # at so few images seen, many small steps get further than few large ones

ENTRIES = (
    unet("mednist", WIDE | SIX, V(), MEDNIST, measure_diffusion, steps=2750),
    classifier("mednist_features", SIX, MEDNIST, measure_classifier, steps=1500),
    guide("mednist_noisy_classifier", "NoisyClassifier", IN_NOISE, 1.0, MEDNIST, measure_noisy_classifier, steps=1200),
    unet("mednist_weak", SMALLER | SIX | {"patch": 4}, V(), MEDNIST, measure_diffusion, steps=1200, full={}),
    classifier("brain_features", SPOTS, SIX_KINDS, measure_brain_features, steps=1200),
    segmenter("brain_segmenter", 5, 6, MAPS_6000, measure_segmenter, steps=900),
    # in the first 464,000 images by the plain loss
    unet("brain", DEEP, OF_BRAINS, HEALTHY, measure_brain, steps=24_100),
    guide(
        "brain_noisy_classifier",
        "NoisyFromClean",
        SPOTS,
        0.6,
        SIX_KINDS,
        measure_noisy_features,
        start="brain_features",
        steps=2400,
    ),
    unet(
        "brain_two_classes",
        DEEP | {"num_classes": 2},
        V(),
        TWO_CLASSES,
        measure_two_classes,
        start="brain",
        steps=4000,
        batch_size=32,
    ),
    vector_autoencoder("brain_ae", 0.0, HEALTHY, measure_neck, steps=20_250, **FAST),
    # 128 b / 96^2 makes the loss the evidence lower bound of Laplace noise of scale b; here b = 0.07
    vector_autoencoder("brain_vae", 1e-3, HEALTHY, measure_neck, steps=20_250, **FAST),
    unet("brain_dae", SMALL, COARSE_NOISE, HEALTHY, measure_coarse, steps=6250, **MUON),
    entry(
        "brain_control", "ControlledUNet", {"num_labels": 5}, V(), MAPS_8000, measure_control, base="brain", steps=1500
    ),
    unet("brain_superres", SMALL | CONCAT, V(condition=low_resolution), HEALTHY, measure_super_resolution, steps=2800),
    unet("brain_superres_l2", SMALL, RegressionLoss(low_resolution), HEALTHY, measure_super_resolution, steps=700),
    # as many weights as the prior, "brain"
    unet(
        "brain_mri_unet", DEEP, RegressionLoss(zero_filled_scan, drawn=True), HEALTHY, measure_mri, steps=6340, **MUON
    ),
    unet(
        "brain_ct_unet", DEEP, RegressionLoss(back_projected_scan, drawn=True), HEALTHY, measure_ct, steps=6152, **MUON
    ),
    unrolled("brain_mri_unrolled", UNROLLED, scan_mri_by_chance, HEALTHY | FEW | MUON, measure_mri, steps=4168),
    unrolled("brain_ct_unrolled", UNROLLED, scan_ct, HEALTHY | FEW, measure_ct, steps=2400),
    entry(
        "brain_autoencoder",
        "Autoencoder",
        LATENTS_OF_8,
        AutoencoderLoss(texture_weight=1.0),
        LARGE_WITH_LESIONS | FEW,
        measure_autoencoder,
        # as its last 10,000 steps were; in the 3,700 before them by AdamW, without the term of texture
        optimizer="Muon",
        steps=13_700,
        precision="float32",  # the signs of small differences, of which its gradient is made, drown in bfloat16
    ),
    unet("brain_latent", OF_LATENTS, StableTargetLoss(Cosine()), LATENTS, measure_latent, steps=10_000),
    *(
        unet(f"copies_{n}_{steps}", OF_COPIES, V(), few_brains(n), measure_copies, steps=steps, full={})
        for n, steps in COPIES
    ),
    unet("brain_t2", SMALLER | CONCAT, V(concat=1), CONTRASTS, measure_translation, steps=35_880, batch_size=16),
    unet("brain_t2_l2", SMALLER, RegressionLoss(concat=1), CONTRASTS | FEW | MUON, measure_translation, steps=18_940),
    unet("lesion_raters", SMALL | CONCAT, OF_MASKS, PAIRS, measure_raters, steps=18_750, **MUON),
    *(segmenter(f"lesion_unet_{k}", 2, 4, RATED, measure_raters, steps=9375, seed=k, **MUON) for k in range(5)),
    unet("lidc_masks", SMALL | CONCAT, OF_MASKS, MASKS_BESIDE, measure_lidc, steps=25_000, **MUON),
    *(segmenter(f"lidc_unet_{k}", 2, 0, READINGS, measure_lidc, steps=6250, seed=k, **MUON) for k in range(5)),
    entry(
        "lidc_ssn",
        "StochasticSegmenter",
        {"rank": 10},
        StochasticSegmentationLoss(),
        READINGS,
        measure_lidc,
        steps=6250,
        full={},
        **MUON,
    ),
    # every slice holds a tumour: the three learn from what lies outside its widened outline
    unet("tumour_tissue", SMALL, MaskedLoss(V()), TUMOURS, measure_tissue, steps=12_500, **MUON),
    unet("tumour_dae", SMALL, MaskedLoss(COARSE_NOISE), TUMOURS, measure_tissue, steps=6250, **MUON),
    vector_autoencoder(
        "tumour_ae", 0.0, TUMOURS, measure_tissue, loss=MaskedLoss(AutoencoderLoss(0.0)), steps=12_500, **MUON
    ),
    unet("trend_ddpm", TREND, DiffusionLoss(Linear(), "eps", 0.0), SMALL_MEDNIST, measure_trend, steps=5000),
    entry("trend_edm", "PreconditionedUNet", EDM, EDMLoss(SIGMA_DATA), SMALL_MEDNIST, measure_trend, steps=5000),
    unet("trend_flow", TREND, FLOW, SMALL_MEDNIST, measure_trend, steps=5000),
    entry("trend_meanflow", "MeanFlowUNet", TREND, MeanFlowLoss(), SMALL_MEDNIST, measure_trend, steps=5000),
    entry("trend_dit", "DiT", SMALL_DIT, FLOW, SMALL_MEDNIST, measure_trend, steps=5000),
    # four paths of eight states; as long as the others, since the teacher works, too
    unet(
        "trend_student", TREND, DISTILLED, SMALL_MEDNIST, measure_trend, start="trend_flow", steps=1700, batch_size=32
    ),
    unet(
        "hippocampus_masks",
        SMALLER | {"in_channels": 2} | CONCAT,
        OF_MASKS,
        SLICES,
        measure_slices,
        steps=15_625,
        **MUON,
    ),
    # nearly as many weights as the diffusion, and as many images seen. Without other views it learns the persons by
    # heart (Dice 0.95 on them, 0.85 on others); the diffusion, trained as long, is worse by them: 0.82, not 0.84
    segmenter(
        "hippocampus_unet",
        3,
        0,
        MAPS,
        measure_slices,
        channels=(32, 64, 128, 128),
        loss=AugmentedLoss(SegmentationLoss(0)),
        steps=3907,
        **MUON,
    ),
    unet(
        "hippocampus",
        SMALL | OF_VOLUMES | {"in_channels": 3},
        OF_SIZES,
        VOLUMES,
        measure_hippocampus,
        steps=5000,
        **MUON,
    ),
    entry(
        "hippocampus_autoencoder",
        "Autoencoder",
        OF_VOLUMES | {"in_channels": 3, "channels": (24, 32)},
        AutoencoderLoss(),
        VOLUMES | FEW | MUON,
        measure_volume_autoencoder,
        steps=6000,
    ),
    unet(
        "hippocampus_latent",
        OF_VOLUMES | {"in_channels": 8, "channels": (16, 32), "patch": 1},
        OF_SIZES,
        VOLUME_LATENTS,
        partial(measure_hippocampus, drawn=among_latents),
        steps=5000,  # as many images as the network of voxels has seen
        **MUON,
    ),
)
RECIPES = {recipe.name: recipe for recipe in ENTRIES}
