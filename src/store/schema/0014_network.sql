-- bridged, vsock.
ALTER TABLE vms ADD COLUMN network TEXT NOT NULL DEFAULT 'bridged';
