"""The commands and pages about security agree."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_audit_leaves_out_what_security_md_judges():
    left_out = re.search(r"^JUDGED = (.*?)^audit:", (REPOSITORY / "Makefile").read_text(), re.S | re.M)
    assert left_out
    lines = (REPOSITORY / "SECURITY.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| CVE")]
    judged = {name for row in rows for name in re.findall(r"CVE-\d+-\d+", row.split("|")[1])}
    assert judged == set(re.findall(r"CVE-\d+-\d+", left_out[1]))
