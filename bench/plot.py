#!/usr/bin/env python3
"""Draws how time grows as an SVG: encode over patches, prefill over tokens, decode over context and over sequences.

usage: plot.py RESULTS.json OUT.svg        RESULTS.json: chiasm_bench --only ceilings,scaling --scale-model DIR --json FILE

`./dev bench --plot OUT.svg` measures and draws. Solid lines are medians, dashed lines the roof: what the arithmetic or
the bytes cost at least at the rates that the same run measured. The picture needs nothing from outside and follows the
reader's light or dark colours. Standard library only.
"""
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import median, number  # noqa: E402

PANELS = [
    ("scaling, encode", "Vision encode", "patches"),
    ("scaling, prefill", "Prefill", "tokens"),
    ("scaling, decode, a token", "Decode, one token", "tokens of context"),
    ("scaling, decode, a step", "Decode, one step of many sequences", "sequences of 256 tokens"),
]
WIDTH, HEIGHT = 460, 340          # of a panel
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 44, 66
STYLE = """
  svg { --paper: #ffffff; --ink: #1f2430; --soft: #69707f; --grid: #e4e7ec; --many: #0b6bcb; --one: #c2570c; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #14171d; --ink: #e8eaf0; --soft: #9aa3b2; --grid: #2b313c; --many: #62b0ff; --one: #ffa25c; }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
  .title { font-size: 15px; font-weight: 600; } .head { font-size: 18px; font-weight: 600; }
  .soft { fill: var(--soft); } .end { text-anchor: end; } .middle { text-anchor: middle; }
  .grid { stroke: var(--grid); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
  .line { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
  .roof { fill: none; stroke-width: 1.5; stroke-dasharray: 5 4; opacity: .85; }
  .many { stroke: var(--many); } .one { stroke: var(--one); } .dot { stroke: var(--paper); stroke-width: 1.5; }
  .many.fill, text.many { fill: var(--many); stroke: none; } .one.fill, text.one { fill: var(--one); stroke: none; }
"""


def ceilings(rows, threads):
    """(GFLOP/s, GB/s) at their best of these threads; 0 where the run did not measure it."""
    own = [r for r in rows if r["group"] == "ceilings" and r["threads"] == threads]
    return (max((1e3 * r["gflop"] / median(r["ms"]) for r in own if "gflop" in r), default=0),
            max((1e3 * r["gbytes"] / median(r["ms"]) for r in own if "gbytes" in r), default=0))


def floor_ms(row, rates):
    """What the row costs at least, in ms."""
    return max(1e3 * row.get(kind, 0) / rate if rate else 0 for kind, rate in zip(("gflop", "gbytes"), rates))


def series(rows, group):
    """{threads: [(x, ms, floor ms)]} in order of x."""
    out = {}
    for row in rows:
        if row["group"] == group:
            out.setdefault(row["threads"], []).append((row["figures"]["x"], median(row["ms"]), floor_ms(row, ceilings(rows, row["threads"]))))
    return {threads: sorted(points) for threads, points in out.items()}


def time_text(ms):
    return f"{number(ms)} ms" if ms < 1000 else f"{number(ms / 1000)} s"


