#!/usr/bin/env python3
"""What the passes of a chiasm server were made of, from its debug log.

usage: run.py --scenario stream --server-option=--log-level=debug 2> LOG; steps.py LOG

Passes by what they compute and whether the vision encoder had a pause before them; times in ms. Standard library only.
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import figures  # noqa: E402

STEP = re.compile(r"debug step answer_tokens=(\d+) prompt_tokens=(\d+) pause_ms=([\d.]+) ms=([\d.]+)")
PAUSE = 1  # ms: what is less was no pause, only the look whether one was wanted


def kinds(lines):
    """{kind: [(pause, pass, prompt tokens)]}"""
    out = {}
    for answers, prompts, pause, ms in (found.groups() for found in map(STEP.search, lines) if found):
        computes = "answers and prompts" if int(answers) and int(prompts) else "answers" if int(answers) else "prompts"
        kind = computes + (", a pause before" if float(pause) >= PAUSE else "")
        out.setdefault(kind, []).append((float(pause), float(ms), int(prompts)))
    return out


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    with open(arguments[0], encoding="utf-8", errors="replace") as log:
        found = kinds(log)
    rows = []
    for kind, steps in sorted(found.items()):
        together = figures.spread([pause + ms for pause, ms, _ in steps])
        rows.append([kind, len(steps), *[figures.number(figures.median([step[i] for step in steps])) for i in (2, 0, 1)],
                     *[figures.number(together[k]) for k in ("p50", "p90", "p99", "max")]])
    print(figures.table(["passes that compute", "count", "prompt tokens", "pause", "pass", "both p50", "p90", "p99", "longest"], rows))


if __name__ == "__main__":
    main(sys.argv[1:])
