"""Write docs/method.svg and docs/method-dark.svg, the README's figure of the method.

python docs/make_method.py
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 900, 384
LIGHT = {"ink": "#1f2328", "soft": "#59636e", "line": "#818b98", "box": "#f6f8fa", "time": "#ddf4ff", "mark": "#0969da"}
DARK = {"ink": "#f0f6fc", "soft": "#9198a1", "line": "#656c76", "box": "#151b23", "time": "#121d2f", "mark": "#4493f8"}
COLUMNS = (90, 240, 390)  # x of the steps
BOX = 118
ROWS = {"tokens": 92, "compressor": 132, "temporal": 186, "lower": 252, "frames": 306}


class Figure:
    """Collects the elements of one figure in one set of colours."""

    def __init__(self, colours: dict[str, str]) -> None:
        self.colours, self.parts = colours, list[str]()

    def box(self, x: float, y: float, w: float, h: float, fill: str = "box", line: str = "line") -> None:
        """Add a rectangle."""
        fill, line = self.colours[fill], self.colours[line]
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{line}"/>')

    def text(
        self, x: float, y: float, content: str, size: int = 14, colour: str = "ink", anchor: str = "middle"
    ) -> None:
        """Add one line of text; `y` is its baseline."""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{self.colours[colour]}" text-anchor="{anchor}">'
            f"{escape(content)}</text>"
        )

    def arrow(self, x0: float, y0: float, x1: float, y1: float, colour: str = "line") -> None:
        """Add a straight arrow."""
        shade = self.colours[colour]
        self.parts.append(
            f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="{shade}" stroke-width="1.5" '
            f'marker-end="url(#{colour})"/>'
        )

    def tokens(self, x: float, y: float) -> None:
        """Add the 64 tokens of one step, as 16 cells."""
        for cell in range(16):
            left = x + cell * 7
            self.parts.append(f'<rect x="{left}" y="{y}" width="5" height="16" fill="{self.colours["mark"]}"/>')

    def svg(self) -> str:
        """Return the whole document."""
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{self.colours[name]}"/></marker>'
            for name in ("line", "mark")
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="-apple-system, '
            'Segoe UI, Helvetica, Arial, sans-serif" role="img"><title>A picture is a static clip: every step passes '
            "shared lower layers, temporal blocks with a cache and a compressor to 64 tokens</title>"
        )
        return f"{head}<defs>{heads}</defs>{''.join(self.parts)}</svg>\n"


def draw(colours: dict[str, str]) -> str:
    """Return the figure as SVG."""
    figure = Figure(colours)
    left, right = COLUMNS[0] - BOX / 2, COLUMNS[-1] + BOX / 2
    figure.box(left, 24, right - left, 36)
    figure.text((left + right) / 2, 47, "Language model: text and visual tokens in time order")
    for step, x in enumerate(COLUMNS):
        for key, label, height in (("compressor", "compressor", 30), ("temporal", "temporal blocks", 42)):
            figure.box(x - BOX / 2, ROWS[key], BOX, height, "time" if key == "temporal" else "box")
            figure.text(x, ROWS[key] + height / 2 + 5, label)
        figure.tokens(x - 56, ROWS["tokens"] - 4)
        figure.box(x - 46, ROWS["frames"], 92, 42)
        figure.text(x, ROWS["frames"] + 26, f"frame {step}")
        figure.arrow(x, ROWS["frames"] - 1, x, ROWS["lower"] + 33)
        figure.arrow(x, ROWS["lower"] - 1, x, ROWS["temporal"] + 45)
        figure.arrow(x, ROWS["temporal"] - 1, x, ROWS["compressor"] + 33)
        figure.arrow(x, ROWS["compressor"] - 1, x, ROWS["tokens"] + 16)
        figure.arrow(x, ROWS["tokens"] - 6, x, 64)
        if step:
            y = ROWS["temporal"] + 21
            figure.arrow(COLUMNS[step - 1] + BOX / 2, y, x - BOX / 2 - 2, y, "mark")
    figure.box(left, ROWS["lower"], right - left, 30)
    figure.text((left + right) / 2, ROWS["lower"] + 20, "lower layers of the ViT, once per stored frame")
    figure.text((left + right) / 2, HEIGHT - 14, "time", 13, "soft")
    figure.arrow((left + right) / 2 + 22, HEIGHT - 18, right, HEIGHT - 18)
    notes = (
        (47, "One prompt for pictures and videos."),
        (ROWS["tokens"] + 9, "64 tokens for every frame and step at 448 px."),
        (ROWS["compressor"] + 20, "AdaLN on the step: each step adds what is missing."),
        (ROWS["temporal"] + 18, "Causal attention over time. The cache makes"),
        (ROWS["temporal"] + 36, "frame-by-frame encoding exact, and bounded."),
        (ROWS["lower"] + 20, "A picture is one frame, repeated from here on."),
        (ROWS["frames"] + 26, "Picture: 1 to 4 steps of each tile. Video: one a frame."),
    )
    for y, note in notes:
        figure.text(right + 26, y, note, 14, "soft", "start")
    return figure.svg()


def main() -> None:
    """Write both files."""
    (FOLDER / "method.svg").write_text(draw(LIGHT), encoding="utf-8")
    (FOLDER / "method-dark.svg").write_text(draw(DARK), encoding="utf-8")


if __name__ == "__main__":
    main()
