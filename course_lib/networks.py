"""The course's networks by name, most of them MONAI's. MONAI is imported when a network of it is built or called, not
before: it takes seconds."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.arguments import positive, whole
from course_lib.operators import fitted
from course_lib.predictions import preconditioning
from course_lib.schedules import VarianceExploding, match_dims


def _check_sides(x, divisor, dims=2):
    """Raises ValueError unless x is (B, C, ...) with ``dims`` sides that divide by ``divisor``."""
    if x.ndim != dims + 2:
        raise ValueError(f"x must have {dims + 2} axes, (B, C, ...), with {dims} sides; got shape {tuple(x.shape)}")
    if wrong := [side for side in x.shape[2:] if side % divisor]:
        raise ValueError(
            f"each side of the image must divide by {divisor} for this network; got {wrong[0]}: pad or crop it to "
            f"{wrong[0] // divisor * divisor + divisor}"
        )


def pixel_unshuffle(x, patch):
    """Move each square (or cube) of side ``patch`` into channels, without loss: (B, C, H, W) -> (B, C p^2, H/p, W/p).

    The pixel-unshuffle of Shi et al. (CVPR 2016), in any number of dimensions.
    """
    whole(patch=patch)
    _check_sides(x, patch, x.ndim - 2)
    sides = [side // patch for side in x.shape[2:]]
    x = x.reshape(*x.shape[:2], *(part for side in sides for part in (side, patch)))  # (B, C, H/p, p, W/p, p)
    inner, outer = range(3, x.ndim, 2), range(2, x.ndim, 2)
    return x.permute(0, 1, *inner, *outer).reshape(len(x), -1, *sides)


def pixel_shuffle(x, patch):
    """The inverse of :func:`pixel_unshuffle`: (B, C p^2, H/p, W/p) -> (B, C, H, W)."""
    whole(patch=patch)
    sides, n = x.shape[2:], x.ndim - 2
    if x.shape[1] % patch**n:
        raise ValueError(f"channels must divide by patch^{n} = {patch**n} to become pixels, got {x.shape[1]}")
    x = x.reshape(len(x), -1, *[patch] * n, *sides)  # (B, C, p, p, H/p, W/p)
    pairs = [axis for k in range(n) for axis in (2 + n + k, 2 + k)]
    return x.permute(0, 1, *pairs).reshape(len(x), x.shape[1], *(side * patch for side in sides))


def _times(t, x):
    """t, a number or (B,), in [0, 1] -> (B,) in the 0 to 1000 that MONAI's time embedding expects."""
    return 1000 * torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(x))


def _embedded(times, width):
    """Sines and cosines of times (B,), as MONAI's U-Net takes them: (B, width)."""
    from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

    return get_timestep_embedding(times, width)


def _classes(y, n, known):
    """Classes of n images, of which there are ``known`` and "none": y, or "none" for all where y is None.

    Raises ValueError unless y holds n known classes, or one for all. On a GPU, and where the network is compiled, only
    the shape is looked at: a value would have to be waited for.
    """
    y = torch.full((n,), known) if y is None else torch.as_tensor(y)
    fits = y.shape in ((n,), (1,), ()) and not y.is_floating_point() and y.dtype != torch.bool
    looks = y.device.type == "cpu" and n and not torch.compiler.is_compiling()
    if not fits or (looks and not 0 <= int(y.min()) <= int(y.max()) <= known):
        raise ValueError(
            f"y must be {n} whole numbers, one an image, or one for all, in 0..{known - 1} or {known} for none; "
            f"got {y.tolist() if y.numel() <= 8 else tuple(y.shape)}"
        )
    return y.long()


