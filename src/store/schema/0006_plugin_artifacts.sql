CREATE TABLE plugin_artifacts (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin        TEXT    NOT NULL REFERENCES plugins (name) ON DELETE CASCADE,
    version       TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    source_url    TEXT    NOT NULL,
    checksum      TEXT    NOT NULL,
    format        TEXT    NOT NULL,
    local_path    TEXT    NOT NULL,
    size_bytes    INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    UNIQUE (plugin, version, name)
) STRICT;
