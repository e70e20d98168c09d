"""Write docs/networks.md: what each network is, from the sentences below, and what its card says of it.

python tools/network_table.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from course_lib import pretrained  # noqa: E402
from course_lib.recipes import RECIPES  # noqa: E402

PAGE = ROOT / "docs" / "networks.md"
HEAD = """# The networks that come with the course

They are in `course_lib/weights`, most with their large weights in eight bits, so that a megabyte holds nearly a million
weights, the others in float16, half as many; `brain_autoencoder` and the two `..._features` also hold statistics of
real images. Each has a card (`.json`) that says how it was made and how good it is; this page is made of the cards by
`python tools/network_table.py`. Images seen in training are counted with repetitions, and with those of the network
that it started from; core-hours are those of the last training, where they were taken. **Not for clinical use.**

```
python -m course_lib.sample mednist --class Hand --n 16 --nfe 15 --seed 0 --out DIR   # PNGs and one NPZ
python -m course_lib.train mednist --ship                                  # train it anew, in place of what ships
```

On one core of a server CPU `mednist` was trained in about an hour and a half, `brain` in three trainings, the last two
of 3.6 hours each, and `trend_ddpm`, `trend_edm`, `trend_flow` and `trend_student` in about seven minutes each. What
every method of Parts 3 and 4 scored with the networks, with floors, baselines and intervals, stands on one page:
[results](results.md).

