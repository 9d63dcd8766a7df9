"""OpenVINO GenAI on the CPU: the same picture and question, with the package's own counters.

usage: openvino_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS FORMAT      FORMAT of the weights: fp16, int8 or int4
       openvino_driver.py --check CHECKPOINT FORMAT      exports the model by optimum-intel where it is not there yet

The export (`optimum-cli export openvino --weight-format FORMAT`) lies below $OPENVINO_MODELS; a 2B's takes some minutes
and up to 17 GB of memory. The arithmetic is what the package chooses: f32 on AVX2. Its time to the first token begins
with the picture and holds the time to prepare the prompt's embeddings, which is the encode here; the rest is the prefill.
"""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import openvino
import openvino_genai
from PIL import Image


def folder_of(kind):
    return pathlib.Path(os.environ["OPENVINO_MODELS"]) / f"openvino-{kind}"


def export(checkpoint, kind):
    folder = folder_of(kind)
    if not (folder / "ready").exists():
        tool = pathlib.Path(sys.executable).parent / "optimum-cli"
        subprocess.run([str(tool), "export", "openvino", "--model", checkpoint, "--task", "image-text-to-text", "--weight-format", kind, str(folder)], check=True)
        (folder / "ready").touch()


def main():
    _, picture, question, tokens, threads, kind = sys.argv[1:7]
    pipe = openvino_genai.VLMPipeline(str(folder_of(kind)), "CPU", INFERENCE_NUM_THREADS=int(threads))
    config = pipe.get_generation_config()
    config.ignore_eos, config.do_sample = True, False

    def ask(pixels, count):
        config.max_new_tokens = count
        return pipe.generate(question, images=[openvino.Tensor(pixels[None])], generation_config=config).perf_metrics
    ask(np.zeros((56, 56, 3), np.uint8), 2)
    counters = ask(np.array(Image.open(picture).convert("RGB")), int(tokens))
    if counters.get_num_generated_tokens() != int(tokens):
        sys.exit(f"openvino made {counters.get_num_generated_tokens()} tokens instead of {tokens}")
    encode, count = counters.get_prepare_embeddings_duration().mean, int(tokens) - 1
    print(json.dumps(dict(encode_ms=encode, prefill_tokens=counters.get_num_input_tokens(), prefill_ms=counters.get_ttft().mean - encode,
                          decode_tokens=count, decode_ms=count * counters.get_tpot().mean)))


if sys.argv[1] == "--check":
    export(*sys.argv[2:4])
else:
    main()
