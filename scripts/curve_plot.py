"""Curves of error over size as an SVG, written by hand: no plotting library is needed to look at a measurement."""

import html
import math

WIDTH, HEIGHT = 860, 520
LEFT, TOP, RIGHT, BOTTOM = 70, 44, 230, 52
COLOURS = ("#d62728", "#ff7f0e", "#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#8c564b", "#7f7f7f")


def text(x, y, content, anchor="middle", size=13, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {extra}>'
            f"{html.escape(content)}</text>")


def error_ticks(low, high):
    """1, 2 and 5 of each decade between two logarithms."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [digit * 10.0 ** decade for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def svg(title, curves, low_bits, high_bits):
    """`curves` is {name: [(bits, relative L2), ...]}, in the order of the legend."""
    shown = {
        name: sorted(p for p in points if low_bits - 0.3 <= p[0] <= high_bits + 0.3 and p[1] > 0)
        for name, points in curves.items()
    }
    logs = [math.log10(error) for points in shown.values() for _, error in points] or [-1.0, 0.0]
    low, high = min(logs) - 0.05, max(logs) + 0.05
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(bits):
        return LEFT + plot_width * (bits - low_bits + 0.3) / (high_bits - low_bits + 0.6)

    def y_of(error):
        return TOP + plot_height * (high - math.log10(error)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT + plot_width / 2, 24, title, size=15),
        text(LEFT + plot_width / 2, HEIGHT - 12, "stored bits per element"),
        text(18, TOP + plot_height / 2, "relative L2 error",
             extra=f'transform="rotate(-90 18 {TOP + plot_height / 2:.1f})"'),
    ]
    for bits in range(math.ceil(low_bits), math.floor(high_bits) + 1):
        x = x_of(bits)
        parts.append(f'<path d="M{x:.1f} {TOP}V{TOP + plot_height}" stroke="#ddd"/>')
        parts.append(text(x, TOP + plot_height + 18, str(bits)))
    for error in error_ticks(low, high):
        y = y_of(error)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + plot_width}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y + 4, f"{error:g}", "end"))
    parts.append(f'<rect x="{LEFT}" y="{TOP}" width="{plot_width}" height="{plot_height}" fill="none" stroke="#333"/>')
    for curve_idx, (name, points) in enumerate(shown.items()):
        colour = COLOURS[curve_idx % len(COLOURS)]
        line = " ".join(f"{x_of(bits):.1f},{y_of(error):.1f}" for bits, error in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.extend(f'<circle cx="{x_of(b):.1f}" cy="{y_of(e):.1f}" r="2.4" fill="{colour}"/>' for b, e in points)
        y = TOP + 14 + 22 * curve_idx
        parts.append(f'<path d="M{WIDTH - RIGHT + 14} {y}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(WIDTH - RIGHT + 44, y + 4, name, "start"))
    return "\n".join([*parts, "</svg>", ""])
