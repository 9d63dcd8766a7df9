#!/usr/bin/env python3
"""Runs clang-tidy over C++ files in parallel and prints each finding once.

usage: lint.py --build BUILD_FOLDER [--jobs N] FILE...

A file that the build does not compile is an error, but for a card's (*_cuda.cpp) where the build is one without cards:
those are left out, and said so. Exits with 1 when there is a finding. ./dev lint calls this.
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys

TIDY = "clang-tidy-19"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()

    entries = json.loads((arguments.build / "compile_commands.json").read_text())
    known = {pathlib.Path(entry["file"]).resolve() for entry in entries}
    files = [file.resolve() for file in arguments.files]
    unknown = [str(file) for file in files if file not in known]
    if not any(path.stem.endswith("_cuda") for path in known):
        cards = [file for file in unknown if file.endswith("_cuda.cpp")]
        unknown = [file for file in unknown if file not in cards]
        if cards:
            print(f"lint: {len(cards)} files left out, this build is one without CUDA", file=sys.stderr)
    if unknown:
        print("lint: the build does not compile " + ", ".join(unknown), file=sys.stderr)
    seen, failed = set(), bool(unknown)

    def check(file):
        return subprocess.run([TIDY, "--quiet", "-p", str(arguments.build), str(file)], capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {pool.submit(check, file): file for file in files if file in known}
        for done, future in enumerate(concurrent.futures.as_completed(runs), 1):
            result = future.result()
            failed |= result.returncode != 0
            # A finding and its code excerpt belong together; the same finding in a header comes from many files.
            findings = re.split(r"(?m)^(?=\S+:\d+:\d+: (?:warning|error))", result.stdout)
            for finding in (text for text in findings if text.strip()):
                if finding not in seen:
                    seen.add(finding)
                    print(finding, end="", flush=True)
            if result.returncode != 0 and not result.stdout.strip():
                print(f"{runs[future]}: {result.stderr.strip()}")
            if sys.stderr.isatty():
                print(f"\r\033[K[{done}/{len(runs)}] {runs[future].name}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(f"lint: {len(runs)} files, {len(seen)} findings")
    return 1 if failed or seen else 0


if __name__ == "__main__":
    sys.exit(main())
