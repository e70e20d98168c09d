"""MONAI's networks by name. MONAI is imported when a network is built, not before: it takes seconds."""

import torch
from torch import nn
from torch.nn import functional as F


class DiffusionUNet(nn.Module):
    """MONAI's ``DiffusionModelUNet`` behind a pixel-unshuffle: net(x_t, t, y) predicts an array of the shape of x_t.

    The unshuffle folds each patch x patch square into channels without loss, so that the costly first level runs on a
    picture patch times smaller: about four times faster at patch 2 for little loss of quality.

    Parameters
    ----------
    channels : width of each level, multiples of 32; the side of the image must divide by patch * 2^(levels - 1).
    num_res_blocks : residual blocks a level.
    patch : side of the squares folded into channels; 1 leaves the image as it is.
    num_classes : classes that the network may be told of, without the "none" class, which it adds last; 0 for none.
    in_channels : channels of the image.
    """

    def __init__(self, channels=(64, 128, 192), num_res_blocks=1, patch=2, num_classes=0, in_channels=1):
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.patch, self.num_classes = patch, num_classes
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=in_channels * patch**2,
            out_channels=in_channels * patch**2,
            channels=tuple(channels),
            num_res_blocks=num_res_blocks,
            attention_levels=(False,) * (len(channels) - 1)
            + (True,),  # at the coarsest level only: elsewhere it is slow
            num_head_channels=32,
            norm_num_groups=32,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )

    def forward(self, x_t, t, y=None):
        """x_t (B, C, H, W); t (B,) or scalar in [0, 1]; y (B,) integer classes, num_classes or None for "none"."""
        t = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        if self.num_classes:
            y = torch.full((len(x_t),), self.num_classes) if y is None else torch.as_tensor(y)
            y = y.to(x_t.device)
        folded = F.pixel_unshuffle(x_t, self.patch)  # (B, C p^2, H/p, W/p)
        out = self.unet(folded, timesteps=1000 * t, class_labels=y)  # MONAI's embedding expects times of 0 to 1000
        return F.pixel_shuffle(out, self.patch)


class Classifier(nn.Module):
    """A small convolutional classifier; ``features`` are what the Fréchet distance is computed in.

    Four 3x3 convolutions of stride 2 with group normalisation, then the mean over the picture. The features are the
    mean
    activations of all four layers: the last one alone has collapsed to the six classes and hardly sees a broken
    texture.
    """

    def __init__(self, num_classes=6, channels=(32, 64, 96, 128), in_channels=1):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.GroupNorm(8, c_out), nn.SiLU())
            for c_in, c_out in zip((in_channels, *channels), channels)
        )
        self.head = nn.Linear(channels[-1], num_classes)
        self.register_buffer("scale", torch.ones(sum(channels)))  # spread of each feature over the reference images

    def activations(self, x):
        """x (B, C, H, W) in [-1, 1] -> the mean over the picture of each layer's activations, a list of (B,
        channels)."""
        means = []
        for layer in self.layers:
            x = layer(x)
            means.append(x.mean(dim=(2, 3)))
        return means

    def features(self, x):
        """x (B, C, H, W) in [-1, 1] -> features (B, sum of channels), each in units of its spread over real images."""
        return torch.cat(self.activations(x), 1) / self.scale

    def forward(self, x):
        """x (B, C, H, W) in [-1, 1] -> logits (B, num_classes)."""
        return self.head(self.activations(x)[-1])


NETWORKS = {"DiffusionUNet": DiffusionUNet, "Classifier": Classifier}


def build(name, **kwargs):
    """The network of that name with freshly drawn weights. Raises KeyError with the known names otherwise."""
    if name not in NETWORKS:
        raise KeyError(f"no network named {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name](**kwargs)