def tick_text(ms):
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def ticks(low, high):
    """1, 2, 5 of every power of ten between the two; powers alone where that is too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0 ** p for p in powers for m in (1, 2, 5) if low <= m * 10.0 ** p <= high]
    return fine if 2 <= len(fine) <= 7 else [t for t in fine if abs(math.log10(t) - round(math.log10(t))) < 1e-9] or fine


def panel(title, unit, lines, left, top):
    """One set of axes with both scales logarithmic, so that growth in proportion is a straight line."""
    xs = [x for points in lines.values() for x, _, _ in points]
    ys = [y for points in lines.values() for _, ms, floor in points for y in (ms, floor) if y > 0]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(ys) / 1.25, max(ys) * 1.35

    def at_x(x):
        return left + LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / x_low) / math.log(x_high / x_low)

    def at_y(y):
        return top + HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(y / y_low) / math.log(y_high / y_low)

    bottom, right = top + HEIGHT - BOTTOM, left + WIDTH - RIGHT
    out = [f'<text class="title" x="{left + LEFT}" y="{top + 24}">{escape(title)}</text>']
    for y in ticks(y_low, y_high):
        out.append(f'<line class="grid" x1="{left + LEFT}" x2="{right}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>')
        out.append(f'<text class="soft end" x="{left + LEFT - 8}" y="{at_y(y) + 4:.1f}">{tick_text(y)}</text>')
    most, last = max(lines), -99.0
    shares = {x: f"{100 * floor / ms:.0f} %" for x, ms, floor in lines[most] if floor}
    for x in sorted(set(xs)):
        if at_x(x) - last >= 38 or x == x_high:
            out.append(f'<text class="soft middle" x="{at_x(x):.1f}" y="{bottom + 18}">{x:g}</text>')
            out.append(f'<text class="many middle" x="{at_x(x):.1f}" y="{bottom + 34}">{shares.get(x, "")}</text>')
            last = at_x(x)
        out.append(f'<line class="axis" x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
    out.append(f'<line class="axis" x1="{left + LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    out.append(f'<text class="soft middle" x="{(left + LEFT + right) / 2:.0f}" y="{bottom + 52}">{escape(unit)}</text>')
    for threads, points in sorted(lines.items()):
        name = "many" if threads == most else "one"
        for kind, column in (("roof", 2), ("line", 1)):
            drawn = [p for p in points if p[column] > 0]
            if drawn:
                path = " ".join(f"{at_x(p[0]):.1f},{at_y(p[column]):.1f}" for p in drawn)
                out.append(f'<polyline class="{kind} {name}" points="{path}"/>')
        for x, ms, floor in points:
            share = f", {100 * floor / ms:.0f} % of the roof's speed" if floor else ""
            out.append(f'<circle class="dot {name} fill" cx="{at_x(x):.1f}" cy="{at_y(ms):.1f}" r="4"><title>{x:g} {escape(unit)}, {threads} threads: {time_text(ms)}{share}</title></circle>')
    return out


def draw(results):
    """The whole picture as text."""
    rows = results["rows"]
    panels = [(title, unit, series(rows, group)) for group, title, unit in PANELS]
    panels = [p for p in panels if p[2] and all(len(points) > 1 for points in p[2].values())]
    if not panels:
        raise ValueError("the results hold no scaling rows: measure with --only ceilings,scaling --scale-model DIR")
    threads = sorted({t for _, _, lines in panels for t in lines})
    layers = {int(r["figures"]["layers"]) for r in rows if r["group"].startswith("scaling")}
    width, height = 2 * WIDTH + 20, 74 + HEIGHT * ((len(panels) + 1) // 2) + 12
    what = f"Widths of the 2B, {' and '.join(map(str, sorted(layers)))} of its layers" if layers else "Widths of the 2B"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="How time grows">',
           f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="var(--paper)"/>',
           '<text class="head" x="24" y="32">How time grows</text>',
           f'<text class="soft" x="24" y="54">{escape(what)}; {escape(results.get("cpu", ""))}, {escape(results.get("date", "")[:10])}</text>']
    x = width - 24
    for kind, text, style in reversed([(t, f"{t} thread{'s' if t > 1 else ''}", "line") for t in threads] + [(None, f"roof of the machine (%: share of it, {threads[-1]} threads)", "roof")]):
        wide = round(6.3 * len(text))  # about: fonts differ
        name = "many" if kind in (None, threads[-1]) else "one"
        out.append(f'<text class="end" x="{x}" y="32">{escape(text)}</text><line class="{style} {name}" x1="{x - wide - 34}" x2="{x - wide - 8}" y1="28" y2="28"/>')
        x -= wide + 50
    for i, (title, unit, lines) in enumerate(panels):
        out += panel(title, unit, lines, 10 + (i % 2) * WIDTH, 70 + (i // 2) * HEIGHT)
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        picture = draw(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"plot: {sys.argv[1]}: {error}")
    pathlib.Path(sys.argv[2]).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
