"""Names of the files in the folder of a report."""

METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
PAGE = "index.html"
MARKDOWN = "report.md"
