"""The networks that can be trained; `registry` knows them by name."""
