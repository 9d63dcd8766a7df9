"""Pictures made on the spot: as many different ones as a scenario needs, of any size, without a file."""
import base64
import random
import struct
import zlib


def png(side, seed):
    """A square picture whose 14-pixel tiles have colours of their own that follow from the seed."""
    dice = random.Random(seed)
    tiles = -(-side // 14)
    rows = bytearray()
    for _ in range(tiles):
        line = b"\0" + b"".join(dice.randbytes(3) * 14 for _ in range(tiles))[:3 * side]
        rows += line * 14
    rows = bytes(rows[:(3 * side + 1) * side])

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def data_uri(side, seed):
    return "data:image/png;base64," + base64.b64encode(png(side, seed)).decode()
