#!/usr/bin/env python3
"""Writes a Qwen2-VL-family checkpoint of real shapes with reproducible pseudo-random weights.

usage: make_checkpoint.py OUT_DIR --shape 2b|7b|72b|mini|tiny|2.5-3b [--vision-layers N] [--layers N] [--seed S] [--tokenizer DIR] [--full-vocabulary]

The same arguments give the same bytes on every machine, so a reference computed elsewhere can be compared without
carrying the weights. The weights are not trained: answers are noise, but every shape, name and file is as published.
Attention weights are large enough that a wrong position or a wrong mask changes the result visibly.
Needs the Python standard library only; numpy, where it is installed, makes it fast enough for the large shapes.
"""
import argparse
import array
import concurrent.futures
import json
import math
import os
import shutil
import struct

try:
    import numpy as np
except ImportError:
    np = None

VISION = dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4, in_chans=3, patch_size=14, spatial_merge_size=2, spatial_patch_size=14, temporal_patch_size=2)
SHAPES = {
    "2b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, vocab_size=151936, tie=True, section=[16, 24, 24]),
    "7b": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, vocab_size=152064, tie=False, section=[16, 24, 24]),
    "72b": dict(hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8, vocab_size=152064, tie=False, section=[16, 24, 24]),
    "tiny": dict(hidden_size=384, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=1, vocab_size=1088, tie=True, section=[16, 24, 24],
                 vision=dict(depth=4, embed_dim=240, num_heads=3)),
    # as small as can be with everything unlike the demo model: two query heads to a key head, other head sizes and sections, an untied head
    "mini": dict(hidden_size=256, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1088, tie=False, section=[8, 12, 12],
                 vision=dict(depth=2, embed_dim=96, num_heads=3, mlp_ratio=2)),
    "2.5-3b": dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2, vocab_size=151936, tie=True, section=[16, 24, 24], family="qwen2_5_vl"),
}


MASK = (1 << 64) - 1


