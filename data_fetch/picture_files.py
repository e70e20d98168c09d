"""PNG and JPEG files as scans, and the PNG files in archives of data sets."""

import io
import warnings

import numpy as np

from data_fetch.errors import DataError, first_line, shown
from data_fetch.scans import Scan, check_size, reading

_PIXELS = 160_000_000  # 12,600 x 12,600; PIL holds four bytes for each pixel of a colour picture
_BAND = 1 << 22


def read(file):
    """A PNG or JPEG file as a `Scan` (rows, columns) of grey values, turned as its EXIF tag says.

    Raises DataError, naming the file. PIL may open these two formats alone: its reader of PostScript, which it would
    choose by the content whatever the name says, starts an interpreter.
    """
    from PIL import Image

    with reading(file, "is no readable picture", "export it again as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _PIXELS is the limit here
        try:
            image = Image.open(file, formats=("PNG", "JPEG"))
        except Image.DecompressionBombError:
            raise _too_large(file) from None
        with image:
            if image.width * image.height > _PIXELS:
                raise _too_large(file)
            deep = image.mode.startswith(("I", "F"))  # 16-bit grey; "L" would cut it to 8 bits
            if not deep and any(";16" in str(tile.args) for tile in image.tile):
                raise DataError(f"{file} has 16-bit colours, of which half would be lost; save it as 16-bit grey.")
            check_size(file, image.width * image.height, 4)
            image.load()
            return Scan(str(file), _upright(np.asarray(image) if deep else _grey(image), image), (1.0, 1.0))


def grey_png(name, content, sides):
    """A square PNG of 1 or 8 bits in an archive, uint8 (side, side), black and white as 0 and 255.

    name: of the member, for the error; content: its bytes; sides: those in pixels that it may have. Raises DataError.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width != image.height or image.width not in sides or image.mode not in ("1", "L"):
                wanted = " or ".join(f"{side}x{side}" for side in sides)
                raise DataError(
                    f"{shown(name)} has {image.width}x{image.height} pixels of mode {image.mode}, not {wanted} grey "
                    "ones; get the archive anew."
                )
            return np.asarray(image.convert("L"))
    except DataError:
        raise
    except Exception as error:  # PIL raises many kinds on damaged files
        raise DataError(
            f"{shown(name)} in the archive is no readable PNG ({first_line(error)}); get the archive anew."
        ) from error


def _too_large(file):
    return DataError(f"{file} has more than {_PIXELS // 10**6} million pixels; save a smaller copy or cut out a part.")


def _grey(image):
    """uint8 (rows, columns), band by band: PIL's conversions copy the picture. Where it is transparent it is black."""
    from PIL import Image

    grey = np.empty((image.height, image.width), np.uint8)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        if "A" in image.getbands() or "transparency" in image.info:
            band = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", band.size, "black"), band)
        grey[top : top + rows] = np.asarray(band.convert("RGB").convert("L"))
    return grey


def _upright(pixels, image):
    """The view of the pixels that the EXIF orientation (1 to 8) asks for."""
    turns = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.T,
        6: lambda p: p.T[:, ::-1],
        7: lambda p: p.T[::-1, ::-1],
        8: lambda p: p.T[::-1],
    }
    return turns.get(image.getexif().get(0x0112), lambda p: p)(pixels)
