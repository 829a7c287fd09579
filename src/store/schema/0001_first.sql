CREATE TABLE vms (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    name           TEXT    NOT NULL UNIQUE,
    runtime        TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    reason         TEXT    NOT NULL DEFAULT '',
    vcpus          INTEGER NOT NULL,
    memory_mib     INTEGER NOT NULL,
    kernel         TEXT    NOT NULL DEFAULT '',
    initramfs      TEXT    NOT NULL DEFAULT '',
    kernel_cmdline TEXT    NOT NULL DEFAULT '',
    env            TEXT    NOT NULL DEFAULT '{}',
    console        INTEGER NOT NULL DEFAULT 1,
    created_at_ms  INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
    address INTEGER PRIMARY KEY,
    vm_id   INTEGER NOT NULL UNIQUE REFERENCES vms (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    vm_id   INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    status  TEXT    NOT NULL,
    address INTEGER NOT NULL,
    message TEXT    NOT NULL
) STRICT;