The Fréchet distance is taken in the features of all four layers of the classifier of the same data: MedNIST and brains
are two scales, and neither can be compared with a published FID. What real images score is the floor. For brains it is
a random draw of made subjects. MedNIST has two, and both are quoted: other images of the training split, often slices
of the same scans as the reference, and unseen images, its test split (the last 5 % of each class by number; some scans
lie on both sides of the cut, as notebook 08 shows), which score no better than the samples of `mednist`; at 32 x 32
they score 1.91. Of the samples, chest X-rays and heads come out best, hands until one counts; chest CT is weakest,
specks on grey without ribs and spine. Which networks are short of what they were trained to reach, and what it would
take, stands in [performance](performance.md#what-is-still-missed-and-what-it-would-take).
"""
DISTANCE = "{images} samples at {network_evaluations} evaluations: Fréchet distance {frechet_distance:.3g}"
OF_BRAINS = DISTANCE + ", floor {floor:.3g}"
OF_TRENDS = DISTANCE + ", floor {floor:.2f}"
UNROLLED = "the same by four rounds of a network, each followed by a fit to the scan"
OF_MRI = (
    "{psnr[R = 4]:.1f} dB PSNR at R = 4 (zero-filled {zero_filled[R = 4]:.1f}), {psnr[R = 8]:.1f} dB at R = 8 "
    "({zero_filled[R = 8]:.1f})"
)
OF_CT = "{psnr:.1f} dB PSNR, filtered back-projection {back_projected:.1f}"
OF_VECTORS = (
    "{psnr:.1f} dB PSNR (the mean image scores {psnr_of_the_mean_image:.1f}); meant to lose lesions, keeps "
    "{contrast_kept[hyper]:.1f} of the contrast of bright ones"
)
OF_LABELS = (
    "{test_slices} slices of test persons: Dice {test_dice[anterior]:.2f} anterior, "
    "{test_dice[posterior]:.2f} posterior"
)
OF_NODULES = (
    "{test_slices} nodules of {test_persons} test persons: squared energy distance of {samples} masks (16 others in "
    "the results) from the four readings {energy_distance:.3f}, unbiased; {empty:.0%} of the masks are empty, "
    "{not_outlined:.0%} of the readings"
)
OF_LESIONS = "RMS error of a pixel's probability {rms_of_probability:.3f}"
OF_TUMOURS = (
    "average precision of the absolute difference of slice and twin on {validation_images} validation slices "
    "{average_precision:.2f}, of brightness {average_precision_of_brightness:.2f}, chance level "
    "{prevalence:.2f}; RMS error on healthy tissue {rms_of_healthy:.3f}"
)
OF_VOLUMES = (
    "{images} samples: volume {volume_mm3_mean_and_std[sample][anterior][0]:,.0f} ± "
    "{volume_mm3_mean_and_std[sample][anterior][1]:.0f} mm³ anterior, "
    "{volume_mm3_mean_and_std[sample][posterior][0]:,.0f} ± {volume_mm3_mean_and_std[sample][posterior][1]:.0f} "
    "posterior; the {training_volumes} real ones {volume_mm3_mean_and_std[train][anterior][0]:,.0f} ± "
    "{volume_mm3_mean_and_std[train][anterior][1]:.0f} and {volume_mm3_mean_and_std[train][posterior][0]:,.0f} ± "
    "{volume_mm3_mean_and_std[train][posterior][1]:.0f}; no whole copies"
)
# name: what it is, and its quality, filled in from the card
NETWORKS = {
    "mednist": (
        "class-conditional diffusion, 64 x 64",
        DISTANCE + "; 600 other images of the training split score {floor:.2f}",
    ),
    "mednist_features": (
        "classifier whose features measure the distance",
        "{test_accuracy:.1%} right on {test_images:,} held-out images; 600 unseen images of the test split "
        "score a Fréchet distance of {floor[test_split]:.2f}",
    ),
    "mednist_noisy_classifier": (
        "classifier of noisy images, for guidance",
        "{test_accuracy[t = 0.0]:.1%} right on clean held-out images, {test_accuracy[t = 0.8]:.0%} at t = 0.8, "
        "{test_accuracy[t = 0.9]:.0%} at t = 0.9",
    ),
    "mednist_weak": ("a small, briefly trained copy of `mednist`, for autoguidance", "bad on purpose: " + DISTANCE),
    "trend_ddpm": ("class-conditional diffusion, 32 x 32, by DDPM", OF_TRENDS),
    "trend_edm": ("the same by EDM", OF_TRENDS),
    "trend_flow": ("the same by flow matching", OF_TRENDS),
    "trend_student": ("the student of `trend_flow`, for few evaluations", OF_TRENDS),
    "trend_meanflow": ("the same by MeanFlow, for few evaluations", OF_TRENDS),
    "trend_dit": ("the same by flow matching, with a transformer", OF_TRENDS),
    "brain": (
        "unconditional diffusion of healthy T1 slices, 96 x 96",
        OF_BRAINS + "; mean areas of CSF, grey and white matter "
        "{area_mm2_mean_and_std[CSF][samples][0]:,.0f}, {area_mm2_mean_and_std[grey matter][samples][0]:,.0f} and "
        "{area_mm2_mean_and_std[white matter][samples][0]:,.0f} mm², real "
        "{area_mm2_mean_and_std[CSF][real][0]:,.0f}, {area_mm2_mean_and_std[grey matter][real][0]:,.0f} and "
        "{area_mm2_mean_and_std[white matter][real][0]:,.0f}",
    ),
    "brain_features": (
        "classifier of lesion families, whose features measure that distance",
        "{test_accuracy:.0%} right of six kinds",
    ),
    "brain_segmenter": (
        "tissue and lesion at each pixel",
        "Dice {test_dice[CSF]:.2f} CSF, {test_dice[grey matter]:.2f} grey and {test_dice[white matter]:.2f} white "
        "matter, {test_dice[lesion]:.2f} lesion",
    ),
    "brain_control": (
        "ControlNet on `brain`, draws a slice from a map of tissues and lesion",
        "Dice of the map asked for and the map read: {test_dice[drawn][CSF]:.2f} CSF, "
        "{test_dice[drawn][grey matter]:.2f} grey, {test_dice[drawn][white matter]:.2f} white matter, "
        "{test_dice[drawn][lesion]:.2f} lesion; ceiling {test_dice[ceiling][CSF]:.2f}, "
        "{test_dice[ceiling][grey matter]:.2f}, {test_dice[ceiling][white matter]:.2f}, "
        "{test_dice[ceiling][lesion]:.2f}",
    ),
    "brain_superres": (
        "diffusion, four times finer, coarse image concatenated",
        "one sample {psnr:.1f} dB PSNR, bicubic {bicubic:.1f}; variance of its samples 1.07 times the squared error of "
        "their mean (1 is right; notebook 06)",
    ),
    "brain_superres_l2": ("the same network trained on the squared error", "{psnr:.1f} dB PSNR"),
    "brain_autoencoder": (
        "autoencoder of 128 x 128 slices, 8 x 16 x 16 latents",
        "{psnr:.1f} dB PSNR; keeps {contrast_kept[hypo]:.2f} of the contrast of dark lesions, "
        "{contrast_kept[tiny]:.2f} of tiny ones; its images score a Fréchet distance of {frechet_distance:.3g}, floor "
        "{floor[frechet_distance]:.3g}",
    ),
    "brain_latent": ("diffusion among these latents", OF_BRAINS),
    "brain_mri_unet": (
        "regression from zero-filled to full slices, 96 x 96, R = 4 and 8",
        OF_MRI,
    ),
    "brain_mri_unrolled": (
        UNROLLED,
        OF_MRI,
    ),
    "brain_ct_unet": (
        "regression from {views} views of CT to full slices, 96 x 96",
        OF_CT,
    ),
    "brain_ct_unrolled": (
        UNROLLED,
        OF_CT,
    ),
    "brain_ae": (
        "autoencoder of healthy slices through a vector of 128 numbers",
        OF_VECTORS,
    ),
    "brain_vae": ("the same, variational", OF_VECTORS),
    "brain_dae": (
        "regression that takes coarse noise from healthy slices",
        "{psnr:.1f} dB PSNR on slices without noise, {psnr_of_noisy[denoised]:.1f} dB on noisy ones (untouched "
        "{psnr_of_noisy[untouched]:.1f}); meant to lose lesions, keeps {contrast_kept[hyper]:.1f} of the contrast of "
        "bright ones",
    ),
    "brain_t2": (
        "diffusion, T2-like slice from the T1 beside it",
        "one sample {psnr:.1f} dB PSNR; a curve of six numbers {one_curve:.1f}",
    ),
    "brain_t2_l2": ("the same by regression", "{psnr:.1f} dB PSNR"),
    "brain_two_classes": (
        "diffusion told healthy or lesion, for notebook 11",
        OF_BRAINS + "; a classifier finds a lesion in {share_with_a_lesion[healthy][samples]:.0%} of its healthy "
        "samples (real ones {share_with_a_lesion[healthy][real]:.0%}) and in "
        "{share_with_a_lesion[lesion][samples]:.0%} of those with a lesion (real ones "
        "{share_with_a_lesion[lesion][real]:.0%})",
    ),
    "brain_noisy_classifier": (
        "classifier of noisy slices, for guidance",
        "of six kinds {test_accuracy[t = 0.0]:.0%} right on clean images, {test_accuracy[t = 0.2]:.0%} at t = 0.2, "
        "{test_accuracy[t = 0.4]:.0%} at t = 0.4",
    ),
    "lesion_raters": (
        "diffusion of masks, the slice beside them, 64 x 64",
        "squared energy distance of 8 samples from the raters {energy_distance:.3f}; of always the true outline "
        "{outline_alone:.3f}; " + OF_LESIONS,
    ),
    **{f"lesion_unet_{seed}": (f"U-Net of the same lesions, seed {seed}", OF_LESIONS) for seed in range(5)},
    "lidc_masks": ("diffusion of masks of lung nodules, the CT slice beside them, 64 x 64", OF_NODULES),
    **{
        f"lidc_unet_{seed}": (f"U-Net of the same nodules, seed {seed}, with a random threshold", OF_NODULES)
        for seed in range(5)
    },
    "lidc_ssn": ("stochastic segmentation network of the same nodules", OF_NODULES),
    "tumour_tissue": ("unconditional diffusion of head slices, tumours left out of the loss, 128 x 128", OF_TUMOURS),
    "tumour_dae": ("regression that takes coarse noise from such slices", OF_TUMOURS),
    "tumour_ae": ("autoencoder of such slices through a vector of 128 numbers", OF_TUMOURS),
    "hippocampus": ("diffusion of labelled volumes, 32 x 48 x 32 mm", OF_VOLUMES),
    "hippocampus_autoencoder": (
        "autoencoder of these volumes, 8 x 8 x 12 x 8 latents",
        "{images} volumes of test persons: {psnr:.1f} dB PSNR, Dice of the labels {test_dice[anterior]:.2f} anterior, "
        "{test_dice[posterior]:.2f} posterior; the U-Net below finds {judge[decoded][anterior]:.2f} and "
        "{judge[decoded][posterior]:.2f} in the decoded images, {judge[real][anterior]:.2f} and "
        "{judge[real][posterior]:.2f} in the real ones",
    ),
    "hippocampus_latent": ("diffusion among these latents", OF_VOLUMES),
    "hippocampus_unet": ("U-Net of anterior and posterior part, sagittal slices of 48 x 32 mm", OF_LABELS),
    "hippocampus_masks": ("diffusion of these labels beside the slice", OF_LABELS + " (one sample)"),
}


def row(name, card):
    """The network's row of its table."""
    what, quality = (text.format(**card).replace("%", " %") for text in NETWORKS[name])
    cost = f"{card['images_seen']:,} seen" + (f", {card['core_hours']} core-hours" if "core_hours" in card else "")
    size = f"{card['weights'] / 1e6:.2g} million weights, {card['bytes'] / 1e6:.1f} MB"
    return f"| `{name}` | {what}; {size} | {card['data']}; {cost} | {quality} |\n"


def page():
    """The text of the page, a table for each licence, without the networks that do not ship yet. Raises ValueError for
    a network without a row, and for a row without card or recipe."""
    shipped = set(pretrained.names())
    differ = (shipped - set(NETWORKS)) | (set(NETWORKS) - shipped - set(RECIPES))
    if differ:
        raise ValueError(f"in NETWORKS of {Path(__file__).name} or with a card, not both: {', '.join(sorted(differ))}")
    tables = {}
    for name in filter(shipped.__contains__, NETWORKS):
        card = pretrained.card(name)
        title = re.match(r"[\w ]+\w", card["data"]).group()
        head = (
            f"\n## {title}\n\n{card['licence']}\n\n| Network | What it is | Trained on | Quality |\n|---|---|---|---|\n"
        )
        tables[head] = tables.get(head, "") + row(name, card)
    return HEAD + "".join(head + rows for head, rows in tables.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