class DiffusionUNet(nn.Module):
    """MONAI's ``DiffusionModelUNet`` behind a pixel-unshuffle: net(x_t, t, y) predicts an array of the shape of x_t.

    The unshuffle moves each patch x patch square into channels without loss, so that the costly first level runs on a
    picture patch times smaller: about four times faster at patch 2 for little loss of quality.

    Parameters
    ----------
    channels : width of each level, multiples of norm_groups, and the last, which alone has attention, of 32 (the width
        of a head); the side of the image must divide by patch * 2^(levels - 1).
    num_res_blocks : residual blocks a level.
    patch : side of the squares moved into channels; 1 leaves the image as it is.
    num_classes : classes that the network may be told of, without the "none" class, which it adds last; 0 for none.
    in_channels : channels of the image.
    concat : channels of an image y that the network sees beside x_t (conditioning by concatenation); 0 for none.
    spatial_dims : 2 for images (B, C, H, W), 3 for volumes (B, C, X, Y, Z).
    norm_groups : groups of channels that are normalised together; must divide each width. Keep it below the widths: t
        and y reach a level as one number added to each channel, which a group of one channel takes off again. A network
        with as many groups as channels at all levels knows neither. Such a group also makes the mean of its
        channel 0, however large a part is that is bright in it: sizes are drawn too equal (docs/performance.md).
    """

    def __init__(
        self,
        channels=(64, 128, 192),
        num_res_blocks=1,
        patch=2,
        num_classes=0,
        in_channels=1,
        concat=0,
        spatial_dims=2,
        norm_groups=32,
    ):
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        if wrong := [width for width in channels if width % norm_groups] or [channels[-1]] * (channels[-1] % 32 > 0):
            raise ValueError(
                f"channels must be multiples of norm_groups = {norm_groups}, and the last, with attention, of 32; got "
                f"{wrong[0]}"
            )
        self.patch, self.num_classes, self.concat = patch, num_classes, concat
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.channels, self.num_res_blocks = tuple(channels), num_res_blocks
        self.divisor = patch * 2 ** (len(channels) - 1)  # of the sides of an image
        self.unet = DiffusionModelUNet(
            spatial_dims=spatial_dims,
            in_channels=(in_channels + concat) * patch**spatial_dims,
            out_channels=in_channels * patch**spatial_dims,
            channels=tuple(channels),
            num_res_blocks=num_res_blocks,
            # attention at the coarsest level only: elsewhere it is slow
            attention_levels=(False,) * (len(channels) - 1) + (True,),
            num_head_channels=32,
            norm_num_groups=norm_groups,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )

    def start_from(self, weights):
        """Take the weights, a state dict, of a network of the same arguments, or of one that was told no class: then
        all classes are zero, and at the start y is ignored."""
        classes = {name: torch.zeros_like(value) for name, value in self.state_dict().items() if "class_emb" in name}
        self.load_state_dict(classes | weights)

    def forward(self, x_t, t, y=None, control=None):
        """x_t (B, C, H, W); t (B,) or scalar in [0, 1]; the prediction, the shape of x_t.

        y : (B,) integer classes, num_classes or None for "none"; or, with ``concat``, an image (B, concat, H, W). A
        network without either ignores it.
        control : what a ControlNet adds to the skip connections and to the middle: (list of tensors, tensor).
        Raises ValueError for shapes and classes that this network does not take.
        """
        _check_sides(x_t, self.divisor, self.spatial_dims)
        if x_t.shape[1] != self.in_channels:
            raise ValueError(f"x_t must have {self.in_channels} channels (B, C, ...); got shape {tuple(x_t.shape)}")
        classes = None
        if self.concat:
            if y is None or y.shape != (len(x_t), self.concat, *x_t.shape[2:]):
                got = None if y is None else tuple(y.shape)
                raise ValueError(
                    f"this network needs y, images of {self.concat} channels and the sides of x_t, as many; got {got}"
                )
            x_t = torch.cat([x_t, y], 1)
        elif self.num_classes:
            classes = _classes(y, len(x_t), self.num_classes).to(x_t.device)
        skips, middle = control or (None, None)
        out = self.unet(
            pixel_unshuffle(x_t, self.patch),  # (B, C p^2, H/p, W/p)
            timesteps=_times(t, x_t),
            class_labels=classes,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
        )
        return pixel_shuffle(out, self.patch)


