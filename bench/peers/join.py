#!/usr/bin/env python3
"""Joins what runs of run.py measured side by side, each on processors of its own; writes one JSON and prints the table.

usage: join.py OUT.json LANE.json...

A lane asked all engines in turn, so whatever its neighbours did fell on all alike: medians are over the samples of all
lanes, and each sample says which lane it is of. The runs must be of the same checkpoint, picture, threads and tokens.
exit code: 0; 2 where they are not, or there is nothing to join.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import figures  # noqa: E402
import ratios  # noqa: E402

SAME = ["commit", "cpu", "checkpoint", "threads", "tokens", "picture"]


def joined(runs):
    """runs: {lane: what run.py wrote}. One such record of all; ValueError where two cannot stand in one table."""
    (first_lane, first), results, skipped = next(iter(runs.items())), {}, {}
    for lane, run in runs.items():
        for key in SAME:
            if run[key] != first[key]:
                raise ValueError(f"{lane} has {key} {run[key]}, {first_lane} has {first[key]}")
        for engine, samples in run["results"].items():
            results.setdefault(engine, []).extend({**sample, "lane": lane} for sample in samples)
        skipped |= {f"{engine} ({lane})": why for engine, why in run["skipped"].items()}
    return {**first, "date": max(run["date"] for run in runs.values()), "lanes": list(runs), "skipped": skipped, "results": results}


def main(arguments):
    if len(arguments) < 2 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        whole = joined({pathlib.Path(name).stem: json.loads(pathlib.Path(name).read_text(encoding="utf-8")) for name in arguments[1:]})
    except (OSError, ValueError, KeyError) as error:
        print(f"join: {error}", file=sys.stderr)
        return 2
    figures.write_json(arguments[0], whole)
    print(f"{whole['cpu']}, {whole['threads']} threads, {len(whole['lanes'])} lanes side by side, commit {whole['commit']}, {whole['date']}; medians\n")
    print(ratios.text(whole["results"], [name for name in whole["results"] if name.startswith("chiasm ")]))
    for name, why in whole["skipped"].items():
        print(f"skipped: {name}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
