"""The table of ratios: medians of every engine, and how ours stands to each of the others.

A ratio is how many times as fast ours is (or how many times as much memory it needs: there small is good).
"""
import figures

# column: how it is made of a sample, its unit, and whether large is good.
COLUMNS = {
    "encode": (lambda s: s.get("encode_ms"), "ms", False),
    "prefill": (lambda s: 1e3 * s["prefill_tokens"] / s["prefill_ms"] if s.get("prefill_ms") else None, "tok/s", True),
    "decode": (lambda s: 1e3 * s["decode_tokens"] / s["decode_ms"] if s.get("decode_ms") else None, "tok/s", True),
    "peak RSS": (lambda s: s.get("peak_mib"), "MiB", False),
    "next question": (lambda s: s.get("next_ttft_ms"), "ms", False),
}


def medians(samples):
    """Each column's median over the samples that have it; None where none has."""
    out = {}
    for name, (value, _, _) in COLUMNS.items():
        known = [v for v in map(value, samples) if v is not None]
        out[name] = figures.median(known) if known else None
    return out


def ratio(name, ours, theirs):
    """How many times as fast ours is; for memory, how many times as large theirs is."""
    if ours is None or theirs is None or ours == 0 or theirs == 0:
        return None
    return ours / theirs if COLUMNS[name][2] else theirs / ours


def rows(results):
    """results: {engine: [sample, ...]} in order. One row an engine: its medians and how many samples stand behind them."""
    return [(engine, medians(samples), len(samples)) for engine, samples in results.items()]


def text(results, ours):
    """Two plain tables: medians, and for each of our engines (`ours`) its ratio to every other."""
    made = rows(results)
    head = ["", *[f"{name} {unit}" for name, (_, unit, _) in COLUMNS.items()], "samples"]
    parts = [figures.table(head, [[engine, *[figures.number(m[c]) for c in COLUMNS], count] for engine, m, count in made])]
    for own in ours:
        base = next((m for engine, m, _ in made if engine == own), None)
        others = [(engine, m) for engine, m, _ in made if engine not in ours]
        if base is None or not others:
            continue
        lines = []
        for engine, m in others:
            ratios = [ratio(c, base[c], m[c]) for c in COLUMNS]
            lines.append([f"against {engine}", *["-" if r is None else f"{r:.2f}" for r in ratios]])
        parts.append(f"{own}: how many times as fast (memory: how many times as small)\n" + figures.table(["", *COLUMNS], lines))
    return "\n\n".join(parts)
