#!/usr/bin/env python3
"""Writes the pictures of the demo model and the golden data that the tests compare with, by Hugging Face transformers.

usage: make_goldens.py eval    CHECKPOINT            -> CHECKPOINT/eval: 24 pictures, truth.json, a pair, a video
       make_goldens.py toytown CHECKPOINT OUT_DIR    -> reference.safetensors, stages.json, small.png, multi.json, multi.safetensors
       make_goldens.py images  OUT_DIR               -> small PNGs, resize.json, resize.safetensors, smart_resize.json
       make_goldens.py random  CHECKPOINT OUT_DIR    -> random_tiny.json, random_tiny.safetensors (weights by make_checkpoint.py)

`toytown` needs `eval` first. All arithmetic is float32 on the CPU; pictures go through the PIL image processor. Positions
follow the original Qwen2-VL code: after a picture or a video the next text position is the largest position plus one
(transformers 5 goes on from max(h, w) / 2 after a video, so it is always given the positions here).
Needs torch, transformers, tokenizers, safetensors, pillow, numpy; `eval` and `toytown` also the font DejaVuSans-Bold.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../models/toytown/recipe"))
SYSTEM = "You are a helpful assistant."


def dump(path, value):
    with open(path, "w") as f:
        f.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


class Reference:
    """A checkpoint in transformers, driven with explicit positions."""

    def __init__(self, checkpoint):
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
        self.tok = Tokenizer.from_file(checkpoint + "/tokenizer.json")
        p = json.load(open(checkpoint + "/preprocessor_config.json"))
        self.size = {k: p[k] for k in ("min_pixels", "max_pixels")}
        self.proc = Qwen2VLImageProcessorPil(**self.size, **{k: p[k] for k in ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")})
        c = self.model.config
        self.image, self.video = c.image_token_id, c.video_token_id
        self.stops = json.load(open(checkpoint + "/generation_config.json"))["eos_token_id"]

    def picture(self, path):
        """(pixel_values [n, 1176], grid_thw [3]) of one picture."""
        x = self.proc(images=[Image.open(path).convert("RGB")], return_tensors="pt")
        return x["pixel_values"], x["image_grid_thw"][0]

    def clip(self, paths):
        """The same of a video: frames are resized as pictures are, and each two of them share their patches."""
        one = [self.picture(p) for p in paths]
        grid = torch.tensor([len(paths) // 2, *one[0][1][1:]])
        frames = [px.view(len(px), 3, 2, 196)[:, :, 0] for px, _ in one]
        return torch.cat([torch.stack(frames[i:i + 2], 2).flatten(1) for i in range(0, len(frames), 2)]), grid

    def prompt(self, messages, grids):
        """Token ids of chat messages; content parts: a string, ("image",), ("video",); grids in order of appearance."""
        text, grids = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n", iter(grids)
        for role, parts in messages:
            text += f"<|im_start|>{role}\n"
            for part in parts:
                text += part if isinstance(part, str) else f"<|vision_start|>{f'<|{part[0]}_pad|>' * (int(next(grids).prod()) // 4)}<|vision_end|>"
            text += "<|im_end|>\n"
        return self.tok.encode(text + "<|im_start|>assistant\n", add_special_tokens=False).ids

    def positions(self, ids, grids):
        """int64 [3, T], and rope_delta: what to add to an index in the sequence to get the position of later text."""
        out, nxt, i, grids = [], 0, 0, iter(grids)
        while i < len(ids):
            if ids[i] in (self.image, self.video):
                t, h, w = (int(x) for x in next(grids))
                at = torch.cartesian_prod(torch.arange(t), torch.arange(h // 2), torch.arange(w // 2)).T + nxt
                out.append(at)
                i += at.shape[1]
            else:
                out.append(torch.full((3, 1), nxt))
                i += 1
            nxt = int(out[-1].max()) + 1
        return torch.cat(out, 1), nxt - len(ids)

    @torch.inference_mode()
    def features(self, px, grid):
        return self.model.model.visual(px, grid_thw=grid[None]).pooler_output

    @torch.inference_mode()
    def embeds(self, ids, features):
        """features: one tensor per picture or video, in order."""
        x = self.model.get_input_embeddings()(torch.tensor(ids)).clone()
        at = torch.tensor([t in (self.image, self.video) for t in ids])
        if features:
            x[at] = torch.cat(features)
        return x

    @torch.inference_mode()
    def logits(self, ids, features, positions):
        """Last-position logits [vocab]."""
        h = self.model.model.language_model(inputs_embeds=self.embeds(ids, features)[None], position_ids=positions[:, None], use_cache=False).last_hidden_state
        return self.model.lm_head(h[0, -1])

    def greedy(self, ids, features, grids, limit=40, sure=0.004):
        """Greedy ids up to and with the stop token, and the smallest lead of a chosen logit over the next one. Ends early
        where the lead is under `sure`, since rounding could decide there."""
        ids, out, lead = list(ids), [], float("inf")
        while len(out) < limit and (not out or out[-1] not in self.stops):
            top = self.logits(ids, features, self.positions(ids, grids)[0]).topk(2)
            if float(top.values[0] - top.values[1]) < sure:
                break
            lead = min(lead, float(top.values[0] - top.values[1]))
            out.append(int(top.indices[0]))
            ids.append(out[-1])
        return out, lead

    def answer(self, ids, features, grids, limit=40):
        """What a golden records of a prompt: a JSON record, and tensors."""
        pos, delta = self.positions(ids, grids)
        out, lead = self.greedy(ids, features, grids, limit)
        record = {"input_ids": ids, "generated_ids": out, "generated": self.tok.decode(out, skip_special_tokens=True), "rope_delta": delta, "smallest_lead": round(lead, 4) if out else None}
        return record, {"position_ids": pos.int().contiguous(), "logits": self.logits(ids, features, pos)}

    @torch.inference_mode()
    def check_whole(self, ids, px, grid):
        """The pieces above against the whole model of transformers, on a picture (where its positions agree)."""
        pos, _ = self.positions(ids, [grid])
        ii = torch.tensor([ids])
        whole = self.model(input_ids=ii, pixel_values=px, image_grid_thw=grid[None], mm_token_type_ids=(ii == self.image).int(), attention_mask=torch.ones_like(ii)).logits[0, -1]
        torch.testing.assert_close(self.logits(ids, [self.features(px, grid)], pos), whole, rtol=1e-4, atol=1e-4)


# --- the pictures that are shipped with the demo model

def make_eval(checkpoint):
    import scenes
    font, rng, ref, out = scenes.font_path(), random.Random(777), Reference(checkpoint), checkpoint + "/eval"
    os.makedirs(out, exist_ok=True)
    ask = lambda qs: [{"question": q, "answer": a, "kind": k} for q, a, k in dict.fromkeys(qs)]
    truth = []
    for i, (h, w) in enumerate([(480, 640)] * 16 + [(448, 448)] * 4 + [(640, 480)] * 4):
        s = scenes.make_scene(rng)
        name = f"scene-{i:02d}." + ("jpg" if i % 4 == 3 else "png")
        scenes.draw(s, w, h, font).save(f"{out}/{name}", **({"quality": 92} if name.endswith("jpg") else {"optimize": True}))
        qs = scenes.questions(s, rng)
        q = rng.choice(qs)[0]
        px, grid = ref.picture(f"{out}/{name}")
        ids = ref.prompt([("user", [("image",), q])], [grid])
        if i == 0:
            ref.check_whole(ids, px, grid)
        record, _ = ref.answer(ids, [ref.features(px, grid)], [grid])
        truth.append({"image": name, "questions": ask(qs), "reference": {"question": q, "grid_thw": grid.tolist(), **record}})
    dump(f"{out}/truth.json", truth)
    right = sum(any(x["question"] == r["reference"]["question"] and x["answer"] == r["reference"]["generated"] for x in r["questions"]) for r in truth)
    print("reference answers right:", right, "of", len(truth))
    a, b = scenes.make_scene(rng), scenes.make_scene(rng)
    for k, s in enumerate((a, b)):
        scenes.draw(s, 640, 480, font).save(f"{out}/pair-{k}.png", optimize=True)
    dump(f"{out}/pair.json", {"images": ["pair-0.png", "pair-1.png"], "questions": ask(scenes.pair_questions(a, b, rng))})
    s, way = scenes.make_video(rng)
    for k in range(4):
        scenes.draw(scenes.video_frame(s, way, k, 4), 560, 392, font).save(f"{out}/video-frame-{k}.png", optimize=True)
    dump(f"{out}/video.json", {"frames": [f"video-frame-{k}.png" for k in range(4)], "questions": ask(scenes.video_questions(s, way, rng))})


# --- activations of the demo model

def make_toytown(checkpoint, out):
    import scenes
    os.makedirs(out, exist_ok=True)
    ref, folder, tensors = Reference(checkpoint), checkpoint + "/eval", {}
    truth = json.load(open(folder + "/truth.json"))
    for r in [truth[i] for i in (0, 1, 2, 3, 4, 5, 16, 20)]:
        name, ids = r["image"], r["reference"]["input_ids"]
        px, grid = ref.picture(f"{folder}/{name}")
        feats = ref.features(px, grid)
        pos, _ = ref.positions(ids, [grid])
        tensors.update({f"{name}/pixel_values": px.half(), f"{name}/image_embeds": feats, f"{name}/logits": ref.logits(ids, [feats], pos), f"{name}/position_ids": pos.int().contiguous()})
    scene = scenes.make_scene(random.Random(4))
    scenes.draw(scene, 160, 120, scenes.font_path()).save(out + "/small.png", optimize=True)
    record, stages = make_stages(ref, out + "/small.png", "What is the weather?")
    dump(out + "/stages.json", {"image": "small.png", "question": "What is the weather?", **record})
    tensors.update({f"stages/{k}": x.contiguous() for k, x in stages.items()})
    save_file(tensors, out + "/reference.safetensors")
    make_multi(ref, folder, out)


def make_stages(ref, path, question):
    """One small picture through every stage of the model."""
    seen, hooks = {}, []

    def watch(name, module):
        hooks.append(module.register_forward_hook(lambda m, i, o: seen.__setitem__(name, (o[0] if isinstance(o, tuple) else o).detach().clone())))

    m = ref.model.model
    watch("patch_embed", m.visual.patch_embed)
    watch("vision_block_0", m.visual.blocks[0])
    watch("vision_block_last", m.visual.blocks[-1])
    watch("image_embeds", m.visual.merger)
    for i, name in ((0, "language_layer_0"), (-1, "language_layer_last")):
        watch(name, m.language_model.layers[i])
    watch("final_norm", m.language_model.norm)
    px, grid = ref.picture(path)
    feats = ref.features(px, grid)
    ids = ref.prompt([("user", [("image",), question])], [grid])
    pos, _ = ref.positions(ids, [grid])
    seen["logits"] = ref.logits(ids, [feats], pos)
    for h in hooks:
        h.remove()
    for k in ("language_layer_0", "language_layer_last", "final_norm"):
        seen[k] = seen[k].reshape(len(ids), -1)
    seen["final_norm"] = seen["final_norm"][-1]
    image = Image.open(path).convert("RGB")
    h, w = smart_resize(image.height, image.width, 28, **ref.size)
    seen.update(pixels_resized=torch.from_numpy(np.array(image.resize((w, h), Image.BICUBIC))), pixel_values=px, inputs_embeds=ref.embeds(ids, [feats]), position_ids=pos.int())
    record, _ = ref.answer(ids, [feats], [grid])
    return {"grid_thw": grid.tolist(), "stages": {k: list(x.shape) for k, x in sorted(seen.items())}, **record}, seen


def make_multi(ref, folder, out):
    """Several pictures and videos in a prompt."""
    image, video = ("image",), ("video",)
    pair, clip = ["pair-0.png", "pair-1.png"], [f"video-frame-{k}.png" for k in range(4)]
    motion, tags = "Which way does the car move?", "Give tags."
    cases = {  # name: (messages, files in order of appearance)
        "pair": ([("user", [image, image, "Which picture shows night?"])], pair),
        "pair-count": ([("user", [image, image, "How many trees are in the second picture?"])], pair),
        "pair-sizes": ([("user", [image, image, "Which picture shows day?"])], ["scene-16.png", "scene-20.png"]),
        "video": ([("user", [video, motion])], [clip]),
        "video-zh": ([("user", [video, "车往哪边开?"])], [clip]),
        "mixed": ([("user", ["Look at this picture.", image, "And at this video.", video, motion])], ["scene-00.png", clip]),
        "video-first": ([("user", [video, "Then a picture.", image, tags])], [clip, "scene-01.png"]),
        "second-turn": ([("user", [image, "Day or night?"]), ("assistant", ["Day."]), ("user", [tags])], ["scene-02.png"]),
        "second-turn-mixed": ([("user", ["Look at this picture.", image, "And at this video.", video, motion]), ("assistant", ["To the left."]), ("user", ["One more picture.", image, "What is the weather?"])],
                              ["scene-00.png", clip, "scene-05.png"]),
        "text-only": ([("user", ["Is it day or night?"])], []),
    }
    records, tensors, known = [], {}, {}
    for name, (messages, files) in cases.items():
        feats, grids = [], []
        for f in files:
            key = "video" if f is clip else f
            if key not in known:
                px, grid = ref.clip([f"{folder}/{x}" for x in clip]) if f is clip else ref.picture(f"{folder}/{f}")
                known[key] = ref.features(px, grid), grid
                if not key.startswith("scene-"):  # those are in reference.safetensors
                    tensors[f"{key}/pixel_values"], tensors[f"{key}/{'video' if f is clip else 'image'}_embeds"] = px.half(), known[key][0]
            feats.append(known[key][0])
            grids.append(known[key][1])
        left = iter(files)
        shown = [{"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": next(left)} if p is image else {"type": "video", "frames": next(left)} for p in parts]}
                 for role, parts in messages]
        record, more = ref.answer(ref.prompt(messages, grids), feats, grids)
        records.append({"name": name, "messages": shown, "image_grid_thw": [g.tolist() for f, g in zip(files, grids) if f is not clip], "video_grid_thw": [g.tolist() for f, g in zip(files, grids) if f is clip], **record})
        tensors.update({f"{name}/{k}": x for k, x in more.items()})
        print(f"{name}: {record['generated']} (smallest lead {record['smallest_lead']})")
    dump(out + "/multi.json", records)
    save_file(tensors, out + "/multi.safetensors")


# --- pictures alone

def make_images(out):
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng(3)
    normal, toy = (3136, 12845056), (12544, 62720)
    cases = [  # height, width, (min_pixels, max_pixels), what is drawn, PNG mode
        (28, 28, normal, "noise", "RGB"), (56, 84, normal, "noise", "RGB"), (31, 45, normal, "noise", "RGB"), (57, 111, normal, "noise", "RGB"), (1, 1, normal, "noise", "RGB"), (1, 200, normal, "noise", "RGB"),
        (200, 1, normal, "noise", "RGB"), (3, 300, normal, "noise", "RGB"), (99, 301, normal, "stripes", "RGB"), (240, 320, toy, "blobs", "RGB"), (700, 500, toy, "blobs", "RGB"), (61, 67, toy, "noise", "RGB"),
        (517, 389, (3136, 50176), "stripes", "RGB"), (42, 70, normal, "noise", "RGB"), (64, 80, normal, "noise", "L"), (50, 60, normal, "blobs", "RGBA"), (72, 90, normal, "blobs", "P"), (40, 33, normal, "noise", "LA"),
    ]
    records, tensors = [], {}
    for h, w, (low, high), what, mode in cases:
        y, x = np.mgrid[:h, :w]
        if what == "noise":
            a = rng.integers(0, 256, (h, w, 4))
        elif what == "stripes":
            a = np.stack([x * 7 // 5 % 2 * 255, (x + y) // 9 % 2 * 255, y // 3 % 2 * 200, x * 255 // w], 2)
        else:
            a = np.stack([np.hypot(x - w * k / 5, y - h * (4 - k) / 5) < min(h, w) / (2 + k) for k in range(1, 5)], 2) * 255
        a = a.astype(np.uint8)
        img = Image.fromarray(a[..., :3]).quantize(16) if mode == "P" else Image.fromarray({"RGB": a[..., :3], "RGBA": a, "L": a[..., 0], "LA": a[..., ::3]}[mode].copy())
        name = f"{what}-{h}x{w}-{mode.lower()}.png"
        img.save(f"{out}/{name}", optimize=True)
        rgb = Image.open(f"{out}/{name}").convert("RGB")
        h2, w2 = smart_resize(h, w, 28, low, high)
        resized = np.array(rgb.resize((w2, h2), Image.BICUBIC))
        px = Qwen2VLImageProcessorPil(min_pixels=low, max_pixels=high, do_rescale=False, do_normalize=False)(images=[rgb], return_tensors="pt")
        mine = resized.reshape(h2 // 28, 2, 14, w2 // 28, 2, 14, 3).transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, 1, 196).repeat(2, 2).reshape(-1, 1176)
        assert np.array_equal(px["pixel_values"].numpy(), mine), name
        records.append({"file": name, "mode": mode, "size": [h, w], "min_pixels": low, "max_pixels": high, "resized": [h2, w2], "grid_thw": px["image_grid_thw"][0].tolist()})
        tensors[f"{name}/resized"] = torch.from_numpy(resized)
    dump(out + "/resize.json", records)
    save_file(tensors, out + "/resize.safetensors")
    make_smart_resize(out + "/smart_resize.json")


def make_smart_resize(path):
    rng, wanted = random.Random(6), []
    ties = [14, 42, 70, 98, 126, 154, 1470, 1498]  # k + 1/2 times 28: Python rounds to the even neighbour
    wanted += [(h, w, 28, 3136, 12845056) for h in ties for w in ties]
    wanted += [(h, w, 28, 12544, 62720) for h, w in [(480, 640), (640, 480), (448, 448), (112, 112), (111, 113), (224, 280), (250, 251), (1, 1), (28, 5600), (10, 2000), (4000, 6000)]]
    wanted += [(1, 200, 28, 3136, 12845056), (200, 1, 28, 3136, 12845056), (1, 201, 28, 3136, 12845056), (201, 1, 28, 3136, 12845056), (10, 2001, 28, 3136, 12845056), (10000, 50, 28, 3136, 12845056), (10001, 50, 28, 3136, 12845056)]
    while len(wanted) < 320:
        low = rng.choice([3136, 12544, 56 * 56, 100 * 28 * 28])
        high = rng.choice([12845056, 62720, 1003520, 16384 * 28 * 28])
        factor = rng.choice([28, 28, 28, 32])
        wanted.append((int(2 ** rng.uniform(0, 13)), int(2 ** rng.uniform(0, 13)), factor, low, max(high, low)))
    out = []
    for h, w, factor, low, high in wanted:
        case = {"height": h, "width": w, "factor": factor, "min_pixels": low, "max_pixels": high}
        try:
            case["resized"] = list(smart_resize(h, w, factor, low, high))
        except ValueError as e:
            case["error"] = str(e)
        out.append(case)
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")


# --- random weights

def make_random(checkpoint, out):
    """Shapes that the demo model does not have, with weights that the tests can write themselves."""
    records, tensors, rng = [], {}, np.random.default_rng(8)
    for name, args in (("mini", ["--shape", "mini", "--seed", "1"]), ("tiny", ["--shape", "tiny", "--seed", "1", "--layers", "2", "--vision-layers", "3"])):
        with tempfile.TemporaryDirectory() as d:
            subprocess.run([sys.executable, HERE + "/make_checkpoint.py", d, *args, "--tokenizer", checkpoint], check=True)
            ref = Reference(d)
            feats, grids = [], []
            for k, (gh, gw) in enumerate(((4, 6), (8, 4))):  # pixel values themselves are random, so no image code takes part
                px = torch.from_numpy(rng.normal(size=(gh * gw, 3, 1, 196)).astype(np.float32)).half().repeat(1, 1, 2, 1).flatten(1)
                grids.append(torch.tensor([1, gh, gw]))
                feats.append(ref.features(px.float(), grids[-1]))
                tensors.update({f"{name}/picture-{k}/pixel_values": px, f"{name}/picture-{k}/image_embeds": feats[-1]})
            for case, parts, use in (("text", ["Is it day or night?"], []), ("one", [("image",), "Give tags."], [0]), ("two", [("image",), "and", ("image",), "Which picture shows night?"], [0, 1])):
                g, f = [grids[i] for i in use], [feats[i] for i in use]
                record, more = ref.answer(ref.prompt([("user", parts)], g), f, g, 12)
                records.append({"checkpoint": name, "arguments": args, "name": case, "pictures": use, "image_grid_thw": [x.tolist() for x in g], **record})
                tensors.update({f"{name}/{case}/{k}": x for k, x in more.items()})
                print(name, case, record["generated_ids"][:8], "smallest lead", record["smallest_lead"])
    dump(out + "/random_tiny.json", records)
    save_file(tensors, out + "/random_tiny.safetensors")


if __name__ == "__main__":
    parts = {"eval": (make_eval, 1), "toytown": (make_toytown, 2), "images": (make_images, 1), "random": (make_random, 2)}
    if len(sys.argv) < 2 or sys.argv[1] not in parts or len(sys.argv) != 2 + parts[sys.argv[1]][1]:
        raise SystemExit(__doc__)
    torch.manual_seed(0)
    parts[sys.argv[1]][0](*sys.argv[2:])
