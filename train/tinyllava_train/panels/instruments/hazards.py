"""What should not be there: smoke that rises from an instrument, a leak that drips from it."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw, ImageFilter

HAZARDS = ("nothing", "smoke", "leak")

Box = tuple[float, float, float, float]


def draw_hazard(canvas: Image.Image, hazard: str, place: Box, rng: Random) -> Image.Image:
    """Lay smoke or a leak over the canvas at ``place`` (left, top, right, bottom in pixels)."""
    if hazard == "smoke":
        return _smoke(canvas, place, rng)
    if hazard == "leak":
        return _leak(canvas, place, rng)
    return canvas


def _smoke(canvas: Image.Image, place: Box, rng: Random) -> Image.Image:
    left, top, right, bottom = place
    width, height = right - left, bottom - top
    mask = Image.new("L", canvas.size, 0)
    pen = ImageDraw.Draw(mask)
    x = left + width * rng.uniform(0.3, 0.7)
    drift = rng.uniform(-0.25, 0.25) * width
    for puff in range(14):
        rise = puff / 13
        radius = width * (0.05 + 0.13 * rise)
        cx = x + drift * rise + rng.uniform(-0.06, 0.06) * width
        cy = bottom - height * (0.25 + 0.75 * rise)
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), rng.randint(120, 190))
    mask = mask.filter(ImageFilter.GaussianBlur(width * 0.035))
    x_mid, y_mid = int((left + right) / 2), int((top + bottom) / 2)
    wall = canvas.convert("L").crop((x_mid, y_mid, x_mid + 1, y_mid + 1)).tobytes()[0]
    grey = rng.randint(205, 245) if wall < 130 else rng.randint(30, 75)
    canvas.paste(Image.new("RGB", canvas.size, (grey, grey, grey)), (0, 0), mask)
    return canvas


def _leak(canvas: Image.Image, place: Box, rng: Random) -> Image.Image:
    left, top, right, bottom = place
    width, height = right - left, bottom - top
    pen = ImageDraw.Draw(canvas)
    water = (rng.randint(20, 70), rng.randint(130, 180), rng.randint(220, 255))
    x = left + width * rng.uniform(0.25, 0.75)
    floor = bottom - 0.02 * height
    spread = width * rng.uniform(0.25, 0.38)
    pen.ellipse((x - spread, floor - 0.09 * height, x + spread, floor + 0.05 * height), water)
    for drop in range(4):
        y = floor - height * (0.16 + 0.14 * drop)
        r = width * rng.uniform(0.025, 0.04)
        dx = rng.uniform(-0.03, 0.03) * width
        pen.polygon(((x + dx - r, y), (x + dx + r, y), (x + dx, y - 2.6 * r)), water)
        pen.ellipse((x + dx - r, y - r, x + dx + r, y + r), water)
    return canvas
