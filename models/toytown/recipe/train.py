"""Trains the toy-town model: a 10M-parameter Qwen2-VL that really answers questions about toy-town pictures.

usage: train.py OUT_DIR SECONDS [START_DIR]

OUT_DIR    receives the checkpoint in the layout of the public Qwen2-VL repositories, and accuracy.json
SECONDS    of training; add about 40 s for set-up and evaluation
START_DIR  an earlier checkpoint to go on from (its tokenizer is kept); without it training starts from nothing

environment: POOL_SEED (default 1) other pictures than the last time; LR_FROM, LR_TO (8e-4, 0) the learning rate falls
from one to the other along a half cosine; TEST (1000) questions of each kind in the evaluation.

Needs torch, transformers, tokenizers, safetensors, pillow, numpy, the font DejaVuSans-Bold, many cores and one GPU
(without a GPU it runs at a snail's pace, which is enough to try a change).

How it is kept fast: the pictures are painted by worker processes for as long as training lasts, each worker also writes
the token rows, and a picture is used a few times before a new one takes its place in a ring on the GPU; pairs are any two
pictures of one size. A step for each kind of batch is one CUDA graph over a plain forward pass (checked against
transformers at the start), with all weights in one flat tensor, so the optimizer is a handful of kernels.
"""
import collections
import glob
import io
import json
import math
import multiprocessing
import os
import queue
import random
import sys
import threading
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import numpy as np
from PIL import Image

import scenes

OUT, SECONDS, START = sys.argv[1], float(sys.argv[2]), (sys.argv[3:] or [None])[0]
POOL_SEED = int(os.environ.get("POOL_SEED", 1))
LR_FROM, LR_TO = float(os.environ.get("LR_FROM", 8e-4)), float(os.environ.get("LR_TO", 0))
TEST = int(os.environ.get("TEST", 1000))
SIZES = [(196, 280), (224, 224), (280, 196), (168, 308), (224, 280), (168, 224)]  # (height, width), multiples of 28
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
           "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
SYSTEM = "You are a helpful assistant."
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
VOCAB, VOCAB_SIZE = 1024, 1088  # base tokens at most; with the special ones and padding
TEXT = 160  # tokens of conversation after the picture, in training
CHUNK, ROUNDS = 128, 4  # pictures that a worker paints at a time, and conversations it writes about each
RING = {"picture": 96, "video": 24}  # chunks held on the GPU, for each size
BATCH = {"single": 256, "pair": 160, "video": 96}
SHARE = {"single": 1.0, "pair": 0.8, "video": 0.25}  # how often a step of a kind is drawn, relative to the others, for each size
# how often a question of a kind is asked, relative to the others
EMPHASIS = {"tags": 10, "describe": 3, "row": 8, "read": 12, "where": 2, "colour": 2, "count": 1, "exists": 0.6, "policy": 1, "time": 0.6, "weather": 0.8, "pair": 1, "motion": 1}
BIRDS = 4  # and about birds, which are thin and were long overlooked
SIGNS = 0.3  # share of training scenes that are drawn again until they hold a sign
FAINT = 0.5  # share of faint scenes, in training and evaluation
t_start = time.time()


def log(*a):
    print(f"[{time.time() - t_start:6.1f}s]", *a, flush=True)


FONT = scenes.font_path()


# --- pictures

def paint(scene, h, w, rng):
    """uint8 [h, w, 3]: painted at its size and sometimes saved as a JPEG, or painted large and shrunk, as a user's picture is."""
    if rng.random() < 0.3:
        return np.asarray(scenes.draw(scene, w * 2, h * 2, FONT, 1).resize((w, h), Image.BICUBIC))
    img = scenes.draw(scene, w, h, FONT)
    if rng.random() < 0.3:
        buf = io.BytesIO()
        img.save(buf, "JPEG", quality=rng.randint(60, 95))
        img = Image.open(buf).convert("RGB")
    return np.asarray(img)


def paint_video(scene, way, h, w):
    return np.stack([np.asarray(scenes.draw(scenes.video_frame(scene, way, k, 4), w, h, FONT, 1)) for k in range(4)])


def a_scene(rng):
    return scenes.make_scene(rng, rng.random() < FAINT)


def a_video(rng):
    return scenes.make_video(rng, rng.random() < FAINT)


def scene_for_training(rng):
    s, wanted = a_scene(rng), rng.random() < SIGNS
    while wanted and not any(t["kind"] == "sign" for t in s["things"]):
        s = a_scene(rng)
    return s


