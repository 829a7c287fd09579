-- 0: no end. on_expiry: delete, stop.
ALTER TABLE vms ADD COLUMN expires_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vms ADD COLUMN on_expiry     TEXT    NOT NULL DEFAULT 'delete';
