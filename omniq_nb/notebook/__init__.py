"""What a notebook shows: live views, cards, plots. The only room that knows IPython.

`live` keeps open views up to date, `gauges` asks what stands on a card, `faces` draws it as
HTML and as text, `cards` shows it in a notebook and updates it, `waiting` shows how far a wait
is, `plots` draws what tasks took and gave.
"""