# --- token rows

class Words:
    """The tokenizer and the fixed pieces of a conversation."""

    def __init__(self, tok):
        self.tok = tok
        self.ids = {s: tok.token_to_id(s) for s in SPECIAL}
        enc = self.encode
        self.start, self.end, nl = self.ids["<|im_start|>"], self.ids["<|im_end|>"], enc("\n")
        self.head = [self.start] + enc("system\n" + SYSTEM) + [self.end] + nl + [self.start] + enc("user\n")
        self.again = nl + [self.start] + enc("user\n")
        self.turn = [self.end] + nl + [self.start] + enc("assistant\n")
        self.cache = {}

    def encode(self, s):
        return self.tok.encode(s, add_special_tokens=False).ids

    def pieces(self, q, a):
        if len(self.cache) > 50000:
            self.cache.clear()
        if (q, a) not in self.cache:
            self.cache[q, a] = (self.encode(q), self.encode(a))
        return self.cache[q, a]

    def conversation(self, turns, room):
        """Turns [(question, answer, kind)] as (tokens, labels) of exactly `room`; those that no longer fit are left out."""
        row, lab = [], []
        for q, a, _ in turns:
            qi, ai = self.pieces(q, a)
            ask = (self.again if row else []) + qi + self.turn
            if len(row) + len(ask) + len(ai) + 1 > room:
                break
            row += ask + ai + [self.end]
            lab += [-1] * len(ask) + ai + [self.end]
        return row + [self.end] * (room - len(row)), lab + [-1] * (room - len(lab))

    def prefix(self, kind, grid):
        """Tokens and positions [3, n] of what stands before the conversation: system, and the pictures or the video."""
        n = grid[0] * grid[1] * grid[2] // 4
        pad = self.ids["<|video_pad|>"] if kind == "video" else self.ids["<|image_pad|>"]
        tokens, pos = list(self.head), [np.tile(np.arange(len(self.head)), (3, 1))]
        for _ in range(2 if kind == "pair" else 1):
            nxt = pos[-1].max() + 1
            tokens.append(self.ids["<|vision_start|>"]); pos.append(np.full((3, 1), nxt))
            tokens += [pad] * n; pos.append(vision_positions(nxt + 1, grid))
            nxt = pos[-1].max() + 1
            tokens.append(self.ids["<|vision_end|>"]); pos.append(np.full((3, 1), nxt))
        return tokens, np.concatenate(pos, 1)


