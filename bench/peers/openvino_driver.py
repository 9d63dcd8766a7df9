"""OpenVINO GenAI on the CPU: the same picture and question, with the package's own counters.

usage: openvino_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS FORMAT      FORMAT: fp16, int8 or int4
       openvino_driver.py --check

The model is exported once by optimum-intel (`optimum-cli export openvino --weight-format FORMAT`) below $OPENVINO_MODELS.
The counters tell the time to prepare the picture's embeddings (here: the encode) and to the first token after them.
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


def exported(checkpoint, kind):
    folder = pathlib.Path(os.environ["OPENVINO_MODELS"]) / f"openvino-{kind}"
    if not (folder / "ready").exists():
        tool = pathlib.Path(sys.executable).parent / "optimum-cli"
        subprocess.run([str(tool), "export", "openvino", "--model", checkpoint, "--task", "image-text-to-text", "--weight-format", kind, str(folder)], check=True)
        (folder / "ready").touch()
    return folder


def main():
    checkpoint, picture, question, tokens, threads, kind = sys.argv[1:7]
    pipe = openvino_genai.VLMPipeline(str(exported(checkpoint, kind)), "CPU", INFERENCE_NUM_THREADS=int(threads))
    config = pipe.get_generation_config()
    config.max_new_tokens, config.ignore_eos, config.do_sample = int(tokens), True, False
    image = openvino.Tensor(np.array(Image.open(picture).convert("RGB"))[None])
    small = openvino.Tensor(np.zeros((1, 56, 56, 3), np.uint8))
    config.max_new_tokens = 2
    pipe.generate(question, images=[small], generation_config=config)
    config.max_new_tokens = int(tokens)
    counters = pipe.generate(question, images=[image], generation_config=config).perf_metrics
    encode = counters.get_prepare_embeddings_duration().mean
    count = counters.get_num_generated_tokens() - 1
    print(json.dumps(dict(encode_ms=encode, prefill_tokens=counters.get_num_input_tokens(), prefill_ms=counters.get_ttft().mean - encode,
                          decode_tokens=count, decode_ms=count * counters.get_tpot().mean)))


if sys.argv[1] != "--check":
    main()