def level_maps(unet, x, timesteps):
    """What the last residual block of each level of a MONAI ``DiffusionModelUNet`` passes on, to look inside.

    x (B, C, H, W) and timesteps (B,), as the network takes them. Returns (way down, way up, output): two lists of maps
    (B, C, H, W), the finest level first on both ways, and what the network answers. Maps at one place of the lists have
    the same sides: skip connections join them. No gradient.
    """
    ways = {"down": list(unet.down_blocks), "up": list(unet.up_blocks)[::-1]}
    maps = {(way, level): None for way, blocks in ways.items() for level in range(len(blocks))}
    hooks = [
        ways[way][level].resnets[-1].register_forward_hook(lambda *call, at=(way, level): maps.update({at: call[-1]}))
        for way, level in maps
    ]
    try:
        with torch.no_grad():
            output = unet(x, timesteps=timesteps)
    finally:
        for hook in hooks:
            hook.remove()
    down, up = ([found for (at, _), found in maps.items() if at == way] for way in ways)
    return down, up, output


class PreconditionedUNet(DiffusionUNet):
    """EDM: net(x_t, t, y) is the denoised image itself, D(x_t, t) = c_skip x_t + c_out F(c_in x_t, t, y), in the
    schedule :class:`~course_lib.schedules.VarianceExploding`, with F a :class:`DiffusionUNet`.

    See :func:`~course_lib.predictions.preconditioning`. Karras et al. (NeurIPS 2022) tell F of the noise by c_noise =
    ln(sigma_t) / 4; here it sees t, which in this schedule is linear in ln(sigma_t).

    Parameters: sigma_data, standard deviation of the data, and those of :class:`DiffusionUNet`.
    """

    def __init__(self, sigma_data, **arguments):
        super().__init__(**arguments)
        positive(sigma_data=sigma_data)
        self.sigma_data, self.schedule = sigma_data, VarianceExploding()

    def forward(self, x_t, t, y=None):
        """x_t (B, C, H, W) = x_0 + sigma_t eps; t (B,) or scalar in [0, 1]; D, the shape of x_t. y as in the base."""
        c_skip, c_out, c_in = preconditioning(match_dims(self.schedule.sigma(t), x_t), self.sigma_data)
        return c_skip * x_t + c_out * super().forward(c_in * x_t, t, y)


class MeanFlowUNet(DiffusionUNet):
    """MeanFlow: net(x_t, t, y, s) is the mean velocity u(x_t, s, t) on the way from time t to an earlier s, in the
    schedule :class:`~course_lib.schedules.RectifiedFlow`: the way ends at x_s = x_t - (t - s) u.

    A :class:`DiffusionUNet` of the same parameters that is told the length t - s of the way beside t, each through a
    small network, and both are added up. Geng et al., Mean flows for one-step generative modeling (NeurIPS 2025). Its
    clock is slower than that of the base: du/dt is part of the loss, and sines of 1000 t have derivatives that drown
    the rest (Lu & Song, ICLR 2025, sec. 4.1).
    """

    CLOCK = 0.02  # of the base's

    def __init__(self, **arguments):
        super().__init__(**arguments)
        first, silu, last = self.unet.time_embed
        self.span = nn.Sequential(
            nn.Linear(first.in_features, first.out_features), silu, nn.Linear(last.in_features, last.out_features)
        )

    def forward(self, x_t, t, y=None, s=None):
        """x_t (B, C, H, W); t and s (B,) or scalars, 0 <= s <= t <= 1; u, the shape of x_t. Without s, s = 0: the whole
        way to the image. With s = t, the velocity at t itself. y as in the base."""
        t, s = (self.CLOCK * torch.as_tensor(time) for time in (t, 0.0 if s is None else s))
        first = self.span[0]
        span = self.span(_embedded(_times(t, x_t) - _times(s, x_t), first.in_features).to(first.weight))
        hook = self.unet.time_embed.register_forward_hook(lambda module, told, embedded: embedded + span)
        try:
            return super().forward(x_t, t, y)
        finally:
            hook.remove()


