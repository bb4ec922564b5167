"""Decoding of clients' media in sandboxed worker processes. `pool.py` starts them; `worker.py` runs in them."""
