#!/usr/bin/env python3
"""Times chiasm and transformers on the same card, on random checkpoints of real shapes (a reference tool, not a test).

usage: gpu_bench.py --build BUILD_DIR --work DIR --out FILE.json [--shapes 2b,7b] [--skip-tests] [--skip-reference]

Checks first: the parity suite (kernels_test, qwen2_vl_test) must pass, then features and logits of the 2B shape are
compared with transformers' on the same inputs. Then it measures, ours and the reference's in one run, and writes JSON.
The checkpoints are those of make_checkpoint.py, byte for byte, computed on the card and written to DIR (22 GB for both
shapes; a folder in memory is best). Needs a card, torch, transformers, numpy; libcublasLt where the loader finds it.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import make_checkpoint  # noqa: E402

VISION = {"vision 1024": [(1, 32, 32)], "vision 5476": [(1, 74, 74)], "vision 16384": [(1, 128, 128)], "vision 8x1024": [(1, 32, 32)] * 8}
PREFILL, CONTEXT = (1056, 4128), 1024


def signed(x):
    return x - (1 << 64) if x >= 1 << 63 else x


def shifted(x, bits):
    """x >> bits without its sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def values_on_card(n, seed, scale, offset):
    """make_checkpoint.values, the same bytes."""
    start, step = signed(seed * 0x9E3779B97F4A7C15 & make_checkpoint.MASK), 1 << 25
    scale = torch.tensor(make_checkpoint.f32(scale), dtype=torch.float32, device="cuda")
    for i in range(0, n, step):
        x = torch.arange(i, min(n, i + step), dtype=torch.int64, device="cuda") + start
        x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
        x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
        x ^= shifted(x, 31)
        u = shifted(x, 40).to(torch.float32) / float(1 << 23) - 1.0
        yield memoryview((u * scale + float(offset)).to(torch.bfloat16).view(torch.int16).cpu().numpy()).cast("B")


def checkpoint(shape, folder):
    if (folder / "config.json").exists():
        return
    plain = b"".join(bytes(x) for x in make_checkpoint.values(5000, 77, 0.3, 1))
    assert plain == b"".join(bytes(x) for x in values_on_card(5000, 77, 0.3, 1)), "the card makes other values"
    kept, make_checkpoint.values = make_checkpoint.values, values_on_card
    sys.argv = ["make_checkpoint.py", str(folder), "--shape", shape]
    make_checkpoint.main()
    make_checkpoint.values = kept


def timed(body, warmups, samples):
    times = []
    for i in range(warmups + samples):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        body()
        torch.cuda.synchronize()
        if i >= warmups:
            times.append(1000 * (time.perf_counter() - begin))
    return dict(ms=statistics.median(times), low=min(times), high=max(times))


class Reference:
    def __init__(self, folder):
        from transformers import Qwen2VLForConditionalGeneration
        self.model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa", device_map="cuda").eval()

    @torch.inference_mode()
    def features(self, pixels, grids):
        out = self.model.model.visual(pixels, grid_thw=torch.tensor(grids, device="cuda"))
        for name in ("pooler_output", "last_hidden_state"):
            if not torch.is_tensor(out) and getattr(out, name, None) is not None:
                return getattr(out, name)
        return out

    @torch.inference_mode()
    def step(self, ids, cache=None):
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def vision(self, samples):
        for name, grids in VISION.items():
            pixels = torch.rand(sum(t * h * w for t, h, w in grids), 1176, device="cuda", dtype=torch.bfloat16) * 2 - 1
            yield name, timed(lambda: self.features(pixels, grids), 3, samples)

    def language(self, shape, samples):
        vocab = self.model.config.get_text_config().vocab_size
        for tokens in PREFILL:
            ids = (torch.arange(tokens, device="cuda") * 7919 % vocab)[None]
            yield f"prefill {shape} {tokens}", timed(lambda: self.step(ids), 3, samples)
        for count in (1, 64):
            ids = (torch.arange(CONTEXT, device="cuda") * 7919 % vocab).repeat(count, 1)
            cache, one = self.step(ids).past_key_values, ids[:, :1]
            result = timed(lambda: self.step(one, cache), 5, 20)
            yield f"decode {shape} x{count}", dict(result, tokens_per_s=1000 * count / result["ms"])
            del cache


