"""Names, order and pictures of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from markupsafe import Markup, escape
from report_helpers import EVIL, Page, check_page

from edge.runtime import Bundle
from quant.report.data import sizes
from quant.report.names import model_order, percent, points, short
from quant.report.plots import Cell, bar, heat_map, interval


def test_names_and_order() -> None:
    assert short("encoder.encoders.3.feed_forward_macaron") == "block 3 feed-forward 1"
    assert short("encoder.encoders.3.feed_forward.experts.5.w_1") == "block 3 feed-forward 2, expert 5, w_1"
    assert short("decoder.right_decoder.decoders.0.src_attn") == "right decoder 0 source attention"
    assert short("decoder.decoders.1.feed_forward.experts.0") == "decoder 1 feed-forward, expert 0"
    assert short("encoder.embed.conv.2") == "subsampling conv 2" and short("ctc.ctc_lo") == "CTC"
    assert short("decoder.left_decoder.output_layer") == "left decoder output"
    assert short("anything else") == "anything else"
    order = [
        "encoder.embed",
        "encoder.encoders.2.feed_forward_macaron",
        "encoder.encoders.2.self_attn",
        "encoder.encoders.2.conv_module",
        "encoder.encoders.2.feed_forward",
        "encoder.encoders.10.self_attn",
        "ctc.ctc_lo",
        "decoder.left_decoder.decoders.0.self_attn",
        "decoder.left_decoder.output_layer",
        "decoder.right_decoder.decoders.0.self_attn",
    ]
    assert sorted(reversed(order), key=model_order) == order
    assert (points(-0.004), points(-0.5), points(0.25)) == ("0.00", "−0.50", "+0.25")
    assert (percent(1.0), percent(0.99996), percent(0.97)) == ("100.0 %", "> 99.9 %", "97.0 %")


def test_pictures() -> None:
    text = heat_map([EVIL], ["e0", "e1"], [[Cell(EVIL, 2.0, EVIL, True), Cell("", None)]], EVIL)
    page = check_page(text)
    assert page.text.count(EVIL) == 3
    assert [tag for tag, a in page.tags if a.get("class") == "mark"] == ["rect"]
    shades = [a.get("fill-opacity") for tag, a in page.tags if tag == "rect" and "fill-opacity" in a]
    assert shades == ["1.000"]
    check_page(bar(0.5, 0.0, 1.0, 0.97, True))
    check_page(interval(0.1, -1.0, 1.0, 1.0, 0.2))
    filled = next(a for tag, a in Page(bar(0.25, 0.0, 1.0, width=100)).tags if a.get("class") == "fill")
    assert filled["width"] == "25.0"
    assert escape(Markup("<b>")) == "<b>" and escape("<b>") == "&lt;b&gt;"


def test_size_is_against_fp32_storage(pristine: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Also when the baseline stores its weights as float16."""
    from edge.export.convert import ConvertOptions, convert
    from edge.export.options import ExportOptions

    half = convert(pristine, tmp_path / "half", ConvertOptions(export=ExportOptions(storage="fp16")))
    opened = Bundle.open(tiny_bundle)
    found = sizes(half, half)
    tables = 2 * (5000 - 79 - 64) * 16 * 4  # of positions, which fp16 storage composes and the estimate leaves out
    assert found.baseline < found.fp32 == pytest.approx(sizes(opened, opened).baseline - tables, rel=0.05)
