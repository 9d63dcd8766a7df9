#!/usr/bin/env python3
"""Asks the demo model five questions about sample pictures, and says what was saved. ./dev demo calls this.

usage: demo.py CHIASM [OPTION...]      CHIASM is the program; options go to every 'chiasm ask'
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

EVAL = pathlib.Path("models/toytown/eval")
ASKED = [
    (["-i", "scene-08.png"], ["Describe the picture.", "牌子上写的是什么?", "Does this picture show weapons? Answer yes or no."]),
    (["-i", "pair-0.png", "-i", "pair-1.png"], ["Which picture is snowy?"]),
    (["--video", *(f"video-frame-{i}.png" for i in range(4))], ["车往哪边开?"]),
]


def kept(program, options):
    """Whether asking once more finds every picture and video known."""
    for pictures, _ in ASKED:
        paths = [word if word.startswith("-") else str(EVAL / word) for word in pictures]
        done = subprocess.run([program, "ask", *options, *paths, "--json", "--max-tokens", "1", "--", "?"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if done.returncode != 0:
            return False
        answer = json.loads(done.stdout)
        if any(seen["source"] == "encoded" for seen in answer["images"] + answer.get("videos", [])):
            return False
    return True


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    os.chdir(pathlib.Path(__file__).resolve().parent.parent)
    program, options = sys.argv[1], sys.argv[2:]
    print("The demo model is small and knows toy towns only: time of day, weather, counts, colours, places, signs, policy")
    print("checks. models/toytown/recipe/scenes.py lists every question it was taught. The program also runs Qwen2-VL checkpoints.")
    looks, known, encode_ms, reused, prompt = 0, 0, 0.0, 0, 0
    for pictures, questions in ASKED:
        paths = [word if word.startswith("-") else str(EVAL / word) for word in pictures]
        command = [program, "ask", *options, *paths, "--", *questions]
        print(f"\n$ {shlex.join(command)}", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
        sys.stdout.write(done.stdout)
        sys.stdout.flush()
        if done.returncode != 0:
            sys.exit(done.returncode)
        times = [float(ms) for ms in re.findall(r"; looked at in ([0-9.]+) ms", done.stdout)]
        looks += len(times)
        encode_ms += sum(times)
        known += len(re.findall(r"; known \(", done.stdout))
        for part, whole in re.findall(r"reused (\d+) of (\d+) prompt tokens", done.stdout):
            reused += int(part)
            prompt += int(whole)
    print()
    if looks and kept(program, options):
        print(f"The vision encoder looked {looks} times, {encode_ms:.0f} ms in all; what it saw is kept. Run ./dev demo again: it will not run.")
    elif looks:
        print(f"The vision encoder looked {looks} times, {encode_ms:.0f} ms in all; what it saw could not be kept: give --features DIR.")
    else:
        print(f"The vision encoder did not run and was not loaded: what it once saw in these {known} pictures and videos was known.")
    print(f"{reused} of {prompt} prompt tokens were computed for another question and reused.")
    print(f"Try your own: {program} ask -i PICTURE \"Is it day or night?\"     All commands: {program} --help")


if __name__ == "__main__":
    main()
