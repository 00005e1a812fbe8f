"""Peers and limits, one script each: ``python script.py FOLDER`` prints one line of JSON."""
