-- state: new, made, deleting.
CREATE TABLE volumes (
    name          TEXT    PRIMARY KEY,
    mib           INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE volume_mounts (
    vm_id    INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    volume   TEXT    NOT NULL REFERENCES volumes (name),
    path     TEXT    NOT NULL,
    readonly INTEGER NOT NULL,
    PRIMARY KEY (vm_id, position)
) STRICT;
CREATE INDEX volume_mounts_by_volume ON volume_mounts (volume);
