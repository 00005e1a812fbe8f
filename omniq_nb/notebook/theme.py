"""The looks of cards: one style sheet, which follows the page that it is shown in.

Text takes the page's colour and fonts, and lines are a share of that colour, so a card is light
on light pages and dark on dark ones, in whatever front end. Where a sanitiser takes the style
away, what remains is plain HTML in reading order.
"""

from omniq_nb.models.task import State

COLOURS = {
    State.SUCCEEDED: "#2f9e5f",
    State.FAILED: "#d64550",
    State.CANCELLED: "#a8762a",
    State.EXPIRED: "#8d6bb8",
    State.RUNNING: "#3180d8",
    State.QUEUED: "#8a929c",
    State.BLOCKED: "#b3b9c1",
}
"""A colour for each state that stands out on white and on black; a word always stands beside it."""

_CARD = ".omniq.omniq.omniq"  # three times: it must win against the page's rules for any table

_RULES = {
    "": (
        "box-sizing:border-box;max-width:60rem;margin:4px 0;padding:12px 16px;"
        "border:1px solid color-mix(in srgb,currentColor 20%,transparent);border-radius:8px;"
        "font-family:var(--jp-ui-font-family,system-ui,sans-serif);"
        "font-size:var(--jp-ui-font-size1,13px);line-height:1.5;color:inherit;"
        "font-variant-numeric:tabular-nums"
    ),
    " .top": "display:flex;flex-wrap:wrap;gap:0 12px;align-items:baseline",
    " .top strong": "font-size:1.1em;overflow-wrap:anywhere",
    " .side": "margin-left:auto",
    " .quiet": "color:color-mix(in srgb,currentColor 72%,transparent)",
    " .bar": (
        "display:flex;height:10px;margin:8px 0;border-radius:5px;overflow:hidden;"
        "background:color-mix(in srgb,currentColor 12%,transparent)"
    ),
    " .bar i": "display:block;transition:width .3s",
    " ul": "display:flex;flex-wrap:wrap;gap:0 16px;margin:0;padding:0;list-style:none",
    " ul.lines": "display:block;margin-top:8px",
    " li": "margin:0;padding:0;overflow-wrap:anywhere",
    " .dot": (
        "display:inline-block;width:9px;height:9px;margin-right:6px;border-radius:50%;"
        "background:color-mix(in srgb,currentColor 45%,transparent)"
    ),
    " p": "margin:8px 0 0",
    " .hint": "padding-left:10px;border-left:3px solid #a8762a",
    " .wide": (
        "overflow-x:auto;scrollbar-width:thin;"
        "scrollbar-color:color-mix(in srgb,currentColor 40%,transparent) transparent"
    ),
    " table": (
        "width:100%;table-layout:auto;margin:8px 0 0;border-collapse:collapse;border:0;"
        "font-size:1em"
    ),
    " tr": "background:none",
    " th": (
        "padding:3px 16px 3px 0;text-align:left;font-weight:600;white-space:nowrap;background:none;"
        "border:0;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)"
    ),
    " td": (
        "padding:3px 16px 3px 0;text-align:left;vertical-align:top;border:0;white-space:nowrap"
    ),
    " td:last-child": "min-width:9rem;white-space:normal;overflow-wrap:anywhere",
    " .number": "text-align:right",
    " .badge": "white-space:nowrap",
    " code,X pre": (
        "font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:.95em;"
        "color:inherit;background:none;padding:0;border:0"
    ),
    " pre": (
        "max-height:16em;margin:8px 0 0;padding:8px 10px;overflow:auto;white-space:pre-wrap;"
        "overflow-wrap:anywhere;border-radius:4px;"
        "background:color-mix(in srgb,currentColor 7%,transparent)"
    ),
    **{f" .{state}": f"background:{colour}" for state, colour in COLOURS.items()},
}

STYLE = "<style>{}</style>".format(
    "".join(
        f"{_CARD}{selector.replace('X', _CARD)}{{{rules}}}" for selector, rules in _RULES.items()
    )
    + f"@media(max-width:480px){{{_CARD} .side{{margin-left:0;width:100%}}}}"
    + f"@media(prefers-reduced-motion:reduce){{{_CARD} .bar i{{transition:none}}}}"
)
"""The style sheet, as it stands at the top of each card."""
