"""A chart's parts are placed once, and stand where a second drawing of everything would put them."""

import pytest
from matplotlib.figure import Figure

from evaluation.report import figures


def chart(scale: str) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.001, 0.01, 1.0], [0.2, 0.5, 0.9], label="a longer name of a line")
    axes.set_xscale(scale)
    axes.set_title("Two lines\nof a title", loc="left")
    axes.set_ylabel("what is measured")
    figure.legend(loc="outside lower center")
    return figure


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_what_is_placed_once_stands_where_it_stood(scale: str, monkeypatch: pytest.MonkeyPatch):
    drawn: list[object] = []
    monkeypatch.setattr(Figure, "draw", lambda self, renderer, real=Figure.draw: (drawn.append(self), real(self, renderer)))
    once = figures.as_svg(chart(scale), "chart")
    assert len(drawn) == 1
    monkeypatch.setattr(figures, "_lay_out", lambda figure: None)
    assert figures.as_svg(chart(scale), "chart") == once
    assert len(drawn) == 3