def compare(bench, folder, reference, work):
    """Relative L2 of features and of the last logits, ours and the reference's in BF16, on the same inputs."""
    rng = np.random.default_rng(5)
    pixels, ids = rng.uniform(-1, 1, (1024, 1176)).astype(np.float32), rng.integers(0, 150000, 600)
    np.save(work / "pixels.npy", pixels)
    np.save(work / "ids.npy", ids.astype(np.int32))
    run = [str(bench), "--vision", str(folder), "--language", f"check={folder}", "--check", str(work)]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    features = reference.features(torch.from_numpy(pixels).cuda().to(torch.bfloat16), [(1, 32, 32)]).float().cpu().numpy()
    with torch.inference_mode():
        logits = reference.model(input_ids=torch.from_numpy(ids).cuda()[None]).logits[0].float().cpu().numpy()
    out = {}
    for name, want in (("features", features), ("logits", logits[-1:])):
        got = np.load(work / f"{name}.npy")
        assert got.shape == want.shape, (name, got.shape, want.shape)
        out[name] = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return out


def ceilings():
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    flops = 2 * 8192**3 / timed(lambda: a @ a, 3, 10)["ms"] * 1e-9
    x, y = torch.empty(1 << 30, device="cuda"), torch.empty(1 << 30, device="cuda")
    x.normal_()
    return dict(bf16_tflops=flops, copy_tb_per_s=2 * x.numel() * 4 / timed(lambda: y.copy_(x), 3, 10)["ms"] * 1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--shapes", default="2b,7b")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--demo", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1] / "models" / "toytown",
                        help="a checkpoint with a tokenizer and eval/scene-16.png, for the rows that go through the engine")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--skip-reference", action="store_true")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    result = dict(card=torch.cuda.get_device_name(), torch=torch.__version__, ours={}, reference={}, checks={})

    def save():
        a.out.write_text(json.dumps(result, indent=1))

    if not a.skip_tests:
        for test in ("kernels_test", "qwen2_vl_test"):
            subprocess.run([str(a.build / "tests" / test), "--gtest_filter=*Cuda*:*Device*", "--gtest_brief=1"], check=True)
        result["checks"]["parity"] = "passed"
    result["ceilings"] = ceilings()
    save()
    bench = a.build / "bin" / "chiasm_gpu_bench"
    for i, shape in enumerate(a.shapes.split(",")):
        folder = a.work / shape
        checkpoint(shape, folder)
        torch.cuda.empty_cache()
        command = [str(bench), "--language", f"{shape}={folder}", "--samples", str(a.samples)]
        if i == 0:
            command += ["--vision", str(folder), "--tokenizer", str(a.demo), "--picture", str(a.demo / "eval" / "scene-16.png")]
        for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
            row = json.loads(line)
            result["ours"][row.pop("name")] = row
        save()
        if not a.skip_reference:
            reference = Reference(folder)
            if i == 0:
                result["checks"][f"relative L2 to transformers, {shape}"] = compare(bench, folder, reference, a.work)
                for name, row in reference.vision(a.samples):
                    result["reference"][name] = row
            for name, row in reference.language(shape, a.samples):
                result["reference"][name] = row
            save()
            del reference
            torch.cuda.empty_cache()
        if not a.keep:
            shutil.rmtree(folder)
    print(json.dumps({k: result[k] for k in ("card", "torch", "ceilings", "checks")}))
    for name, ours in result["ours"].items():
        theirs = result["reference"].get(name)
        ratio = f"  transformers {theirs['ms']:9.3f} ms  ratio {theirs['ms'] / ours['ms']:.2f}" if theirs else ""
        speed = f"  {ours['tokens_per_s']:.0f} tok/s" if "tokens_per_s" in ours else ""
        if "encoder_busy" in ours:
            speed = f"  {ours['pictures_per_s']:.0f} pictures/s, the encoder runs {100 * ours['encoder_busy']:.0f} % of the time"
        print(f"{name:44} {ours['ms']:9.3f} ms ({ours['low']:.3f} to {ours['high']:.3f}){speed}{ratio}")


if __name__ == "__main__":
    main()
