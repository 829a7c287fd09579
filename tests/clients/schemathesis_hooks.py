"""Notes each request before it is sent: of one that is never answered schemathesis does not say what it was.

VOLANT_REQUESTS names the file; a line is seconds, method, path, query.
"""

import os
import time

import schemathesis

LOG = open(os.environ["VOLANT_REQUESTS"], "a", buffering=1, encoding="utf-8")


@schemathesis.hook
def before_call(context, case, kwargs):
    print(f"{time.time():.0f} {case.method} {case.formatted_path} {case.query}", file=LOG)
