-- What opens a VM's ports to whoever shows it: tokens and signatures are made with the secret.
CREATE TABLE vm_access (
    vm_id INTEGER PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    secret BLOB NOT NULL CHECK (length(secret) = 32)
) STRICT;
