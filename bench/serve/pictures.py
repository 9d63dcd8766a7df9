"""Pictures made on the spot: as many different ones as a scenario needs, of any size, without a file."""
import base64
import random
import struct
import zlib


def png(width, seed, height=None):
    """A picture (square without `height`) whose 14-pixel tiles have colours of their own that follow from the seed."""
    dice, height = random.Random(seed), height or width
    rows = bytearray()
    for _ in range(-(-height // 14)):
        line = b"\0" + b"".join(dice.randbytes(3) * 14 for _ in range(-(-width // 14)))[:3 * width]
        rows += line * 14
    rows = bytes(rows[:(3 * width + 1) * height])

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def data_uri(side, seed):
    return "data:image/png;base64," + base64.b64encode(png(side, seed)).decode()
