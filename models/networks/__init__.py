"""The networks that can be trained; `registry` maps their names to them."""
