-- Ports of the host that lead to guests. An address of 0 means all of the host's.
CREATE TABLE exposures (
    vm_id INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    transport TEXT NOT NULL CHECK (transport IN ('tcp', 'udp')),
    host_ip INTEGER NOT NULL,
    host_port INTEGER NOT NULL CHECK (host_port BETWEEN 1 AND 65535),
    guest_port INTEGER NOT NULL CHECK (guest_port BETWEEN 1 AND 65535),
    PRIMARY KEY (transport, host_port, host_ip)
) STRICT;
