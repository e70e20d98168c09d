"""What is trained next, in this order, for how long, and what it must reach to be shipped.

``python -m course_lib.train --next`` takes the next entry. The judges (``brain_features``, ``brain_segmenter``,
``mednist_features``) are not in the queue, since every distance is measured by them; nor are networks that are bad on
purpose.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from course_lib import pretrained
from course_lib.checkpoints import read_checkpoint
from course_lib.recipes import RECIPES
from course_lib.recipes.brain import MANY_OF_SIX_KINDS
from course_lib.recipes.recipe import MUON
from course_lib.recipes.runs import checkpoint_path

#: Of diffusion networks that go on from trained weights: after 9,000 more steps by Muon ``brain`` was ahead of 7,800 by
#: AdamW below t = 0.15 alone, and at t = 0.6 behind the weights that it had begun with (docs/performance.md).
ADAM = {"optimizer": "AdamW", "peak_rate": 5e-4}


@dataclass(frozen=True)
class Entry:
    """A training in the queue, by Muon unless its ``changes`` say otherwise.

    name : of the recipe. images : to be seen in all, repeated ones too; many : on a day with a large GPU.
    start : the shipped network whose weights are the first. after : entries whose results it needs.
    most, least : the bar: bounds of values on the card, by their path such as "psnr/R = 4", or by a function of it.
    share : of the time of a GPU day, relative to the others. changes : fields of the recipe that are other than in
    it; once the network ships, they belong there. own_data : whether its own process makes its data: they are
    quick to make, or the answers of a network that it comes after.
    """

    name: str
    images: int
    many: int
    start: str | None = None
    after: tuple = ()
    most: dict = field(default_factory=dict)
    least: dict = field(default_factory=dict)
    share: float = 1.0
    changes: dict = field(default_factory=dict)
    own_data: bool = False

    def recipe(self, images=None, **changes):
        """The recipe, of the length of the budget, or of so many images."""
        recipe = dataclasses.replace(RECIPES[self.name], **(MUON | self.changes | changes))
        return dataclasses.replace(recipe, steps=-(-(images or self.images) // recipe.batch_size))

    def misses(self, card):
        """One sentence for each bound that the values on a card do not meet; none where the bar is met."""
        bounds = [("most", key, limit) for key, limit in self.most.items()]
        bounds += [("least", key, limit) for key, limit in self.least.items()]
        said = []
        for side, key, limit in bounds:
            value = key(card) if callable(key) else _value(card, key)
            if not (value <= limit if side == "most" else value >= limit):  # NaN meets nothing
                said.append(f"{key.__name__ if callable(key) else key} is {value:.4g}, at {side} {limit} is wanted")
        return said


def _value(card, path):
    """The number on a card under a path of keys, "a/b"."""
    for key in path.split("/"):
        card = card[key]
    return card


def spread(card):
    """The spread of the volumes of drawn hippocampi over that of real ones, the smaller of both parts."""
    drawn, real = (card["volume_mm3_mean_and_std"][key] for key in ("sample", "train"))
    return min(drawn[part][1] / real[part][1] for part in drawn)


def dice(card):
    """Mean Dice of the parts of the hippocampus."""
    return sum(card["test_dice"][part] for part in ("anterior", "posterior")) / 2


MEDNIST_BAR = {"ratio_to_floor": 2.5}
PSNR = "psnr"
MRI_BAR, CT_BAR = {"psnr/R = 4": 31, "psnr/R = 8": 27.5}, {PSNR: 33.5}

QUEUE = (
    Entry("brain", 384_000, 6_400_000, start="brain", most={"frechet_distance": 20}, share=2, changes=ADAM),
    Entry(
        "brain_autoencoder",
        200_000,
        2_000_000,
        start="brain_autoencoder",
        most={"frechet_distance": 30},
        least={"contrast_kept/tiny": 0.7},
        share=1.5,
        changes={"peak_rate": 1e-3},  # at 5e-3 what it had learnt is lost
    ),
    Entry(
        "brain_two_classes",
        150_000,
        3_000_000,
        start="brain_two_classes",
        most={"frechet_distance": 30, "share_with_a_lesion/healthy/samples": 0.25},
        least={"share_with_a_lesion/lesion/samples": 0.8},
        share=2,
        changes=ADAM,
    ),
    # it begins with the weights of the autoencoder that ships: where another takes its place, its latents are others
    Entry(
        "brain_latent",
        2_000_000,
        8_000_000,
        start="brain_latent",
        after=("brain_autoencoder",),
        most={"frechet_distance": 60},
        share=1.5,
        own_data=True,
        changes=ADAM,
    ),
    Entry(
        "hippocampus",
        200_000,
        600_000,
        start="hippocampus",
        least={spread: 0.9},
        share=1.5,
        own_data=True,  # and by Muon: after 500 more steps it had a third less loss than AdamW (docs/performance.md)
    ),
    Entry("lesion_raters", 300_000, 2_000_000, most={"rms_of_probability": 0.04, "energy_distance": 0.1}),
    # until they have seen as many images as ``brain``
    Entry("brain_mri_unet", 568_600, 6_400_000, start="brain_mri_unet", least=MRI_BAR, share=2, changes=ADAM),
    Entry("brain_ct_unet", 574_600, 6_400_000, start="brain_ct_unet", least=CT_BAR, share=2, changes=ADAM),
    Entry("brain_mri_unrolled", 100_000, 1_000_000, start="brain_mri_unrolled", least=MRI_BAR, changes=ADAM),
    Entry("brain_ct_unrolled", 100_000, 1_000_000, start="brain_ct_unrolled", least=CT_BAR, changes=ADAM),
    Entry("brain_superres", 300_000, 2_000_000, start="brain_superres", changes=ADAM),
    Entry("brain_superres_l2", 200_000, 1_000_000, start="brain_superres_l2", share=0.5),
    Entry("mednist", 800_000, 6_400_000, start="mednist", most=MEDNIST_BAR, share=2, own_data=True, changes=ADAM),
    # sharper than any autoencoder of few numbers; what keeps most of a lesion finds none
    Entry("brain_dae", 200_000, 1_500_000, most={"contrast_kept/hyper": 0.4}, least={PSNR: 32}, share=0.5),
    Entry(
        "brain_noisy_classifier",
        1_000_000,
        4_000_000,
        start="brain_noisy_classifier",
        least={"test_accuracy/t = 0.5": 0.7},  # above what the noise leaves, 0.65: the record 11_noise_limit
        # of 6,000 slices it knew what it had seen: without noise 71 % right, 61 % of others; at 5e-3 it unlearns
        changes=MANY_OF_SIX_KINDS | {"peak_rate": 1.5e-3},
    ),
    Entry("brain_control", 200_000, 1_500_000, start="brain_control", after=("brain",), changes=ADAM),
    Entry("brain_t2_l2", 100_000, 1_000_000, start="brain_t2_l2", share=0.5),
    Entry("brain_t2", 300_000, 2_000_000, start="brain_t2", least={PSNR: 27.4}, changes=ADAM),
    Entry("hippocampus_masks", 250_000, 1_000_000, least={dice: 0.84}, share=0.5),
    Entry("hippocampus_unet", 250_000, 1_000_000, least={dice: 0.87}, share=0.3),
    # from there at 8e-3: 25.1, 26.0, 26.3 and 26.5 dB after 11,200 to 44,800 images; PCA of 128 directions, 25.5 dB
    *(
        Entry(name, 600_000, 2_000_000, start=name, least={PSNR: 27}, share=0.5, changes={"peak_rate": 8e-3})
        for name in ("brain_ae", "brain_vae")
    ),
    Entry("mednist_noisy_classifier", 200_000, 1_000_000, start="mednist_noisy_classifier", share=0.5),
    *(Entry(f"lesion_unet_{k}", 300_000, 2_000_000, share=0.2) for k in range(5)),  # as many as lesion_raters
    *(Entry(f"trend_{name}", 400_000, 3_000_000, share=0.5) for name in ("ddpm", "edm", "flow", "meanflow", "dit")),
    Entry("trend_student", 300_000, 2_000_000, after=("trend_flow",), share=0.5),
    # the rest at the end, since their data are optional
    # equally many readings for all; other persons' readings are at an energy distance of 0.29
    *(
        Entry(name, 400_000, 2_000_000, most={"energy_distance": 0.15}, own_data=True)
        for name in ("lidc_masks", "lidc_ssn")
    ),
    *(Entry(f"lidc_unet_{k}", 400_000, 2_000_000, share=0.2, own_data=True) for k in range(5)),
    # no bar: a network that loses to plain brightness is an answer, too
    Entry("tumour_tissue", 200_000, 1_000_000, own_data=True),
    Entry("tumour_dae", 100_000, 500_000, share=0.5, own_data=True),
    Entry("tumour_ae", 200_000, 1_000_000, share=0.3, own_data=True),
)


def measured_path(name, folder):
    """Where the values of a network that was trained to its end lie, whether it was shipped or not."""
    return Path(folder) / f"{name}.measured.json"


def is_shipped(entry):
    """Whether the network that ships has seen the images of the entry's budget."""
    card = pretrained.card(entry.name) if entry.name in pretrained.names() else {"steps": 0, "batch_size": 0}
    return card["steps"] * card["batch_size"] >= entry.images


def next_entry(folder, ship=False, queue=QUEUE):
    """The first entry that neither ships with its budget nor has a checkpoint of it in the folder; with ``ship`` also
    one that was trained to its end and not measured yet. None where all is done."""
    for entry in queue:
        path = checkpoint_path(entry, folder)
        trained = path.exists() and read_checkpoint(path)[3] >= entry.recipe().steps
        measured = not ship or measured_path(entry.name, folder).exists()
        if not (is_shipped(entry) or (trained and measured)):
            return entry
    return None
