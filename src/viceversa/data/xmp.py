"""XMP, what cameras and programs say of a photograph in XML (ISO 16684-1): who made it, its stars, its panorama. What
of it goes on into the translation."""

import re

from PIL import Image

ELSEWHERE = re.compile(rb"Container:Directory|HasExtendedXMP|hdrgm:|HDRGainMap|MotionPhoto|MicroVideo|GDepth:|GImage:")
"""Words of XMP that tells of more data in the file, which is not translated: a gain map, a film, a map of depths."""
THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)
ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)[1-8]""")
COLOUR_SPACE = re.compile(rb"""(exif:ColorSpace(?:=["']|>)\s*)\d+""")

MORE = "XMP that tells of more data in the file (a gain map, a film, depths), left out"
BROKEN = "XMP that is no text, left out"


def of(image: Image.Image) -> tuple[bytes | None, str]:
    """The packet to keep, as a translation has it: upright, without pictures of what was. Or why one is left out."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    try:
        packet.decode()
    except (AttributeError, UnicodeDecodeError):  # a TIFF's tag may be of any type
        return None, BROKEN
    if ELSEWHERE.search(packet):
        return None, MORE
    return ORIENTATION.sub(rb"\g<1>1", THUMBNAILS.sub(b"", packet)) or None, ""


def in_srgb(packet: bytes) -> bytes:
    """The same of pixels that were converted to sRGB."""
    return COLOUR_SPACE.sub(rb"\g<1>1", packet)
