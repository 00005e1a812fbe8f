"""What a notebook shows: live views, cards, plots. The only room that knows IPython.

`live` keeps open views up to date, `gauges` asks what stands on a card, `faces` draws it as
HTML and as text, `cards` shows it in a notebook and updates it, `waiting` shows how far a wait
is, `plots` draws what tasks took and gave.

`magics` are the words of a notebook's lines, `completion` offers them, `binding` takes variables
into SQL. A cell that runs as a task is read by `reads`, packed by `travel`, run by `cellrun`, and
shown by `cells`. `tracebacks` shows errors of ours.
"""
