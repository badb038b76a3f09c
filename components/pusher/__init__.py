"""Pushes blessed models to where servers look for them: a folder, a volume or an object store."""
