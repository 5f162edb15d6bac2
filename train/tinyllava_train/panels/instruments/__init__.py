"""One file an instrument: what it can show (its state) and how it is drawn."""