def vision_positions(start, grid):
    t, h, w = np.meshgrid(np.arange(grid[0]), np.arange(grid[1] // 2), np.arange(grid[2] // 2), indexing="ij")
    return np.stack([t.ravel(), h.ravel(), w.ravel()]) + start


def choose(questions, rng, n=12):
    """Up to n different questions in random order; those that say most about the picture, or are hard, come more often."""
    weight = lambda q: EMPHASIS[q[2]] * (BIRDS if "bird" in q[0] or "鸟" in q[0] else 1)
    return list({q[0]: q for q in rng.choices(questions, [weight(q) for q in questions], k=n)}.values())


def make_chunk(words, kind, size, rng):
    """kind 'picture': pictures with single conversations [n, ROUNDS, 2, TEXT] and pairs within the chunk; 'video' likewise."""
    h, w = size
    rows = lambda qs: np.array([words.conversation(choose(qs, rng), TEXT) for _ in range(ROUNDS)], np.int16)
    if kind == "video":
        made = [a_video(rng) for _ in range(CHUNK // 4)]
        return {"pics": np.stack([paint_video(s, way, h, w) for s, way in made]), "rows": np.stack([rows(scenes.video_questions(s, way, rng)) for s, way in made])}
    made = [scene_for_training(rng) for _ in range(CHUNK)]
    pairs = np.array([rng.sample(range(CHUNK), 2) for _ in range(CHUNK * 2)], np.int64)
    talk = [words.conversation(choose(scenes.pair_questions(made[a], made[b], rng), rng), TEXT) for a, b in pairs]
    return {"pics": np.stack([paint(s, h, w, rng) for s in made])[:, None], "rows": np.stack([rows(scenes.questions(s, rng)) for s in made]), "pairs": pairs, "talk": np.array(talk, np.int16)}


def worker(words, number, out):
    rng = random.Random(POOL_SEED * 1_000_003 + number)
    while True:
        kind = "video" if rng.random() < 0.12 else "picture"
        size = SIZES[0] if kind == "video" else rng.choices(SIZES, [3, 2, 2, 1, 1, 1])[0]
        out.put((kind, size, make_chunk(words, kind, size, rng)))


def test_job(job):
    """Pictures and questions for the evaluation; kind 'sign': scenes with a sign only."""
    kind, size, seed, n = job
    rng, (h, w), pics, asked = random.Random(seed), size, [], []
    for _ in range(n):
        if kind == "video":
            s, way = a_video(rng)
            pics.append(paint_video(s, way, h, w))
            asked.append(scenes.video_questions(s, way, rng))
            continue
        made = [a_scene(rng) for _ in range(2 if kind == "pair" else 1)]
        while kind == "sign" and not any(t["kind"] == "sign" for t in made[0]["things"]):
            made = [a_scene(rng)]
        pics.append(np.stack([paint(s, h, w, rng) for s in made]))
        asked.append(scenes.pair_questions(*made, rng) if kind == "pair" else [q for q in scenes.questions(made[0], rng) if (q[2] == "read") == (kind == "sign")])
    return kind, size, np.stack(pics), asked


# --- the model

def qwen2_vl(P, L, px, ids, cos_v, sin_v, cos_t, sin_t, pads, heads_v=3, heads_t=3):
    """Qwen2-VL on equal rows. P: weights by hub name; L: (vision, language) layers; px [B * images * frames, N, 1176]; ids [B, T];
    pads: where in a row the image tokens stand. Returns hidden states [B, T, width] after the last norm."""
    import torch
    import torch.nn.functional as F
    dt = P["model.norm.weight"].dtype
    turned = lambda x: torch.cat((-x[..., x.shape[-1] // 2:], x[..., :x.shape[-1] // 2]), -1)
    rope = lambda x, cos, sin: (x * cos + turned(x) * sin).to(dt)
    lin = lambda x, n, bias=True: F.linear(x, P[n + ".weight"], P[n + ".bias"] if bias else None)
    ln = lambda x, n: F.layer_norm(x, x.shape[-1:], P[n + ".weight"].float(), P[n + ".bias"].float(), 1e-6).to(dt)
    rms = lambda x, n: ((x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)) * P[n + ".weight"].float()).to(dt)
    x = F.linear(px.to(dt), P["visual.patch_embed.proj.weight"].flatten(1)).float()
    b, n, e = x.shape
    for i in range(L[0]):
        p = f"visual.blocks.{i}."
        q, k, v = lin(ln(x, p + "norm1"), p + "attn.qkv").view(b, n, 3, heads_v, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(rope(q, cos_v, sin_v), rope(k, cos_v, sin_v), v)
        x = x + lin(a.transpose(1, 2).reshape(b, n, e), p + "attn.proj")
        y = lin(ln(x, p + "norm2"), p + "mlp.fc1")
        x = x + lin(y * torch.sigmoid(1.702 * y), p + "mlp.fc2")
    y = ln(x, "visual.merger.ln_q").view(b, n // 4, 4 * e)
    feats = lin(F.gelu(lin(y, "visual.merger.mlp.0")), "visual.merger.mlp.2")
    B, T = ids.shape
    x = F.embedding(ids, P["model.embed_tokens.weight"]).float()
    x[:, pads] = feats.float().reshape(B, -1, x.shape[-1])
    for i in range(L[1]):
        p = f"model.layers.{i}."
        y = rms(x, p + "input_layernorm")
        q, k, v = (lin(y, p + f"self_attn.{n}_proj").view(B, T, -1, x.shape[-1] // heads_t).transpose(1, 2) for n in "qkv")
        k, v = (t.expand(-1, heads_t, -1, -1) for t in (rope(k, cos_t, sin_t), v))
        a = F.scaled_dot_product_attention(rope(q, cos_t, sin_t), k, v, is_causal=True)
        x = x + lin(a.transpose(1, 2).reshape(B, T, -1), p + "self_attn.o_proj", False)
        y = rms(x, p + "post_attention_layernorm")
        x = x + lin(F.silu(lin(y, p + "mlp.gate_proj", False)) * lin(y, p + "mlp.up_proj", False), p + "mlp.down_proj", False)
    return rms(x, "model.norm")


class Kind:
    """What is constant for one kind of row: 'single', 'pair' or 'video' of one picture size."""

    def __init__(self, words, kind, size, dev, head_v=80, head_t=128, section=(16, 24, 24)):
        import torch
        self.kind, self.size, self.images = kind, size, 2 if kind == "pair" else 1
        self.grid = (2 if kind == "video" else 1, size[0] // 14, size[1] // 14)
        pre, pos = words.prefix(kind, self.grid)
        self.pre = torch.tensor(pre, device=dev)
        self.pos = pos
        pad = words.ids["<|video_pad|>"] if kind == "video" else words.ids["<|image_pad|>"]
        self.pads = torch.tensor([i for i, t in enumerate(pre) if t == pad], device=dev)
        at = np.stack([x.reshape(self.grid[1] // 2, 2, self.grid[2] // 2, 2).transpose(0, 2, 1, 3).ravel() for x in np.mgrid[:self.grid[1], :self.grid[2]]], 1)
        freq = 10000.0 ** -(np.arange(0, head_v // 2, 2) / (head_v // 2))
        a = (at[:, :, None] * freq).reshape(len(at), -1)
        self.rope_v = [torch.tensor(f(np.concatenate([a, a], 1)), device=dev, dtype=torch.float32) for f in (np.cos, np.sin)]
        self.freq_t, self.axis = 10000.0 ** -(np.arange(0, head_t, 2) / head_t), np.repeat([0, 1, 2], section)
        self.dev, self.ropes = dev, {}

    def positions(self, room):
        return np.concatenate([self.pos, np.tile(np.arange(room), (3, 1)) + self.pos.max() + 1], 1)

    def rope_t(self, room):
        import torch
        if room not in self.ropes:
            a = self.positions(room)[self.axis].T * self.freq_t
            self.ropes[room] = [torch.tensor(f(np.concatenate([a, a], 1)), device=self.dev, dtype=torch.float32) for f in (np.cos, np.sin)]
        return self.ropes[room]

    def forward(self, P, L, pics, text):
        """pics float [B * images, frames, h, w, 3] in 0..1; text [B, room] -> hidden states of the conversation, from the last token of the prefix on."""
        import torch
        ids = torch.cat([self.pre.expand(len(text), -1), text], 1)
        h = qwen2_vl(P, L, patches(pics), ids, *self.rope_v, *self.rope_t(text.shape[1]), self.pads)
        return h[:, len(self.pre) - 1:]


NORMAL = {}  # device: (mean, std) there


def patches(x):
    """float [n, frames, h, w, 3] in 0..1 -> [n * grid_t, grid_h * grid_w, 1176]; an image is doubled in time."""
    import torch
    if x.device not in NORMAL:
        NORMAL[x.device] = [torch.tensor(c, device=x.device) for c in (MEAN, STD)]
    mean, std = NORMAL[x.device]
    x = ((x - mean) / std).permute(0, 1, 4, 2, 3)
    if x.shape[1] == 1:
        x = x.expand(-1, 2, -1, -1, -1)
    n, t, c, h, w = x.shape
    x = x.reshape(n, t // 2, 2, c, h // 28, 2, 14, w // 28, 2, 14).permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return x.reshape(n * (t // 2), (h // 14) * (w // 14), -1)


def hub_name(n):
    return n.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def main():
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    os.makedirs(OUT, exist_ok=True)
    tok = Tokenizer.from_file(START + "/tokenizer.json") if START else train_tokenizer()
    words = Words(tok)
    ids = words.ids
    assert max(ids.values()) < VOCAB_SIZE
    fork = multiprocessing.get_context("fork")
    cores = os.cpu_count() or 1

    # the test pictures first, then the workers, which go on painting until the end
    small = TEST < 300
    plan = [("single", SIZES[0], 900), ("single", SIZES[1], 300), ("single", SIZES[2], 300), ("sign", SIZES[0], 200), ("sign", SIZES[1], 150), ("sign", SIZES[2], 150), ("pair", SIZES[0], 500), ("video", SIZES[0], 300)]
    jobs = [(k, s, 900_000_011 + 7919 * len(plan) * j + 13 * i, 2 if small else 50) for i, (k, s, n) in enumerate(plan) for j in range(1 if small else n // 50)]
    with fork.Pool(cores) as pool:
        test = pool.map(test_job, jobs, 1)
    log("test pictures", sum(len(t[2]) for t in test))
    made = fork.Queue(1 if dev == "cpu" else 64)
    workers = [fork.Process(target=worker, args=(words, i, made), daemon=True) for i in range(max(1, cores - 1))]
    for w in workers:
        w.start()

    # --- model: the weights as one flat tensor
    cfg = Qwen2VLConfig(
        text_config=dict(hidden_size=384, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=1, vocab_size=VOCAB_SIZE, rms_norm_eps=1e-6,
                         rope_theta=10000.0, max_position_embeddings=4096, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}, use_sliding_window=False, tie_word_embeddings=True,
                         bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"]),
        vision_config=dict(depth=4, embed_dim=240, num_heads=3, mlp_ratio=4, in_channels=3, patch_size=14, spatial_merge_size=2, temporal_patch_size=2, hidden_size=384),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=True)
    torch.manual_seed(POOL_SEED)
    model = Qwen2VLForConditionalGeneration._from_config(cfg, attn_implementation="sdpa").float().eval()
    if START:
        weights = {}
        for f in sorted(glob.glob(START + "/*.safetensors")):
            weights.update(load_file(f))
        own = {hub_name(n): n for n in model.state_dict()}
        missing, unexpected = model.load_state_dict({own[n]: w.float() for n, w in weights.items()}, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
    L = (4, 4)
    first = {hub_name(n): p.detach() for n, p in model.state_dict().items() if n != "lm_head.weight"}
    names, shapes = list(first), [w.shape for w in first.values()]
    counts = [s.numel() for s in shapes]
    flat = torch.cat([w.flatten() for w in first.values()]).to(dev)
    decay = torch.cat([torch.full((c,), 0.05 if len(s) >= 2 else 0.0) for c, s in zip(counts, shapes)]).to(dev)
    as_weights = lambda x: {n: w.view(s) for n, w, s in zip(names, x.split(counts), shapes)}
    log("parameters", flat.numel(), "on", dev)
    check_forward(model, as_weights(flat), L, words, test)
    del model

    m, v, ema = torch.zeros_like(flat), torch.zeros_like(flat), flat.clone()
    lr, tick = torch.zeros((), device=dev), torch.zeros((), device=dev)
    loss_out, norm_out, skipped = torch.zeros(3, device=dev), torch.zeros((), device=dev), torch.zeros((), device=dev)

    # --- rings of pictures on the device, filled by a thread
    rings, lock, copies = {}, threading.Lock(), torch.cuda.Stream() if dev == "cuda" else None
    recent = collections.deque(maxlen=64)

    def ring_for(kind, size):
        if (kind, size) not in rings:
            n = CHUNK // 4 if kind == "video" else CHUNK
            cap = RING[kind] if dev == "cuda" else 2
            r = {"n": n, "cap": cap, "seen": 0, "filled": torch.zeros((), device=dev), "pics": torch.zeros((cap * n, 4 if kind == "video" else 1, *size, 3), dtype=torch.uint8, device=dev),
                 "rows": torch.zeros((cap * n, ROUNDS, 2, TEXT), dtype=torch.int16, device=dev)}
            if kind == "picture":
                r["pairs"] = torch.zeros((cap * n * 2, 2), dtype=torch.int64, device=dev)
                r["talk"] = torch.zeros((cap * n * 2, 2, TEXT), dtype=torch.int16, device=dev)
            rings[kind, size] = r
        return rings[kind, size]

    def store(kind, size, chunk):
        r, n = ring_for(kind, size), len(chunk["pics"])
        at = r["seen"] % r["cap"] * n
        with torch.cuda.stream(copies):  # not behind the training steps that are queued already
            new = {k: torch.from_numpy(x).to(dev) for k, x in chunk.items()}
        with lock:
            r["pics"][at:at + n] = new["pics"]
            r["rows"][at:at + n] = new["rows"]
            if kind == "picture":
                r["pairs"][2 * at:2 * (at + n)] = new["pairs"] + at
                r["talk"][2 * at:2 * (at + n)] = new["talk"]
            r["seen"] += 1
            r["filled"].fill_(float(min(r["seen"], r["cap"]) * n))
        recent.append(new)  # its memory is not given out again before the queued copies have read it

    # --- one training step on a batch drawn from a ring; with a GPU it is captured once as a CUDA graph
    def step(kd, ring, slot):
        B = BATCH[kd.kind] if dev == "cuda" else 4
        any_of = lambda n, top: (torch.rand(n, device=dev) * top).long()
        if kd.kind == "pair":
            j = any_of(B, ring["filled"] * 2)
            which, talk = ring["pairs"][j].flatten(), ring["talk"][j]
        else:
            which = any_of(B, ring["filled"])
            talk = ring["rows"][which, any_of(B, ROUNDS)]
        h, w = kd.size
        sh = torch.randint(-5, 6, (2, len(which), 1), device=dev)
        y, x = (torch.arange(h, device=dev) + sh[0]) % h, (torch.arange(w, device=dev) + sh[1]) % w
        frames = ring["pics"].shape[1]
        pics = ring["pics"][which[:, None, None, None], torch.arange(frames, device=dev)[None, :, None, None], y[:, None, :, None], x[:, None, None, :]].float() / 255
        one = lambda: torch.rand(len(which), 1, 1, 1, 1, device=dev)
        pics = (pics * (1 + 0.16 * (one() - 0.5)) + 0.03 * one() * torch.randn_like(pics)).clamp_(0, 1)
        leaf = (flat.bfloat16() if dev == "cuda" else flat.clone()).requires_grad_()
        P = as_weights(leaf)
        hid = kd.forward(P, L, pics, talk[:, 0].long())[:, 1:-1]
        logits = F.linear(hid, P["model.embed_tokens.weight"]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), talk[:, 1, 1:].long().flatten(), ignore_index=-1)
        g = torch.autograd.grad(loss, leaf)[0].float()
        with torch.no_grad():
            norm = g.norm()
            good = torch.isfinite(norm)
            g = torch.nan_to_num(g, 0.0, 0.0, 0.0) * torch.where(good, (0.5 / (norm + 1e-6)).clamp(max=1.0), torch.zeros_like(norm))
            skipped.add_((~good).float())
            tick.add_(1)
            m.lerp_(g, 0.1)
            v.mul_(0.98).addcmul_(g, g, value=0.02)
            flat.sub_(lr * ((m / (1 - 0.9 ** tick)) / ((v / (1 - 0.98 ** tick)).sqrt() + 1e-8) + decay * flat))
            ema.add_((flat - ema) * torch.clamp(10 / (10 + tick), min=0.002))
            loss_out[slot].copy_(loss.detach())
            norm_out.copy_(norm)

    keys = [("single", s) for s in SIZES] + [("pair", s) for s in SIZES[:3] + SIZES[5:]] + [("video", SIZES[0])]
    weight = [SHARE[k] * (1.6 if s in SIZES[:3] else 1.0) for k, s in keys]
    if dev == "cpu":
        keys, weight = [("single", SIZES[5]), ("pair", SIZES[5]), ("video", SIZES[0])], [1, 1, 1]
    need = {("video" if k == "video" else "picture", s) for k, s in keys}
    if dev == "cpu":
        for i, (k, s) in enumerate(need):
            store(k, s, make_chunk(words, k, s, random.Random(i)))
    else:
        while len(rings) < len(need):  # one chunk of everything, so that every graph has something to be captured on
            store(*made.get())
    log("first pictures")
    graphs, constants = {}, []
    for key in keys:
        kd, ring, slot = Kind(words, *key, dev), rings["video" if key[0] == "video" else "picture", key[1]], ("single", "pair", "video").index(key[0])
        kd.rope_t(TEXT)
        constants.append(kd)  # a captured graph reads its tables but does not keep them
        run = lambda kd=kd, ring=ring, slot=slot: step(kd, ring, slot)
        if dev == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run(); run()
            torch.cuda.current_stream().wait_stream(side)
            g = torch.cuda.CUDAGraph()
            with torch.cuda.graph(g, pool=next(iter(graphs.values())).pool() if graphs else None):
                run()
            graphs[key] = g
        else:
            graphs[key] = type("Eager", (), {"replay": staticmethod(run)})
    for t in (m, v, tick, skipped):
        t.zero_()
    ema.copy_(flat)
    log("captured", len(graphs), "kinds of batch")
    if dev == "cuda":
        torch.cuda.synchronize()

    stop = threading.Event()

    def feed():
        while not stop.is_set():
            try:
                store(*made.get(timeout=1))
            except queue.Empty:
                pass

    feeder = threading.Thread(target=feed, daemon=True)
    if dev == "cuda":
        feeder.start()
    rng, n, t0, seen = random.Random(POOL_SEED), 0, time.time(), dict.fromkeys(BATCH, 0)
    while time.time() - t0 < SECONDS:
        frac = (time.time() - t0) / SECONDS
        lr.fill_(min(1.0, (n + 1) / 300) * (LR_TO + (LR_FROM - LR_TO) * 0.5 * (1 + math.cos(math.pi * frac))))
        key = rng.choices(keys, weight)[0]
        with lock:
            graphs[key].replay()
        n += 1
        seen[key[0]] += BATCH[key[0]] if dev == "cuda" else 4
        if n % 10 == 0 and dev == "cuda":
            torch.cuda.synchronize()
        if n % 500 == 0 or dev == "cpu":
            a = loss_out.tolist()
            log(f"step {n} loss single {a[0]:.4f} pair {a[1]:.4f} video {a[2]:.4f} norm {norm_out.item():.2f} skipped {int(skipped)} pictures {sum(r['seen'] * r['n'] for r in rings.values())}")
            if not math.isfinite(sum(a)) or float(skipped) > 500:
                raise SystemExit("training diverged")
    stop.set()
    if dev == "cuda":
        feeder.join()
    painted = sum(r["seen"] * r["n"] for r in rings.values())
    for w in workers:
        w.kill()
    log("trained", n, "steps,", seen, "conversations,", painted, "pictures and videos,", int(skipped), "steps skipped for a gradient that was not finite")

    # --- the average of the last weights, rounded to bfloat16, the precision it is shipped in: evaluate that
    final = as_weights(ema.bfloat16())
    hits = evaluate({k: w.clone() for k, w in final.items()} if dev == "cuda" else {k: w.float() for k, w in final.items()}, L, words, test, dev)
    for kind, v in sorted(hits.items()):
        log(f"exact match {kind:9s} {sum(v) / len(v):.4f}  of {len(v)}")
    report = {"steps": n, "seconds": round(time.time() - t0), "conversations": seen, "pictures": painted, "pool_seed": POOL_SEED, "learning_rate": [LR_FROM, LR_TO],
              "exact_match": {k: round(sum(v) / len(v), 4) for k, v in sorted(hits.items())}, "questions": {k: len(v) for k, v in sorted(hits.items())}}
    export(final, cfg, tok, ids, report)
    log("done")


def train_tokenizer():
    """Byte-level BPE as in Qwen2, over the questions and answers."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    rng, corpus = random.Random(1), ["system\n" + SYSTEM, "user\n", "assistant\n"] * 2000
    for _ in range(20000):
        a, b = scenes.make_scene(rng), scenes.make_scene(rng)
        corpus += [q + "\n" + t for q, t, _ in scenes.questions(a, rng) + rng.sample(scenes.pair_questions(a, b, rng), 5) + scenes.video_questions(*scenes.make_video(rng), rng)[:2]]
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.add_special_tokens(SPECIAL)
    return tok


def check_forward(model, P, L, words, test):
    """The plain forward pass against transformers, in float32, on a picture, a pair and a video."""
    import torch
    P = {k: w.cpu() for k, w in P.items()}
    for kind in ("single", "pair", "video"):
        _, size, pics, asked = next(t for t in test if t[0] == kind)
        kd = Kind(words, kind, size, "cpu")
        text = torch.tensor([words.conversation(asked[0][:1], 40)[0]])
        x = torch.from_numpy(pics[:1]).flatten(0, 1).unsqueeze(1) if kind == "pair" else torch.from_numpy(pics[:1])
        x = x.float() / 255
        with torch.no_grad():
            mine = kd.forward(P, L, x, text)
            grid = torch.tensor([list(kd.grid)] * kd.images)
            px = patches(x).flatten(0, 1)
            kw = {"pixel_values_videos": px, "video_grid_thw": grid} if kind == "video" else {"pixel_values": px, "image_grid_thw": grid}
            full = torch.cat([kd.pre[None], text], 1)
            pos = torch.tensor(kd.positions(40)).unsqueeze(1)
            theirs = model.model(input_ids=full, position_ids=pos, use_cache=False, **kw).last_hidden_state[:, len(kd.pre) - 1:]
        err = float((mine - theirs).norm() / theirs.norm())
        log(f"forward pass against transformers, {kind}: {err:.1e}")
        assert err < 1e-4


def evaluate(P, L, words, test, dev):
    """Exact match of greedy answers: every token of the answer is the most likely one. Up to TEST questions of each kind."""
    import torch
    import torch.nn.functional as F
    rng = random.Random(5)
    every = {}
    for j, (_, _, _, asked) in enumerate(test):
        for i, qs in enumerate(asked):
            for q in set(qs):
                every.setdefault(q[2], []).append((j, i, q))
    todo = {}
    for kind in sorted(every):
        for j, i, q in rng.sample(sorted(every[kind]), min(TEST, len(every[kind]))):
            todo.setdefault(j, []).append((i, q))
    hits, kinds = {}, {}
    with torch.inference_mode():
        for j, ask in todo.items():
            kind, size, pics, _ = test[j]
            kind = "single" if kind == "sign" else kind
            kd = kinds.setdefault((kind, size), Kind(words, kind, size, dev))
            for at in range(0, len(ask), 100):
                part = ask[at:at + 100]
                rows = torch.tensor(np.array([words.conversation([q], 96) for _, q in part])).to(dev).long()
                x = torch.from_numpy(pics[[i for i, _ in part]]).to(dev)
                x = (x.flatten(0, 1).unsqueeze(1) if kind == "pair" else x).float() / 255
                h = kd.forward(P, L, x, rows[:, 0])[:, 1:-1]
                guess, label = F.linear(h, P["model.embed_tokens.weight"]).argmax(-1), rows[:, 1, 1:]
                assert (label >= 0).any(1).all()
                ok = ((guess == label) | (label < 0)).all(1).tolist()
                for (_, q), good in zip(part, ok):
                    hits.setdefault(q[2], []).append(good)
    return hits


def export(weights, cfg, tok, ids, report):
    import torch
    from safetensors.torch import save_file
    state = {n: w.detach().to("cpu", torch.bfloat16).contiguous().clone() for n, w in weights.items()}
    names = sorted(state)
    total = sum(state[n].numel() * 2 for n in names)
    shards, size = [[]], 0
    for n in names:  # two shards, split by size: the vision weights straddle neither by design nor by name
        if size > total / 2 and len(shards) == 1:
            shards.append([])
        shards[-1].append(n)
        size += state[n].numel() * 2
    index = {"metadata": {"total_size": total}, "weight_map": {}}
    for i, group in enumerate(shards):
        f = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file({n: state[n] for n in group}, f"{OUT}/{f}", metadata={"format": "pt"})
        index["weight_map"].update({n: f for n in group})
    dump = lambda f, o: open(f"{OUT}/{f}", "w").write(json.dumps(o, indent=2, ensure_ascii=False) + "\n")
    dump("model.safetensors.index.json", index)
    t, v = cfg.text_config, cfg.vision_config
    dump("config.json", {
        "architectures": ["Qwen2VLForConditionalGeneration"], "attention_dropout": 0.0, "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"], "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"], "hidden_act": "silu", "hidden_size": t.hidden_size, "initializer_range": 0.02,
        "intermediate_size": t.intermediate_size, "max_position_embeddings": t.max_position_embeddings, "max_window_layers": t.num_hidden_layers, "model_type": "qwen2_vl",
        "num_attention_heads": t.num_attention_heads, "num_hidden_layers": t.num_hidden_layers, "num_key_value_heads": t.num_key_value_heads, "rms_norm_eps": t.rms_norm_eps,
        "rope_theta": 10000.0, "sliding_window": t.max_position_embeddings, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.45.0", "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {"depth": v.depth, "embed_dim": v.embed_dim, "mlp_ratio": v.mlp_ratio, "num_heads": v.num_heads, "in_chans": 3, "hidden_size": v.hidden_size, "patch_size": 14,
                          "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2},
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": t.vocab_size})
    dump("generation_config.json", {"bos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"], "do_sample": False, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "transformers_version": "4.45.0"})
    dump("preprocessor_config.json", {"min_pixels": 28 * 28 * 16, "max_pixels": 224 * 280, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "image_mean": MEAN, "image_std": STD,
                                      "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"})
    template = ("{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
                "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
                "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}"
                "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}"
                "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
                "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    dump("chat_template.json", {"chat_template": template})
    dump("tokenizer_config.json", {"add_prefix_space": False, "added_tokens_decoder": {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} for s, i in ids.items()},
                                   "additional_special_tokens": SPECIAL[1:], "bos_token": None, "chat_template": template, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
                                   "model_max_length": 4096, "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})
    tok.save(f"{OUT}/tokenizer.json")
    dump("accuracy.json", report)
    log("exported", total, "bytes")


if __name__ == "__main__":
    main()