def f32(x):
    """x rounded to float32, as a Python float."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def values(n, seed, scale, offset):
    """n bfloat16 values offset + scale * u as little-endian bytes; u in [-1, 1) is splitmix64 of (seed, index), the same everywhere."""
    start, step = seed * 0x9E3779B97F4A7C15 & MASK, 1 << 20

    def part(i):
        return (fast_values if np else plain_values)(i + start, min(n - i, step), f32(scale), offset)
    if n <= step or not np:
        yield from map(part, range(0, n, step))
        return
    with concurrent.futures.ThreadPoolExecutor() as pool:  # numpy computes outside of Python's lock
        for i in range(0, n, 64 * step):  # at most 128 MB wait to be written
            yield from pool.map(part, range(i, min(n, i + 64 * step), step))


def fast_values(first, n, scale, offset):
    x = np.arange(n, dtype=np.uint64) + np.uint64(first & MASK)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    u = (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    b = (np.float32(offset) + u * np.float32(scale)).view(np.uint32)
    return ((b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2").tobytes()


def plain_values(first, n, scale, offset):
    u = array.array("f", bytes(4 * n))
    for i in range(n):
        x = first + i & MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
        u[i] = (((x ^ x >> 31) >> 40) / (1 << 23) - 1) * scale  # exact in double, and rounded once where it is stored
    if offset:
        u = array.array("f", [offset + x for x in u])
    b = array.array("I", u.tobytes())
    return struct.pack(f"<{n}H", *[x + 0x7FFF + (x >> 16 & 1) >> 16 for x in b])


def tensors(s, vision_layers, layers):
    """Yields (name, shape, kind); kind: q (attention), w (other weight), g (norm gain), b (bias)."""
    v = dict(VISION, **s.get("vision", {}))
    e, h = v["embed_dim"], s["hidden_size"]
    mlp = e * v["mlp_ratio"]
    windowed = s.get("family") == "qwen2_5_vl"
    yield "visual.patch_embed.proj.weight", (e, 3, 2, 14, 14), "w"
    for i in range(vision_layers):
        p = f"visual.blocks.{i}."
        if windowed:
            yield p + "norm1.weight", (e,), "g"
            yield p + "norm2.weight", (e,), "g"
        else:
            for n in ("norm1", "norm2"):
                yield p + n + ".weight", (e,), "g"
                yield p + n + ".bias", (e,), "b"
        yield p + "attn.qkv.weight", (3 * e, e), "q"
        yield p + "attn.qkv.bias", (3 * e,), "b"
        yield p + "attn.proj.weight", (e, e), "w"
        yield p + "attn.proj.bias", (e,), "b"
        if windowed:
            for n, shape in (("gate_proj", (3420, e)), ("up_proj", (3420, e)), ("down_proj", (e, 3420))):
                yield f"{p}mlp.{n}.weight", shape, "w"
                yield f"{p}mlp.{n}.bias", (shape[0],), "b"
        else:
            for n, shape in (("fc1", (mlp, e)), ("fc2", (e, mlp))):
                yield f"{p}mlp.{n}.weight", shape, "w"
                yield f"{p}mlp.{n}.bias", (shape[0],), "b"
    yield "visual.merger.ln_q.weight", (e,), "g"
    if not windowed:
        yield "visual.merger.ln_q.bias", (e,), "b"
    yield "visual.merger.mlp.0.weight", (4 * e, 4 * e), "w"
    yield "visual.merger.mlp.0.bias", (4 * e,), "b"
    yield "visual.merger.mlp.2.weight", (h, 4 * e), "w"
    yield "visual.merger.mlp.2.bias", (h,), "b"
    d = h // s["num_attention_heads"]
    kv = d * s["num_key_value_heads"]
    yield "model.embed_tokens.weight", (s["vocab_size"], h), "e"
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,), "g"
        yield p + "post_attention_layernorm.weight", (h,), "g"
        for n, rows in (("q", h), ("k", kv), ("v", kv)):
            yield f"{p}self_attn.{n}_proj.weight", (rows, h), "q" if n != "v" else "w"
            yield f"{p}self_attn.{n}_proj.bias", (rows,), "b"
        yield p + "self_attn.o_proj.weight", (h, h), "w"
        yield p + "mlp.gate_proj.weight", (s["intermediate_size"], h), "w"
        yield p + "mlp.up_proj.weight", (s["intermediate_size"], h), "w"
        yield p + "mlp.down_proj.weight", (h, s["intermediate_size"]), "w"
    yield "model.norm.weight", (h,), "g"
    if not s["tie"]:
        yield "lm_head.weight", (s["vocab_size"], h), "e"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--shape", choices=SHAPES, required=True)
    a.add_argument("--vision-layers", type=int)
    a.add_argument("--layers", type=int)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--tokenizer", help="a checkpoint folder whose tokenizer and preprocessor files to use; its vocabulary size then replaces the shape's")
    a.add_argument("--full-vocabulary", action="store_true", help="with --tokenizer: keep the shape's vocabulary size, so that the head costs what the published one costs; ids beyond the tokenizer have no text")
    a.add_argument("--max-pixels", type=int, default=12845056)
    a = a.parse_args()
    s = dict(SHAPES[a.shape])
    v = dict(VISION, **s.get("vision", {}))
    vision_layers, layers = a.vision_layers or v["depth"], a.layers or s["num_hidden_layers"]
    os.makedirs(a.out, exist_ok=True)
    token = dict(bos_token_id=151643, eos_token_id=151645, vision_start_token_id=151652, vision_end_token_id=151653, vision_token_id=151654, image_token_id=151655, video_token_id=151656)
    if a.tokenizer:
        c = json.load(open(a.tokenizer + "/config.json"))
        if not a.full_vocabulary:
            s["vocab_size"] = c["vocab_size"]
        token = {k: c[k] for k in token}
        for f in ("tokenizer.json", "tokenizer_config.json", "chat_template.json", "generation_config.json"):
            shutil.copy(f"{a.tokenizer}/{f}", a.out)
    index, total, shard, size, limit = {}, 0, [], 0, 2 << 30
    shards = []
    for name, shape, kind in tensors(s, vision_layers, layers):
        n = math.prod(shape) * 2
        if size + n > limit and shard:
            shards.append(shard)
            shard, size = [], 0
        shard.append((name, shape, kind, n))
        size += n
        total += n
    shards.append(shard)
    k = 0
    for i, shard in enumerate(shards):
        f = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape, _, n in shard:
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
            index[name] = f
            at += n
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        with open(f"{a.out}/{f}", "wb") as out:
            out.write(struct.pack("<Q", len(head)) + head)
            for name, shape, kind, n in shard:
                k += 1
                fan = math.prod(shape[1:])
                scale = {"q": 2.2 / fan ** 0.5, "w": 1.0 / fan ** 0.5, "e": 0.05, "g": 0.1, "b": 0.1}[kind]
                for part in values(math.prod(shape), a.seed * 100003 + k, scale, 1 if kind == "g" else 0):
                    out.write(part)
    if len(shards) > 1:
        json.dump({"metadata": {"total_size": total}, "weight_map": index}, open(a.out + "/model.safetensors.index.json", "w"), indent=1)
    family = s.get("family", "qwen2_vl")
    vc = dict(v, depth=vision_layers, hidden_size=s["hidden_size"])
    if family == "qwen2_5_vl":
        vc = dict(depth=vision_layers, hidden_act="silu", hidden_size=v["embed_dim"], intermediate_size=3420, num_heads=v["num_heads"], in_chans=3, out_hidden_size=s["hidden_size"], patch_size=14, spatial_merge_size=2,
                  spatial_patch_size=14, window_size=112, fullatt_block_indexes=[i for i in (7, 15, 23, 31) if i < vision_layers] or [vision_layers - 1], tokens_per_second=2, temporal_patch_size=2)
    json.dump(dict(token, architectures=["Qwen2VLForConditionalGeneration" if family == "qwen2_vl" else "Qwen2_5_VLForConditionalGeneration"], model_type=family, attention_dropout=0.0, hidden_act="silu",
                   hidden_size=s["hidden_size"], initializer_range=0.02, intermediate_size=s["intermediate_size"], max_position_embeddings=32768, max_window_layers=layers,
                   num_attention_heads=s["num_attention_heads"], num_hidden_layers=layers, num_key_value_heads=s["num_key_value_heads"], rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=32768,
                   tie_word_embeddings=s["tie"], torch_dtype="bfloat16", use_cache=True, use_sliding_window=False, vision_config=vc, rope_scaling={"type": "mrope", "mrope_section": s["section"]},
                   vocab_size=s["vocab_size"]), open(a.out + "/config.json", "w"), indent=1)
    json.dump(dict(min_pixels=3136, max_pixels=a.max_pixels, patch_size=14, temporal_patch_size=2, merge_size=2, image_mean=[0.48145466, 0.4578275, 0.40821073],
                   image_std=[0.26862954, 0.26130258, 0.27577711], image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2VLProcessor"), open(a.out + "/preprocessor_config.json", "w"), indent=1)
    print(f"{a.out}: {total / 2:.0f} parameters, {total / 2**20:.0f} MiB in {len(shards)} files")


if __name__ == "__main__":
    main()
