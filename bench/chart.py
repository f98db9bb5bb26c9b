"""Curves with a logarithmic height, side by side, as SVG. Nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 112
COLOURS = ("#0b5fa5", "#d55e00", "#3a7d34", "#8e44ad")


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    told_apart: bool = False  # drawn larger


@dataclass(frozen=True)
class Panel:
    across: str
    up: str
    curves: dict[str, list[Point]]
    least: float  # what is less, and nothing at all, is drawn at the lower edge
    most: float


def svg(panels: list[Panel]) -> str:
    """Draw them from left to right."""
    width = len(panels) * WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}">',
        "<style>text {font: 12px sans-serif}</style>",
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * WIDTH} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    widest = max(point.x for curve in panel.curves.values() for point in curve)
    step: float = 10 ** math.floor(math.log10(widest)) / 2
    widest = math.ceil(widest / step) * step

    def across(x: float) -> float:
        return LEFT + (right - LEFT) * x / widest

    def up(y: float) -> float:
        part = math.log(max(y, panel.least) / panel.least) / math.log(panel.most / panel.least)
        return bottom - (bottom - TOP) * min(part, 1.0)

    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>']
    for count in range(round(widest / step) + 1):
        x = across(count * step)
        parts.append(f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{count * step:.0f}</text>')
    tick = panel.least
    while tick <= panel.most * 1.001:
        label = f"{tick:,.0f}" if tick >= 1 else "none" if tick == panel.least else f"{tick:g}"
        parts.append(f'<path d="M{LEFT} {up(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{label}</text>')
        tick *= 10
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(panel.across)}</text>')
    turned = f"translate(14 {(TOP + bottom) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(panel.up)}</text>')
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(across(point.x), up(point.y), 5 if point.told_apart else 2.5) for point in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"/>' for x, y, size in places]
        legend = bottom + 54 + 16 * number
        parts.append(f'<rect x="{LEFT}" y="{legend - 8}" width="16" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 22}" y="{legend}">{escape(name)}</text>')
    return parts
