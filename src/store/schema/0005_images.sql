CREATE TABLE images (
    reference     TEXT    PRIMARY KEY,
    manifest      TEXT    NOT NULL,
    config        TEXT    NOT NULL,
    root          TEXT    NOT NULL,
    root_bytes    INTEGER NOT NULL,
    layer_bytes   INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;
ALTER TABLE vms ADD COLUMN image TEXT NOT NULL DEFAULT '';
