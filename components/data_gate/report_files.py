"""Names of the files in DataGate's artifact."""

# The number of examples of each split, `examples`, and what the user should know, `warnings`.
SUMMARY = "data_gate.json"
# Equal and nearly equal images; `pictures.describe` lists the keys.
FINDINGS = "findings.json"
