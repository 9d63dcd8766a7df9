#!/usr/bin/env python3
"""Counts single test cases over all test programs and prints 'N passed, N failed, N skipped' as the last line.

usage: summary.py RESULTS_DIR... [--steps NAME=passed|failed ...]

A results folder holds ctest.xml (ctest --output-junit: one entry a program) and one JSON report a GoogleTest program. A
program without a report counts as one case: a script, or a program that died before it could write, which has failed.
Exits with 1 when anything failed or nothing ran.
"""
import argparse
import json
import pathlib
import sys
import xml.etree.ElementTree as xml


def programs(results):
    """(name, status) of each ctest entry; status is passed, failed or skipped."""
    for case in xml.parse(results / "ctest.xml").getroot().iter("testcase"):
        status = {"run": "passed", "notrun": "skipped", "disabled": "skipped"}.get(case.get("status"), "failed")
        if case.find("failure") is not None:
            status = "failed"
        yield case.get("name"), status


def cases(report):
    """(name, status) of each case in a GoogleTest report; disabled cases are not counted."""
    for suite in json.loads(report.read_text()).get("testsuites", []):
        for case in suite.get("testsuite", []):
            if case.get("failures"):
                status = "failed"
            elif case.get("status") != "RUN":
                continue
            else:
                status = "skipped" if case.get("result") == "SKIPPED" else "passed"
            yield f"{suite['name']}.{case['name']}", status


def count(results):
    """All (name, status) of a results folder."""
    for name, status in programs(results):
        report = results / f"{name}.json"
        found = list(cases(report)) if report.exists() else []
        yield from ((f"{name} {case}", case_status) for case, case_status in found)
        # The program's own status is news when its cases do not explain it: a crash, or a failure outside any case.
        if not found or (status == "failed" and all(s != "failed" for _, s in found)):
            yield name, status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=pathlib.Path)
    parser.add_argument("--steps", nargs="*", default=[], metavar="NAME=STATUS")
    arguments = parser.parse_args()

    totals = dict(passed=0, failed=0, skipped=0)
    failed = []
    for results in arguments.results:
        if not (results / "ctest.xml").exists():
            failed.append(f"{results}: ctest left no report")
            totals["failed"] += 1
            continue
        for name, status in count(results):
            totals[status] += 1
            if status == "failed":
                failed.append(f"{results.parent.name}: {name}")
    for step in arguments.steps:
        name, status = step.rsplit("=", 1)
        print(f"{name}: {status}")
        totals[status] += 1
        if status == "failed":
            failed.append(name)
    for name in failed:
        print(f"failed: {name}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**totals))
    return 1 if totals["failed"] or not totals["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
