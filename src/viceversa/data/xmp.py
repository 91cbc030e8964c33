"""XMP, what cameras and programs say of a photograph in XML (ISO 16684-1): who made it, its stars, its panorama. What
of it goes on into the translation."""

import re

from PIL import Image

MORE = re.compile(rb"Container:Directory|HasExtendedXMP|hdrgm:|HDRGainMap|MotionPhoto|MicroVideo|GDepth:|GImage:")
"""Words of XMP that tells of more data in the file, which is not translated: a gain map, a film, a map of depths."""
THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)
ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)[1-8]""")
COLOUR_SPACE = re.compile(rb"""(exif:ColorSpace(?:=["']|>)\s*)\d+""")

OF_MORE = "XMP that tells of more data in the file (a gain map, a film, depths), left out"
BROKEN = "XMP that is no text, left out"


def of(image: Image.Image, in_srgb: bool) -> tuple[bytes | None, str]:
    """The packet to keep, as a translation has it: upright, without pictures of what was, perhaps converted to sRGB.
    Or why one is left out.
    """
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    try:
        packet.decode()
    except (AttributeError, UnicodeDecodeError):  # a TIFF's tag may be of any type
        return None, BROKEN
    if MORE.search(packet):
        return None, OF_MORE
    packet = ORIENTATION.sub(rb"\g<1>1", THUMBNAILS.sub(b"", packet))
    return (COLOUR_SPACE.sub(rb"\g<1>1", packet) if in_srgb else packet) or None, ""
