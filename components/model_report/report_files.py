"""Names of the files of a report."""

METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
PAGE = "index.html"
MARKDOWN = "report.md"