class DiTBlock(nn.Module):
    """A block of a :class:`DiT`: attention, then an MLP, each on normalised tokens that the condition shifts and
    scales, and weighs before they are added. The weights begin at zero, so that a fresh block passes its input on."""

    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens, condition):
        """tokens (B, N, width) and condition (B, width) -> tokens (B, N, width)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(F.silu(condition))[:, None].chunk(6, -1)
        tokens = tokens + gate_1 * self.attention(_modulated(tokens, shift_1, scale_1))
        return tokens + gate_2 * self.mlp(_modulated(tokens, shift_2, scale_2))

    def attention(self, tokens):
        """Each token asks all others: (B, N, width) -> (B, N, width)."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.to_qkv(tokens).chunk(3, -1)
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """A diffusion transformer: net(x_t, t, y) predicts an array of the shape of x_t.

    The picture becomes a row of tokens, one a patch x patch square, each with a number of its own for its place;
    ``depth`` blocks let all tokens ask all others. Peebles & Xie, Scalable diffusion models with transformers (ICCV
    2023), with adaLN-Zero.

    Parameters: width of a token, a multiple of num_heads; depth; patch, side of a square; num_classes as in
    :class:`DiffusionUNet`; image_size, the one side that it knows, a multiple of patch; in_channels.
    """

    def __init__(self, width=96, depth=4, num_heads=3, patch=4, num_classes=0, image_size=32, in_channels=1):
        super().__init__()
        if width % num_heads or image_size % patch:
            raise ValueError(
                f"width must divide by num_heads, and image_size by patch; got {width} by {num_heads}, {image_size} by "
                f"{patch}"
            )
        self.patch, self.num_classes, self.image_size, self.in_channels = patch, num_classes, image_size, in_channels
        values, tokens = in_channels * patch**2, (image_size // patch) ** 2
        self.to_tokens, self.from_tokens = nn.Linear(values, width), nn.Linear(width, values)
        self.places = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.class_embedding = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.blocks = nn.ModuleList(DiTBlock(width, num_heads) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        for last in (self.modulation, self.from_tokens):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x_t, t, y=None):
        """x_t (B, C, H, W) of sides image_size; t (B,) or scalar in [0, 1]; y (B,) integer classes, num_classes or None
        for "none". Raises ValueError for other shapes and unknown classes."""
        if x_t.shape[1:] != (self.in_channels, self.image_size, self.image_size):
            expected = (self.in_channels, self.image_size, self.image_size)
            raise ValueError(f"x_t must be (B, C, H, W) with C, H, W = {expected}; got shape {tuple(x_t.shape)}")
        condition = self.time_embed(_embedded(_times(t, x_t), self.time_embed[0].in_features))
        if self.num_classes:
            condition = condition + self.class_embedding(_classes(y, len(x_t), self.num_classes).to(x_t.device))
        tokens = self.to_tokens(pixel_unshuffle(x_t, self.patch).flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, -1)
        out = self.from_tokens(_modulated(tokens, shift, scale)).transpose(1, 2)
        side = self.image_size // self.patch
        return pixel_shuffle(out.unflatten(2, (side, side)), self.patch)


def _modulated(tokens, shift, scale):
    """Tokens (B, N, width), normalised, then scaled and shifted."""
    return (1 + scale) * F.layer_norm(tokens, tokens.shape[-1:]) + shift


class Unrolled(nn.Module):
    """An unrolled reconstruction: net((A, y)) is the image after ``iterations`` rounds of a network D and a fit to the
    scan, from a fit to an empty image on,

        x <- argmin_u |y - A u|^2 + lambda |D(x) - u|^2 = (A^T A + lambda I)^-1 (A^T y + lambda D(x))

    MoDL (Aggarwal et al., IEEE TMI 2019): D has the same weights in all rounds, and lambda is learnt with them. The
    variational network (Hammernik et al., MRM 2018) takes a gradient step in place of the fit. Here D(x) = x + F(x, k /
    iterations) with F a :class:`DiffusionUNet`, which is told the round k as it else is the time.

    Parameters: iterations, 1 or more, and those of :class:`DiffusionUNet`.
    """

    def __init__(self, iterations=4, **arguments):
        super().__init__()
        whole(iterations=iterations)
        self.iterations = iterations
        self.unet = DiffusionUNet(**arguments)
        self.log_weight = nn.Parameter(torch.tensor(math.log(0.05)))  # of lambda: positive, whatever it learns

    @torch.compiler.disable(recursive=False)  # F is compiled, once for all rounds, and not the loop around it
    def forward(self, scan, t=None):
        """scan : (A, y), an operator that can ``solve`` and its measurement -> images (B, C, H, W) in about [-1, 1],
        where y is. t is there for the loss, which hands every regression a time, and is ignored."""
        A, y = scan
        weight = self.log_weight.exp()
        x = fitted(A, y, torch.full_like(A.adjoint(y), -1.0), weight)
        for t in torch.arange(self.iterations) / self.iterations:
            change = self.unet(x.to(self.log_weight.device), t)
            x = fitted(A, y, x + change.to(x), weight)
        return x


class ControlledUNet(nn.Module):
    """A diffusion network, frozen, steered by a MONAI ``ControlNet``: net(x_t, t, y) with y a map of labels.

    Zhang et al., Adding conditional control to text-to-image diffusion models (ICCV 2023). Only the ControlNet is
    trained and stored. It starts as a copy of the base's encoder whose outputs pass through convolutions set to zero,
    so that at the start the steered network is the base itself.

    Parameters
    ----------
    base : the :class:`DiffusionUNet` that is steered, in evaluation mode and without gradients.
    num_labels : labels 0..num_labels - 1 of the map y (B, H, W).
    """

    def __init__(self, base, num_labels):
        super().__init__()
        from monai.networks.nets import ControlNet

        self._base = (base,)  # in a tuple, so that it is no part of this network's weights
        self.num_labels, self.patch, self.num_classes = num_labels, base.patch, 0
        self.control = ControlNet(
            spatial_dims=2,
            in_channels=base.patch**2,
            num_res_blocks=(base.num_res_blocks,) * len(base.channels),
            channels=base.channels,
            attention_levels=(False,) * (len(base.channels) - 1) + (True,),
            num_head_channels=32,
            norm_num_groups=32,
            conditioning_embedding_in_channels=num_labels * base.patch**2,
            conditioning_embedding_num_channels=(32,),
        )
        shared = {k: v for k, v in base.unet.state_dict().items() if k in self.control.state_dict()}
        self.control.load_state_dict(shared, strict=False)

    @property
    def base(self):
        """The frozen network."""
        return self._base[0]

    def one_hot(self, y):
        """Labels y (B, H, W) -> what the ControlNet sees, (B, num_labels p^2, H/p, W/p). Raises ValueError for floats
        and for other labels."""
        y = torch.as_tensor(y)
        read = not torch.compiler.is_compiling()  # a compiled graph would break where values are read
        if y.is_floating_point() or (read and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.num_labels):
            raise ValueError(
                f"y must hold whole labels from 0 to {self.num_labels - 1}; got other values, or {y.dtype}"
            )
        return pixel_unshuffle(F.one_hot(y.long(), self.num_labels).movedim(-1, 1).float(), self.patch)

    def forward(self, x_t, t, y=None, scale=1.0):
        """x_t (B, 1, H, W), t in [0, 1]; y (B, H, W) integer labels, None for the base alone; scale of the control.
        Raises ValueError for a y of another shape, of floats, or of other labels."""
        if y is None:
            return self.base(x_t, t)
        if (shape := tuple(torch.as_tensor(y).shape)) != (len(x_t), *x_t.shape[2:]):
            sides = ", ".join(map(str, (len(x_t), *x_t.shape[2:])))
            raise ValueError(f"y must be maps of labels 0 to {self.num_labels - 1} of shape ({sides}); got {shape}")
        residuals = self.control(
            x=pixel_unshuffle(x_t, self.patch),
            timesteps=_times(t, x_t),
            controlnet_cond=self.one_hot(y).to(x_t.device),
            conditioning_scale=scale,
        )
        return self.base(x_t, t, control=residuals)


class NoisyClassifier(nn.Module):
    """A classifier of noisy images, net(x_t, t) -> logits: MONAI's ``DiffusionModelEncoder`` behind a pixel-unshuffle.

    Dhariwal & Nichol (NeurIPS 2021), sec. 4: a classifier that guides must have seen noise at every level.
    """

    def __init__(self, num_classes=6, channels=(32, 64, 96), patch=4, image_size=64):
        super().__init__()
        from monai.networks.nets.diffusion_model_unet import DiffusionModelEncoder

        self.patch, self.num_classes, self.image_size = patch, num_classes, image_size
        self.encoder = DiffusionModelEncoder(
            spatial_dims=2,
            in_channels=patch**2,
            out_channels=num_classes,
            input_shape=(image_size // patch,) * 2,
            num_res_blocks=(1,) * len(channels),
            channels=tuple(channels),
            attention_levels=(False,) * len(channels),
            norm_num_groups=32,
            num_head_channels=32,
        )

    def forward(self, x_t, t):
        """x_t (B, 1, H, W), t (B,) or scalar in [0, 1] -> logits (B, num_classes). Raises ValueError for another
        side than ``image_size``."""
        if x_t.shape[1:] != (1, self.image_size, self.image_size):
            raise ValueError(f"x_t must be (B, 1, {self.image_size}, {self.image_size}); got {tuple(x_t.shape)}")
        return self.encoder(pixel_unshuffle(x_t, self.patch), timesteps=_times(t, x_t))


class NoisyFromClean(nn.Module):
    """A :class:`Classifier` that also sees the time, as one more channel: net(x_t, t) -> logits.

    Like :class:`NoisyClassifier`, but it can start from a classifier of clean images (:meth:`start_from`). For classes
    that one small spot decides, which a network that has never seen a clean image does not learn to find in noise
    within an affordable time.

    Parameters: those of :class:`Classifier`.
    """

    def __init__(self, **arguments):
        super().__init__()
        self.classifier = Classifier(in_channels=2, **arguments)
        self.num_classes = self.classifier.num_classes

    def start_from(self, weights):
        """Take the weights, a state dict, of another such network, or of a :class:`Classifier` of clean images, of the
        same arguments. Of the latter those of the time become zero: at the start t is ignored."""
        if "layers.0.0.weight" not in weights:
            self.load_state_dict(weights)
            return
        first = weights["layers.0.0.weight"]
        widened = {"layers.0.0.weight": torch.cat([first, torch.zeros_like(first)], 1)}
        self.classifier.load_state_dict(weights | widened)

    def forward(self, x_t, t):
        """x_t (B, 1, H, W), t (B,) or scalar in [0, 1] -> logits (B, num_classes)."""
        times = _times(t, x_t)[:, None, None, None]
        return self.classifier(torch.cat([x_t, times.expand_as(x_t)], 1))


class Autoencoder(nn.Module):
    """MONAI's ``AutoencoderKL`` behind a pixel-unshuffle: images, or volumes (B, C, X, Y, Z) with ``spatial_dims`` 3,
    to latents of about unit variance, and back.

    The scale of the latents is a buffer of the network and is saved with its weights: a latent diffusion model is
    wrong without it. Rombach et al. (CVPR 2022), sec. 3.1 and app. G. ``norm_groups`` as in :class:`DiffusionUNet`.
    """

    def __init__(
        self,
        channels=(32, 64, 64),
        latent_channels=8,
        patch=2,
        in_channels=1,
        num_res_blocks=1,
        spatial_dims=2,
        norm_groups=32,
    ):
        super().__init__()
        from monai.networks.nets import AutoencoderKL

        self.patch, self.latent_channels, self.spatial_dims = patch, latent_channels, spatial_dims
        self.factor = patch * 2 ** (len(channels) - 1)  # pixels a side to each latent
        self.autoencoder = AutoencoderKL(
            spatial_dims=spatial_dims,
            in_channels=in_channels * patch**spatial_dims,
            out_channels=in_channels * patch**spatial_dims,
            channels=tuple(channels),
            num_res_blocks=num_res_blocks,
            attention_levels=(False,) * len(channels),
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.register_buffer("scale", torch.ones(()))  # 1 / standard deviation of the latents

    def forward(self, x, generator):
        """x (B, C, H, W) in [-1, 1] -> reconstruction of a draw of the latents, their mean and standard deviation."""
        _check_sides(x, self.factor, self.spatial_dims)
        mu, sigma = self.autoencoder.encode(pixel_unshuffle(x, self.patch))
        z = mu + sigma * torch.randn(mu.shape, generator=generator).to(mu.device)
        return pixel_shuffle(self.autoencoder.decode(z), self.patch), mu, sigma

    def encode(self, x):
        """x (B, C, H, W) in [-1, 1] -> mean latents times scale, (B, latent_channels, H/f, W/f), without randomness.
        Raises ValueError unless the sides divide by f, ``factor``."""
        _check_sides(x, self.factor, self.spatial_dims)
        return self.autoencoder.encode(pixel_unshuffle(x, self.patch))[0] * self.scale

    def decode(self, z):
        """Scaled latents (B, latent_channels, H/f, W/f) -> images (B, C, H, W)."""
        return pixel_shuffle(self.autoencoder.decode(z / self.scale), self.patch)


class VectorAutoencoder(nn.Module):
    """MONAI's ``VarAutoEncoder``: each image passes through one vector z of ``latent_size`` numbers.

    With ``variational`` the encoder gives a mean and a standard deviation and z is drawn (Kingma & Welling, ICLR 2014);
    without, z is the mean: a plain autoencoder of the same size. Of little use to latent diffusion, but what does not
    fit through so narrow a neck is missing in the reconstruction, and that is how it finds anomalies.

    Parameters
    ----------
    channels : width of each level, multiples of 8; each level halves the side of the image.
    image_size : side of the images, which must divide by 2^levels.
    """

    def __init__(self, image_size=96, channels=(16, 32, 64, 64, 96), latent_size=128, variational=True):
        super().__init__()
        from monai.networks.nets import VarAutoEncoder

        self.variational = variational
        self.autoencoder = VarAutoEncoder(
            spatial_dims=2,
            in_shape=(1, image_size, image_size),
            out_channels=1,
            latent_size=latent_size,
            channels=tuple(channels),
            strides=(2,) * len(channels),
            norm=("GROUP", {"num_groups": 8}),  # the default, instance normalisation, forgets how bright a picture is
            use_sigmoid=False,
        )

    def forward(self, x, generator):
        """x (B, 1, H, W) in [-1, 1] -> reconstruction, and mean and standard deviation of z (1 if not variational)."""
        features = self._features(x)
        mu = self.autoencoder.mu(features)
        if not self.variational:
            return self.decode(mu), mu, torch.ones_like(mu)
        sigma = (0.5 * self.autoencoder.logvar(features)).exp()
        z = mu + sigma * torch.randn(mu.shape, generator=generator).to(mu.device)
        return self.decode(z), mu, sigma

    def encode(self, x):
        """x (B, 1, H, W) in [-1, 1] -> mean of z, (B, latent_size)."""
        return self.autoencoder.mu(self._features(x))

    def _features(self, x):
        """What the layers before z make of x: (B, features). MONAI's ``encode_forward`` fails on channels-last x."""
        return self.autoencoder.encode(x).flatten(1)

    def decode(self, z):
        """z (B, latent_size) -> images (B, 1, H, W)."""
        return self.autoencoder.decode_forward(z, use_sigmoid=False)


class Segmenter(nn.Module):
    """MONAI's plain ``UNet``: net(x) -> logits of each label at each pixel."""

    def __init__(self, num_labels, channels=(16, 32, 64, 64), in_channels=1):
        super().__init__()
        from monai.networks.nets import UNet

        self.num_labels, self.divisor = num_labels, 2 ** (len(channels) - 1)
        self.unet = UNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=num_labels,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=1,
            norm=("INSTANCE", {"affine": True}),
        )

    def forward(self, x):
        """x (B, C, H, W) in [-1, 1] -> logits (B, num_labels, H, W). Raises ValueError unless the sides divide by
        2^(levels - 1)."""
        _check_sides(x, self.divisor)
        return self.unet(x)

    def labels(self, x):
        """The likeliest label of each pixel, (B, H, W) int64."""
        return self(x).argmax(1)


class StochasticSegmenter(nn.Module):
    """A stochastic segmentation network for masks: net(x) is a normal over the logits of all pixels together,

        eta | x ~ N(mu(x), diag(v(x)) + F(x)^T F(x)),    a pixel is 1 with probability sigmoid(eta)

    The ``rank`` maps F let pixels go together: one number in front of each map moves all pixels of a mask at once.
    Monteiro et al. (NeurIPS 2020), sec. 3, for two labels with one logit a pixel; mean, variances and factors are
    channels of the last layer of one :class:`Segmenter`. :func:`normal_logits` draws from the normal.

    Parameters: rank, 1 or more, and channels and in_channels as in :class:`Segmenter`.
    """

    def __init__(self, rank=10, **arguments):
        super().__init__()
        whole(rank=rank)
        self.num_labels = 2
        self.body = Segmenter(2 + rank, **arguments)

    def forward(self, x):
        """x (B, C, H, W) in [-1, 1] -> mean (B, H, W), variance (B, H, W) without the factors', positive, and factors
        (B, rank, H, W), float32. Raises ValueError as :class:`Segmenter` does."""
        maps = self.body(x).float()
        return maps[:, 0], F.softplus(maps[:, 1]) + 1e-5, maps[:, 2:]


def normal_logits(normal, samples, generator):
    """Logits (samples, B, H, W) drawn from the normal (mean, variance, factors) of a :class:`StochasticSegmenter`."""
    mean, variance, factors = normal
    alone = torch.randn(samples, *mean.shape, generator=generator).to(mean)
    together = torch.randn(samples, *factors.shape[:2], generator=generator).to(mean)
    with torch.autocast(mean.device.type, enabled=False):
        return mean + variance.sqrt() * alone + torch.einsum("kbr,brhw->kbhw", together, factors)


class Classifier(nn.Module):
    """A small convolutional classifier; ``features`` are what the Fréchet distance is computed in.

    Four 3x3 convolutions of stride 2 with group normalisation, then the mean or the largest value over the picture.
    The features are the mean activations of all four layers: the last one alone has collapsed to the classes and hardly
    sees a broken texture.

    pool : "mean" for classes that are a matter of the whole picture, "max" for those that one spot decides.
    """

    def __init__(self, num_classes=6, channels=(32, 64, 96, 128), in_channels=1, pool="mean"):
        super().__init__()
        if pool not in ("mean", "max"):
            raise ValueError(f'pool must be "mean" or "max"; got {pool!r}')
        self.pool, self.num_classes = pool, num_classes
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.GroupNorm(8, c_out), nn.SiLU())
            for c_in, c_out in zip((in_channels, *channels), channels)
        )
        self.head = nn.Linear(channels[-1], num_classes)
        self.register_buffer("scale", torch.ones(sum(channels)))  # spread of each feature over the reference images

    def activations(self, x):
        """x (B, C, H, W) in [-1, 1] -> each layer's activations, a list of (B, channels, h, w)."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def features(self, x):
        """x (B, C, H, W) in [-1, 1] -> features (B, sum of channels), each in units of its spread over real images."""
        return torch.cat([layer.mean((2, 3)) for layer in self.activations(x)], 1) / self.scale

    def forward(self, x):
        """x (B, C, H, W) in [-1, 1] -> logits (B, num_classes)."""
        last = self.activations(x)[-1]
        return self.head(last.amax((2, 3)) if self.pool == "max" else last.mean((2, 3)))


NETWORKS = {
    network.__name__: network
    for network in (
        DiffusionUNet,
        PreconditionedUNet,
        MeanFlowUNet,
        DiT,
        Unrolled,
        ControlledUNet,
        NoisyClassifier,
        NoisyFromClean,
        Autoencoder,
        VectorAutoencoder,
        Segmenter,
        StochasticSegmenter,
        Classifier,
    )
}


def build(name, **kwargs):
    """The network of that name with freshly drawn weights. Raises KeyError with the known names otherwise."""
    if name not in NETWORKS:
        raise KeyError(f"no network named {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name](**kwargs)
