"""``make turns``: random turns of every kind, and what must hold after each."""
