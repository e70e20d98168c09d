"""Pictures of the learner's own: the two formats that are opened, deep and turned ones, large ones."""

import numpy as np
import pytest
from helpers.own_files import save_png

from data_fetch import DataError, own_images, picture_files


def test_deep_and_coloured_pictures(tmp_path):
    from PIL import Image

    ramp = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    deep = own_images.load(save_png(tmp_path / "deep.png", ramp)).images[0]
    assert len(np.unique(deep)) > 1000  # not cut to 256 levels
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    colour = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    Image.fromarray(colour, "RGBA").save(tmp_path / "colour.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpeg", quality=95)
    one = own_images.load(tmp_path / "colour.png").images[0]
    two = own_images.load(tmp_path / "grey.jpeg").images[0]
    assert np.abs(one - two).max() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_shown_upright(tmp_path, orientation):
    """A camera stores the picture as its sensor saw it and writes down how to turn it; PIL's own turn is the judge."""
    from PIL import Image, ImageOps

    grey = np.random.default_rng(0).integers(0, 255, (40, 64)).astype(np.uint8)
    image = Image.fromarray(grey)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(picture_files.read(tmp_path / "turned.png").stored, upright)


def test_colours_of_16_bits_are_refused_since_half_of_them_would_be_lost(tmp_path):
    from struct import pack
    from zlib import compress, crc32

    def chunk(kind, content):
        return pack(">I", len(content)) + kind + content + pack(">I", crc32(kind + content))

    for kind, channels in ((2, 3), (4, 2), (6, 4)):  # colour, grey with alpha, colour with alpha
        rows = (b"\0" + bytes(range(16 * 2 * channels))) * 16
        content = chunk(b"IHDR", pack(">IIBBBBB", 16, 16, 16, kind, 0, 0, 0)) + chunk(b"IDAT", compress(rows))
        path = tmp_path / f"{kind}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
        with pytest.raises(DataError, match=rf"{kind}\.png has 16-bit colours.*16-bit grey\.$"):
            own_images.load(path)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpeg"])
def test_a_picture_is_opened_as_png_or_jpeg_alone(tmp_path, monkeypatch, name):
    """PIL goes by the content, not by the name: PostScript would start an interpreter, TIFF another decoder."""
    from PIL import EpsImagePlugin, Image

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("an interpreter was started"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / name).write_bytes(postscript)
    with pytest.raises(DataError, match=f"{name} is no readable picture"):
        own_images.load(tmp_path / name)
    for kind in ("TIFF", "BMP", "GIF"):
        with open(tmp_path / name, "wb") as stream:
            Image.fromarray(np.eye(64, dtype=np.uint8)).save(stream, kind)
        with pytest.raises(DataError, match=f"{name} is no readable picture"):
            own_images.load(tmp_path / name)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = save_png(tmp_path / "large.png", np.eye(64, dtype=np.uint8))
    for limit, name in ((64 * 64 - 1, "_PIXELS"), (100, "MAX_IMAGE_PIXELS")):  # ours, and PIL's own
        from PIL import Image

        monkeypatch.setattr(picture_files if name == "_PIXELS" else Image, name, limit)
        with pytest.raises(DataError, match=r"large\.png has more than .* pixels; save a smaller copy"):
            own_images.load(path)


@pytest.mark.filterwarnings("error")
def test_a_large_picture_gives_the_same_as_a_small_one(tmp_path, monkeypatch):
    """Above a size the picture is converted in bands of rows; below, as a whole."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200)).astype(np.uint8)
    path = save_png(tmp_path / "noise.png", pixels)
    whole = own_images.load(path).images
    monkeypatch.setattr(own_images, "_WHOLE", 1000)
    monkeypatch.setattr(own_images, "_BAND", 7 * 200)
    monkeypatch.setattr(picture_files, "_BAND", 7 * 200)
    assert np.allclose(own_images.load(path).images, whole, atol=1e-6)
