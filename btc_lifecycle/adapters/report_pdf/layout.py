"""The page frame of a report: title, running head, footer, tiles, tables, charts, boxes (fpdf2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import matplotlib
from fpdf import FPDF
from fpdf.enums import MethodReturnValue
from fpdf.fonts import TTFFont
from matplotlib.figure import Figure

from btc_lifecycle.adapters.report_pdf.charts import MM_PER_INCH, save_figure
from btc_lifecycle.adapters.report_pdf.style import (
    AMBER,
    BLUE,
    CONTENT_WIDTH_MM,
    INK,
    MARGIN_MM,
    MUTED,
    PAGE_HEIGHT_MM,
    PAGE_WIDTH_MM,
    RED,
    REPORT_NAME,
    RULE,
    TEAL,
    WASH,
    WHITE,
    Destination,
    badge_of,
)

Tone = Literal["neutral", "good", "warning", "bad"]
_TONES: dict[Tone, str] = {"neutral": BLUE, "good": TEAL, "warning": AMBER, "bad": RED}
_FONT = "DejaVu"
_ROW_MM = 5.2
_GAP_MM = 6.0
_LINE_MM = 4.6
_MAX_LINES = 30
# Shorter tables are never broken across pages.
_MAX_ROWS_KEPT = 30
_MIN_SIZE = 5.75
_BOTTOM_MM = PAGE_HEIGHT_MM - 20
_ELLIPSIS = "…"
_N_PAGES = "{n}"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A key figure: what it is, its value, and a remark below."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "neutral"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; the first column is text, the rest numbers unless ``is_text`` says so."""

    title: str
    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    # Shares of the table's width, one per column.
    widths: Sequence[float] = (0.5, 0.5)
    text_columns: frozenset[int] = frozenset({0})


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How a line of text is set; the size is in points."""

    size: float
    style: Literal["", "B"] = ""
    color: str = INK
    align: Literal["L", "R", "C"] = "L"


_SMALL = _Look(size=7, color=MUTED)
_NOTE = _Look(size=8, color=MUTED)
_FIGURE = _Look(size=12.5, style="B")


class ReportPdf(FPDF):
    """An A4 report whose every page names what it is about, where its data come from and when."""

    def __init__(self, *, title: str, subject: str, destination: Destination) -> None:
        super().__init__(orientation="portrait", unit="mm", format="A4")
        self._title, self._subject, self._destination = title, subject, destination
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        # The core fonts know latin-1 only; these ship with matplotlib and match the charts.
        self.add_font(_FONT, "", fonts / "DejaVuSans.ttf")
        self.add_font(_FONT, "B", fonts / "DejaVuSans-Bold.ttf")
        self.set_margins(MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(auto=False)
        self.c_margin = 0.0
        self.alias_nb_pages(_N_PAGES)
        self.set_title(f"{title}: {subject}")
        self.set_creator("btc_lifecycle")
        self.set_creation_date(destination.made_at)
        self.set_lang("en")
        self.add_page()

    def header(self) -> None:
        """Draw the badge on every page, and the running head on all but the first."""
        self._badge()
        if self.page_no() == 1:
            return
        self._text(f"{self._title}  ·  {self._subject}", y=11, look=_NOTE, width=125)
        self._rule(16.5)
        self.set_y(MARGIN_MM + 4)

    def footer(self) -> None:
        """Draw source, time and page number."""
        y, made = PAGE_HEIGHT_MM - 13, self._destination
        self._rule(y - 2)
        facts = f"btc_lifecycle  ·  {made.source}  ·  made at {made.made_at:%Y-%m-%d %H:%M:%S} UTC"
        self._text(facts, y=y, look=_SMALL, width=CONTENT_WIDTH_MM - 30)
        # The total is known at the end only; right-aligned, its placeholder would shift the line.
        x = MARGIN_MM + CONTENT_WIDTH_MM - 2
        page = _Look(size=7, color=MUTED, align="R")
        self._text(f"page {self.page_no()} of ", x=x - 24, y=y, look=page, width=24)
        self._text(_N_PAGES, x=x, y=y, look=_SMALL, width=8)

    def title_block(self, lines: Sequence[str]) -> None:
        """Draw the report's title with the subject and lines of plain facts below."""
        self._line(self._title, look=_Look(size=20, style="B"), height_mm=10.5)
        self._line(self._subject, look=_Look(size=11.5, style="B", color=BLUE), height_mm=6.5)
        for line in lines:
            self._line(line, look=_Look(size=8.5, color=MUTED), height_mm=4.6)
        self.set_y(self.y + 3)

    def section(self, text: str, *, needs_mm: float = 40) -> None:
        """Draw a heading, on a new page where what follows would not fit."""
        self.reserve(needs_mm)
        self._line(text, look=_Look(size=12, style="B"), height_mm=8)

    def reserve(self, height_mm: float) -> None:
        """Begin a new page unless so much height is left on this one."""
        if self.y + height_mm > _BOTTOM_MM:
            self.add_page()

    def tiles(self, tiles: Sequence[Tile]) -> None:
        """Draw key figures side by side."""
        gap_mm, height_mm, y = 3.0, 19.0, self.y
        width = (CONTENT_WIDTH_MM - gap_mm * (len(tiles) - 1)) / len(tiles)
        for position, tile in enumerate(tiles):
            x = MARGIN_MM + position * (width + gap_mm)
            self._panel(x, y, width=width, height=height_mm, tone=tile.tone)
            lines = (
                (tile.label, 1.8, _SMALL),
                (tile.value, 6.2, _FIGURE),
                (tile.note, 13.4, _SMALL),
            )
            for text, below, look in lines:
                self._text(text, x=x + 3.2, y=y + below, look=look, width=width - 4.2)
        self.set_y(y + height_mm + _GAP_MM)

    def tables(self, *tables: Table) -> None:
        """Draw tables side by side, each as wide as the others; a long one goes alone."""
        gap_mm = 8.0
        width = (CONTENT_WIDTH_MM - gap_mm * (len(tables) - 1)) / len(tables)
        n_rows = max(len(table.rows) + bool(table.header) for table in tables)
        self.reserve(7 + min(n_rows, _MAX_ROWS_KEPT) * _ROW_MM)
        top, bottom = self.y, self.y
        for position, table in enumerate(tables):
            self.set_y(top)
            self._table(table, x=MARGIN_MM + position * (width + gap_mm), width=width)
            bottom = max(bottom, self.y)
        self.set_y(bottom + _GAP_MM)

    def chart(self, figure: Figure, *, name: str, caption: str) -> None:
        """Write a figure beside the report as ``name.png`` and draw it with its caption below."""
        image = self._destination.folder / f"{name}.png"
        height_mm = figure.get_figheight() * MM_PER_INCH
        save_figure(figure, path=image, badge=badge_of(self._destination.source))
        self.reserve(height_mm + 10)
        self.image(image, x=MARGIN_MM, y=self.y, w=CONTENT_WIDTH_MM, h=height_mm)
        self.set_xy(MARGIN_MM, self.y + height_mm + 0.8)
        self._set_font(_Look(size=7.2, color=MUTED))
        # A figure stays with its "n =".
        self.multi_cell(
            CONTENT_WIDTH_MM,
            3.7,
            caption.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"),
            align="L",
        )
        self.set_y(self.y + _GAP_MM - 1)

    def box(self, heading: str, text: str, *, tone: Tone = "neutral") -> None:
        """Draw a coloured box with a heading and a text, cut where it would fill the page."""
        width = CONTENT_WIDTH_MM - 9
        body = _Look(size=8.8)
        self._set_font(body)
        lines = cast(
            list[str],
            self.multi_cell(width, _LINE_MM, text, dry_run=True, output=MethodReturnValue.LINES),
        )
        shown = [*lines[:_MAX_LINES], *([_ELLIPSIS] if len(lines) > _MAX_LINES else [])]
        height_mm = 11.5 + _LINE_MM * len(shown)
        self.reserve(height_mm)
        x, y = MARGIN_MM + 5, self.y
        self._panel(MARGIN_MM, y, width=CONTENT_WIDTH_MM, height=height_mm, tone=tone)
        title = _Look(size=9.5, style="B", color=_TONES[tone])
        self._text(heading, x=x, y=y + 2.4, look=title, width=width)
        for position, line in enumerate(shown):
            self._text(line, x=x, y=y + 8.6 + position * _LINE_MM, look=body, width=width)
        self.set_y(y + height_mm + _GAP_MM)

    def save(self) -> None:
        """Write the pages as ``report.pdf`` into the destination."""
        self.output(str(self._destination.folder / REPORT_NAME))

    def close(self) -> None:
        """Close the font files, which a report that fails before it is saved leaves open."""
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                font.close()

    def _badge(self) -> None:
        badge = badge_of(self._destination.source)
        if not badge:
            return
        width, y = 40.0, 8.0
        x = PAGE_WIDTH_MM - MARGIN_MM - width
        self._fill(x, y, width=width, height=7, color=AMBER)
        look = _Look(size=9, style="B", color=WHITE, align="C")
        self._text(badge, x=x, y=y + 1.7, look=look, width=width)

    def _table(self, table: Table, *, x: float, width: float) -> None:
        look = _Look(size=8.5, style="B", color=BLUE)
        self._text(table.title, x=x, y=self.y, look=look, width=width)
        self.set_y(self.y + 5.6)
        self._rule(self.y, x=x, width=width)
        self._row(table.header, table=table, x=x, width=width)
        for row in table.rows:
            if self.y + _ROW_MM > _BOTTOM_MM:
                self.add_page()
                self._row(table.header, table=table, x=x, width=width)
            self._row(row, table=table, x=x, width=width)

    def _row(self, cells: Sequence[str], *, table: Table, x: float, width: float) -> None:
        if not cells:
            return
        y, left = self.y + 0.8, x
        for column, (text, share) in enumerate(zip(cells, table.widths, strict=True)):
            is_label = cells is table.header or (column == 0 and not table.header)
            look = _Look(
                size=7 if cells is table.header else 7.8,
                color=MUTED if is_label else INK,
                align="L" if column in table.text_columns else "R",
            )
            self._text(text, x=left, y=y, look=look, width=share * width - 1)
            left += share * width
        self.set_y(self.y + _ROW_MM)
        self._rule(self.y, x=x, width=width)

    def _line(self, text: str, *, look: _Look, height_mm: float) -> None:
        """Draw one line at the left margin and move below it."""
        self._text(text, y=self.y, look=look)
        self.set_y(self.y + height_mm)

    def _text(
        self,
        text: str,
        *,
        y: float,
        look: _Look,
        x: float = MARGIN_MM,
        width: float = CONTENT_WIDTH_MM,
    ) -> None:
        """Draw one line, smaller or cut with an ellipsis where it would leave its width."""
        before, size = self.y, look.size
        self._set_font(look)
        while self.get_string_width(text) > width and size > _MIN_SIZE:
            size -= 0.25
            self.set_font_size(size)
        is_cut = self.get_string_width(text) > width
        while is_cut and text and self.get_string_width(text + _ELLIPSIS) > width:
            text = text[:-1]
        self.set_xy(x, y)
        self.cell(width, 0.42 * look.size, text + _ELLIPSIS * is_cut, align=look.align)
        self.set_y(before)

    def _set_font(self, look: _Look) -> None:
        self.set_font(_FONT, look.style, look.size)
        self.set_text_color(look.color)

    def _panel(self, x: float, y: float, *, width: float, height: float, tone: Tone) -> None:
        self._fill(x, y, width=width, height=height, color=WASH)
        self._fill(x, y, width=1, height=height, color=_TONES[tone])

    def _fill(self, x: float, y: float, *, width: float, height: float, color: str) -> None:
        self.set_fill_color(color)
        self.rect(x, y, width, height, style="F")

    def _rule(self, y: float, *, x: float = MARGIN_MM, width: float = CONTENT_WIDTH_MM) -> None:
        self.set_draw_color(RULE)
        self.set_line_width(0.2)
        self.line(x, y, x + width, y)
