ALTER TABLE vms ADD COLUMN plugin TEXT NOT NULL DEFAULT '';
ALTER TABLE vms ADD COLUMN plugin_version TEXT NOT NULL DEFAULT '';
ALTER TABLE vms ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';

CREATE TABLE plugins (
    name            TEXT    PRIMARY KEY,
    current_version TEXT    NOT NULL,
    enabled         INTEGER NOT NULL,
    installed_at_ms INTEGER NOT NULL,
    updated_at_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE plugin_versions (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin          TEXT    NOT NULL REFERENCES plugins (name) ON DELETE CASCADE,
    version         TEXT    NOT NULL,
    manifest        TEXT    NOT NULL,
    installed_at_ms INTEGER NOT NULL,
    UNIQUE (plugin, version)
) STRICT;
