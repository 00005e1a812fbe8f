"""omniq_nb as its users see it: notebooks in a real browser, on a real Jupyter server."""
