#!/usr/bin/env python3
"""Makes tests/data/images: small picture files of every variant that src/image reads, and what they must decode to.

    python3 -m venv VENV && VENV/bin/pip install numpy==2.4.6 pillow==13.0.0 transformers==5.17.0
    VENV/bin/python tools/make_test_images.py tests/data/images fuzz/corpus

The tests need none of this: they read the files that are committed. Pillow is the reference for pixels (it is what the
Hugging Face processor opens pictures with) and for bicubic scaling; PNG and BMP files are written by hand here, since
Pillow writes few of their variants. Where the rule of this project differs from Pillow (16-bit gray, transparency), the
expected pixels are computed here and the place says so.

Output: one file a picture; golden.safetensors with the expected RGB bytes [height, width, 3] by file name; and
resize.safetensors, patches.safetensors with scaling and patch vectors. Seeds are fixed: the same versions of Pillow give
the same bytes.
"""
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

OUT, CORPUS = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
GOLDEN = {}


def write_safetensors(path, tensors, metadata=None):
    names = {np.dtype(np.uint8): "U8", np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    header, blobs, at = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def picture(width, height, channels=3, seed=0):
    """Smooth waves with some noise and one sharp square, so that every codec has something to lose."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        wave = 127 + 100 * np.sin(x / (3.0 + c) + seed) * np.cos(y / (4.0 + c))
        planes.append(wave + rng.normal(0, 6, (height, width)))
    out = np.stack(planes, -1)
    out[height // 4 : height // 2, width // 4 : width // 2] = [250, 10, 60, 128][:channels]
    return np.clip(out, 0, 255).astype(np.uint8)


def on_white(rgba):
    colour, alpha = rgba[..., :3].astype(np.int64), rgba[..., 3:].astype(np.int64)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def reference(blob):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return on_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def add(name, blob, expected=None):
    (OUT / name).write_bytes(blob)
    GOLDEN[name] = reference(blob) if expected is None else np.ascontiguousarray(expected)


def saved(image, fmt, **options):
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def exif(orientation, big=False):
    e = ">" if big else "<"
    tiff = (b"MM" if big else b"II") + struct.pack(e + "HI", 42, 8)
    entries = struct.pack(e + "HHI4s", 0x010F, 2, 2, b"x\0\0\0") + struct.pack(e + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return tiff + struct.pack(e + "H", 2) + entries + struct.pack(e + "I", 0)


def jpeg():
    rgb = Image.fromarray(picture(37, 29))
    for name, sampling in (("420", 2), ("422", 1), ("444", 0)):
        add(f"rgb_{name}.jpg", saved(rgb, "JPEG", quality=90, subsampling=sampling))
    add("progressive.jpg", saved(rgb, "JPEG", quality=85, progressive=True))
    add("restart.jpg", saved(rgb, "JPEG", quality=85, restart_marker_blocks=1))
    add("keep_rgb.jpg", saved(rgb, "JPEG", quality=90, keep_rgb=True, subsampling=0))
    gray = Image.fromarray(picture(37, 29, 1)[..., 0])
    add("gray.jpg", saved(gray, "JPEG", quality=90))
    add("gray_progressive.jpg", saved(gray, "JPEG", quality=90, progressive=True))
    for width, height in ((1, 1), (17, 1), (1, 17), (8, 8)):
        add(f"size_{width}x{height}.jpg", saved(Image.fromarray(picture(width, height, seed=3)), "JPEG", quality=90))
    cmyk = saved(Image.fromarray(picture(37, 29, 4), "CMYK"), "JPEG", quality=90)
    add("cmyk.jpg", cmyk)
    adobe = cmyk.index(b"\xff\xee")
    length = struct.unpack(">H", cmyk[adobe + 2 : adobe + 4])[0]
    # Another transform byte makes the same numbers YCCK; without the Adobe segment it is plain CMYK.
    add("ycck.jpg", cmyk[: adobe + 15] + b"\x02" + cmyk[adobe + 16 :])
    add("cmyk_no_adobe.jpg", cmyk[:adobe] + cmyk[adobe + 2 + length :])
    small = Image.fromarray(picture(12, 7, seed=5))
    for orientation in range(1, 9):
        block = exif(orientation, big=orientation % 2 == 0)
        add(f"orientation_{orientation}.jpg", saved(small, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + block))
    add("orientation_9.jpg", saved(small, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif(9)))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows, pixel_bytes):
    """Scanlines with the five filters in turn."""
    out, previous = bytearray(), bytes(len(rows[0]) if rows else 0)
    for number, row in enumerate(rows):
        kind = number % 5
        out.append(kind)
        for i, value in enumerate(row):
            a = row[i - pixel_bytes] if i >= pixel_bytes else 0
            b = previous[i]
            c = previous[i - pixel_bytes] if i >= pixel_bytes else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
        previous = row
    return bytes(out)


def packed_row(samples, bits):
    """samples: one row of integers, any number a pixel."""
    if bits == 16:
        return samples.astype(">u2").tobytes()
    if bits == 8:
        return samples.astype(np.uint8).tobytes()
    text = "".join(format(int(s), f"0{bits}b") for s in samples)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, bits, colour, palette=None, trns=None, interlaced=False, extra=b""):
    """samples: [height, width, channels] integers below 2^bits."""
    height, width, channels = samples.shape
    pixel_bytes = max(1, channels * bits // 8)
    data = b""
    for x0, y0, dx, dy in PASSES if interlaced else [(0, 0, 1, 1)]:
        part = samples[y0::dy, x0::dx]
        if part.size:
            data += filtered([packed_row(row.reshape(-1), bits) for row in part], pixel_bytes)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if trns is not None:
        out += chunk(b"tRNS", trns)
    packed = zlib.compress(data, 9)
    half = len(packed) // 2
    return out + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:]) + chunk(b"IEND", b"")


def pngs():
    rgb, rgba = picture(23, 17), picture(23, 17, 4)
    gray, gray_alpha = picture(23, 17, 1), picture(23, 17, 4)[..., [0, 3]]
    for suffix, interlaced in (("", False), ("_adam7", True)):
        add(f"rgb{suffix}.png", png(rgb, 8, 2, interlaced=interlaced))
        add(f"rgba{suffix}.png", png(rgba, 8, 6, interlaced=interlaced))
        add(f"gray{suffix}.png", png(gray, 8, 0, interlaced=interlaced))
        add(f"gray_alpha{suffix}.png", png(gray_alpha, 8, 4, interlaced=interlaced))
        for bits in (1, 2, 4):
            add(f"gray{bits}{suffix}.png", png(gray >> (8 - bits), bits, 0, interlaced=interlaced))
        for bits in (1, 2, 4, 8):
            palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3))
            add(f"palette{bits}{suffix}.png", png(gray >> (8 - bits), bits, 3, palette, interlaced=interlaced))
        wide = lambda a: a.astype(np.int64) * 256 + np.random.default_rng(9).integers(0, 256, a.shape)
        # 16 bits: the high byte. Pillow does so for colour, and clips gray.
        add(f"rgb16{suffix}.png", png(wide(rgb), 16, 2, interlaced=interlaced))
        add(f"gray16{suffix}.png", png(wide(gray), 16, 0, interlaced=interlaced), np.repeat(gray, 3, -1))
        add(f"rgba16{suffix}.png", png(wide(rgba), 16, 6, interlaced=interlaced))
        add(f"gray_alpha16{suffix}.png", png(wide(gray_alpha), 16, 4, interlaced=interlaced),
            on_white(np.concatenate([np.repeat(gray_alpha[..., :1], 3, -1), gray_alpha[..., 1:]], -1)))
    palette = np.random.default_rng(4).integers(0, 256, (16, 3))
    add("palette4_trns.png", png(gray >> 4, 4, 3, palette, trns=bytes([0, 40, 128, 200, 255])))
    add("gray_trns.png", png(gray, 8, 0, trns=struct.pack(">H", int(gray[3, 3, 0]))))
    add("rgb_trns.png", png(rgb, 8, 2, trns=struct.pack(">HHH", 250, 10, 60)))
    add("orientation_6.png", png(picture(12, 7, seed=5), 8, 2, extra=chunk(b"eXIf", exif(6))))
    add("size_1x1.png", png(picture(1, 1, seed=2), 8, 2))
    # A damaged profile and text do not concern the pixels.
    damaged = chunk(b"iCCP", b"x\0\0broken") + chunk(b"tEXt", b"no separator")[:-1] + b"?"
    add("damaged_profile.png", png(rgb, 8, 2, extra=damaged), rgb)


def webp():
    rgb, rgba = Image.fromarray(picture(37, 29)), Image.fromarray(picture(37, 29, 4))
    add("lossy.webp", saved(rgb, "WEBP", quality=80))
    add("lossless.webp", saved(rgb, "WEBP", lossless=True))
    add("lossy_alpha.webp", saved(rgba, "WEBP", quality=80))
    add("lossless_alpha.webp", saved(rgba, "WEBP", lossless=True))
    add("size_1x1.webp", saved(Image.fromarray(picture(1, 1)), "WEBP", quality=80))
    small = Image.fromarray(picture(12, 7, seed=5))
    add("orientation_6.webp", saved(small, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(6)))
    frames = [Image.fromarray(picture(37, 29, seed=s)) for s in (1, 2)]
    for name, options in (("lossy", dict(quality=80)), ("lossless", dict(lossless=True))):
        add(f"animated_{name}.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], **options))
    # A frame that leaves a part of its canvas bare, which is transparent. Written by hand: frame 13 x 9 at (4, 2).
    part = picture(13, 9, seed=6)
    still = saved(Image.fromarray(part), "WEBP", lossless=True)
    frame = struct.pack("<I", 2)[:3] + struct.pack("<I", 1)[:3]
    frame += struct.pack("<I", 12)[:3] + struct.pack("<I", 8)[:3] + struct.pack("<I", 100)[:3] + b"\0" + still[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + struct.pack("<I", 24)[:3] + struct.pack("<I", 14)[:3]
    body += b"ANIM" + struct.pack("<IIH", 6, 0xFF00FF00, 0) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    expected = np.full((15, 25, 3), 255, np.uint8)
    expected[2:11, 4:17] = part
    add("animated_part.webp", b"RIFF" + struct.pack("<I", len(body)) + body, expected)


def gif():
    rgb = Image.fromarray(picture(37, 29))
    paletted = rgb.quantize(40)
    plain = saved(paletted, "GIF", interlace=0)
    add("plain.gif", plain)
    add("interlaced.gif", saved(paletted, "GIF", interlace=1))
    add("gray.gif", saved(rgb.convert("L"), "GIF"))
    add("two_colours.gif", saved(rgb.convert("1"), "GIF"))
    add("transparent.gif", saved(paletted, "GIF", transparency=int(np.array(paletted)[10, 12])))
    frames = [Image.fromarray(picture(37, 29, seed=s)).quantize(30) for s in (1, 2, 3)]
    add("animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))
    # The frame at (5, 3) of a screen of 50 x 40: what it leaves bare is transparent. And a frame beyond its screen.
    pixels = np.array(paletted.convert("RGB"))
    at = plain.index(b"\x2c\0\0\0\0\x25\0\x1d\0")
    moved = plain[:at] + struct.pack("<BHH", 0x2C, 5, 3) + plain[at + 5 :]
    expected = np.full((40, 50, 3), 255, np.uint8)
    expected[3:32, 5:42] = pixels
    add("part.gif", moved[:6] + struct.pack("<HH", 50, 40) + moved[10:], expected)
    add("beyond_screen.gif", plain[:6] + struct.pack("<HH", 20, 10) + plain[10:], pixels)


def bmp_file(header, palette, pixels, masks=b""):
    offset = 14 + len(header) + len(masks) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + header + masks + palette + pixels


def bmp_header(width, height, bits, compression=0, size=40, colours=0, masks=(0, 0, 0, 0)):
    if size == 12:
        return struct.pack("<IHHHH", 12, width, height, 1, bits)
    out = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
    if size >= 52:
        out += struct.pack("<4I", *masks)
    return out.ljust(size, b"\0")[:size]


def bmp_rows(rows, top_down=False):
    rows = [row + b"\0" * (-len(row) % 4) for row in rows]
    return b"".join(rows if top_down else rows[::-1])


def bmp():
    rgb, gray = picture(23, 17), picture(23, 17, 1)
    bgr = [row[:, ::-1].tobytes() for row in rgb]
    add("bgr24.bmp", bmp_file(bmp_header(23, 17, 24), b"", bmp_rows(bgr)))
    add("bgr24_top_down.bmp", bmp_file(bmp_header(23, -17, 24), b"", bmp_rows(bgr, True)))
    add("bgr24_core.bmp", bmp_file(bmp_header(23, 17, 24, size=12), b"", bmp_rows(bgr)))
    add("bgr24_os2.bmp", bmp_file(bmp_header(23, 17, 24, size=64), b"", bmp_rows(bgr)))
    for bits in (1, 4, 8):
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 4)).astype(np.uint8)
        rows = [packed_row(row.reshape(-1) >> (8 - bits), bits) for row in gray]
        add(f"palette{bits}.bmp", bmp_file(bmp_header(23, 17, bits), palette.tobytes(), bmp_rows(rows)))
        add(f"palette{bits}_core.bmp",
            bmp_file(bmp_header(23, 17, bits, size=12), palette[:, :3].tobytes(), bmp_rows(rows)))
    few = np.random.default_rng(8).integers(0, 256, (5, 4)).astype(np.uint8)
    rows = [(row.reshape(-1) % 5).astype(np.uint8).tobytes() for row in gray]
    add("palette8_few.bmp", bmp_file(bmp_header(23, 17, 8, colours=5), few.tobytes(), bmp_rows(rows)))

    words = lambda r, g, b: [
        ((row[:, 0].astype(np.uint32) >> (8 - r)) << (g + b) | (row[:, 1].astype(np.uint32) >> (8 - g)) << b
         | row[:, 2].astype(np.uint32) >> (8 - b)).astype("<u2").tobytes() for row in rgb]
    add("rgb555.bmp", bmp_file(bmp_header(23, 17, 16), b"", bmp_rows(words(5, 5, 5))))
    fields = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    add("rgb565.bmp", bmp_file(bmp_header(23, 17, 16, 3), b"", bmp_rows(words(5, 6, 5)), fields))
    # Masks that Pillow does not read: 4 bits each, with alpha in a V3 header.
    rgba = picture(23, 17, 4)
    four = rgba >> 4
    rows = [(r[:, 3].astype(np.uint32) << 12 | r[:, 0].astype(np.uint32) << 8 | r[:, 1].astype(np.uint32) << 4 | r[:, 2])
            .astype("<u2").tobytes() for r in four]
    add("argb4444_v3.bmp",
        bmp_file(bmp_header(23, 17, 16, 3, 56, masks=(0xF00, 0xF0, 0xF, 0xF000)), b"", bmp_rows(rows)),
        on_white(four.astype(np.int64) * 255 // 15))

    bgrx = [row.tobytes() for row in rgba[..., [2, 1, 0, 3]]]
    add("bgrx32.bmp", bmp_file(bmp_header(23, 17, 32), b"", bmp_rows(bgrx)))  # the fourth byte is not alpha
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    add("bgrx32_fields.bmp", bmp_file(bmp_header(23, 17, 32, 3), b"", bmp_rows(bgrx), struct.pack("<3I", *masks[:3])))
    for size, name in ((52, "v2"), (56, "v3"), (108, "v4"), (124, "v5")):
        add(f"bgra32_{name}.bmp", bmp_file(bmp_header(23, 17, 32, 3, size, masks=masks), b"", bmp_rows(bgrx)))

    # Runs: encoded, absolute (odd counts are padded), a move, end of line, end of bitmap.
    palette = np.random.default_rng(1).integers(0, 256, (256, 4)).astype(np.uint8)
    rle8 = b""
    for y, row in enumerate(gray[:, :, 0]):
        if y == 5:
            rle8 += b"\0\x02\x03\x01"  # right 3, one row up
        elif y != 6:
            rle8 += bytes([4, row[0]]) + bytes([0, 7]) + row[4:11].tobytes() + b"\0" + bytes([12, row[12]]) + b"\0\0"
        else:
            rle8 += bytes([5, 77]) + b"\0\0"
    add("rle8.bmp", bmp_file(bmp_header(23, 17, 8, 1), palette.tobytes(), rle8 + b"\0\x01"))
    rle4 = b""
    for row in gray[:, :, 0] >> 4:
        rle4 += bytes([5, int(row[0]) << 4 | int(row[1])]) + bytes([0, 5, row[5] << 4 | row[6], row[7] << 4 | row[8],
                                                                    row[9] << 4, 0]) + bytes([13, 0x2A]) + b"\0\0"
    add("rle4.bmp", bmp_file(bmp_header(23, 17, 4, 2), palette[:16].tobytes(), rle4 + b"\0\x01"))


def scaling():
    source = picture(61, 47, seed=11)
    source[::7] = np.random.default_rng(12).integers(0, 256, source[::7].shape)
    tensors = {"source": source}
    # Both passes up and down, one pass alone; and where the vertical one comes first: (70, 20), (60, 44), not (60, 45).
    sizes = [(61, 47), (30, 23), (7, 5), (1, 1), (61, 20), (20, 47), (64, 47), (61, 50), (13, 60), (64, 48), (28, 56),
             (3, 110), (70, 20), (60, 44), (60, 45)]
    for width, height in sizes:
        tensors[f"{width}x{height}"] = np.array(Image.fromarray(source).resize((width, height), Image.BICUBIC))
    # Long, thin and large: checked through their smaller results.
    strip = np.random.default_rng(13).integers(0, 256, (3, 900, 3)).astype(np.uint8)
    tensors["strip"] = strip
    tensors["strip:11x9"] = np.array(Image.fromarray(strip).resize((11, 9), Image.BICUBIC))
    write_safetensors(OUT / "resize.safetensors", tensors)


def patches():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    source = picture(61, 33, seed=21)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 56})
    result = processor(images=[Image.fromarray(source)], return_tensors="np")
    grid = result["image_grid_thw"][0]
    tensors = {"picture": source, "picture.grid_thw": np.asarray(grid, np.int64),
               "picture.pixel_values": np.asarray(result["pixel_values"], np.float32)}
    # Every value a sample can have, so that no rounding goes unseen.
    ramp = np.stack([np.arange(256), np.arange(256)[::-1], (np.arange(256) * 7) % 256], -1).astype(np.uint8)
    ramp = ramp.reshape(16, 16, 3)
    small = Qwen2VLImageProcessorPil(size={"shortest_edge": 16, "longest_edge": 1 << 20}, patch_size=4)
    result = small(images=[Image.fromarray(ramp)], return_tensors="np", do_resize=False)
    tensors["ramp"] = ramp
    tensors["ramp.pixel_values"] = np.asarray(result["pixel_values"], np.float32)

    # Three frames make two pairs: the last is repeated. The video processor normalises with torchvision, whose last bits
    # differ; here the picture processor normalises and the patches are cut as Qwen2VLVideoProcessor.patchify cuts them.
    frames = np.stack([picture(8, 16, seed=s) for s in (31, 32, 33)])
    values = np.stack([small.normalize(small.rescale(f.transpose(2, 0, 1), 1 / 255), small.image_mean, small.image_std)
                       for f in frames[[0, 1, 2, 2]]])
    patch, merge, temporal = 4, 2, 2
    pairs, rows, columns = 4 // temporal, 16 // patch, 8 // patch
    values = values.reshape(pairs, temporal, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    values = values.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(pairs * rows * columns, -1)
    tensors["frames"] = frames
    tensors["frames.grid_thw"] = np.array([pairs, rows, columns], np.int64)
    tensors["frames.pixel_values"] = values.astype(np.float32)
    write_safetensors(OUT / "patches.safetensors", tensors)


def corpus():
    """The seeds of the fuzzers: one file of each variant, and a few halves."""
    for suffix, folder in (("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("gif", "gif"), ("bmp", "bmp")):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(sorted(OUT.glob(f"*.{suffix}"))):
            blob = path.read_bytes()
            (CORPUS / folder / path.stem).write_bytes(blob)
            if number % 6 == 0:
                (CORPUS / folder / f"{path.stem}_half").write_bytes(blob[: len(blob) // 2])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for make in (jpeg, pngs, webp, gif, bmp):
        make()
    write_safetensors(OUT / "golden.safetensors", GOLDEN)
    scaling()
    patches()
    corpus()


main()
