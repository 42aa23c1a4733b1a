"""On Ubuntu, whose Chromium is a snap, the tests that read a page with it need one from elsewhere."""

from __future__ import annotations

import platform
import shutil

from tests.support.chromium import BINARY

_IS_MISSING = shutil.which(BINARY) is None and platform.freedesktop_os_release()["ID"] == "ubuntu"
collect_ignore = ["test_audit_report_is_a_page_of_its_own.py"] if _IS_MISSING else []
