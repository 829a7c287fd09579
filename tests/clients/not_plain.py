"""Prints the operations that answer with streams, WebSockets or whatever a guest says.

A generator of requests would wait for their end; clients of their own test them.
"""

import json
import sys

document = json.load(sys.stdin)
for path, operations in document["paths"].items():
    for operation in operations.values():
        answers = operation["responses"]
        content = answers.get("200", {}).get("content", {})
        fixtures = path.startswith(("/mcp", "/api/v1/agui", "/e2b", "/ui"))
        # Who does not ask for events gets a document where there is one.
        streams = {"text/event-stream", "application/x-tar"} & set(content) and "application/json" not in content
        if fixtures or streams or "101" in answers or "2XX" in answers:
            print(operation["operationId"])
