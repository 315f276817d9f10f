"""The tables, as migrations: entry N brings a database from `user_version` N to N + 1. Entries are never edited. They
run with foreign keys off, so that a table can be replaced, and those are checked at the end.

Times are microseconds since the epoch, UTC. `heir()` is a function of ours: the uid of whose all is that was there
before it had owners. `journal` and `kept` refer to nothing on purpose: they must outlive the
rows that they are about.
"""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        created_at INTEGER NOT NULL,
        source TEXT NOT NULL
    ) STRICT;
    CREATE TABLE image_names (
        name TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX image_names_by_image ON image_names (image_id);

    CREATE TABLE kernels (
        id TEXT PRIMARY KEY,
        release TEXT NOT NULL,
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        modules TEXT NOT NULL CHECK (json_valid(modules)),
        created_at INTEGER NOT NULL,
        source TEXT NOT NULL
    ) STRICT;
    CREATE TABLE kernel_names (
        name TEXT PRIMARY KEY,
        kernel_id TEXT NOT NULL REFERENCES kernels (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX kernel_names_by_kernel ON kernel_names (kernel_id);

    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images (id),
        image_name TEXT NOT NULL,
        kernel_id TEXT NOT NULL REFERENCES kernels (id),
        kernel_name TEXT NOT NULL,
        engine TEXT NOT NULL,
        acceleration TEXT NOT NULL,
        disk_backend TEXT NOT NULL,
        vcpus INTEGER NOT NULL CHECK (vcpus > 0),
        memory_bytes INTEGER NOT NULL CHECK (memory_bytes > 0),
        disk_bytes INTEGER NOT NULL CHECK (disk_bytes > 0),
        created_at INTEGER NOT NULL,
        env TEXT NOT NULL CHECK (json_valid(env)),
        error TEXT NOT NULL,
        token BLOB NOT NULL CHECK (length(token) = 32)
    ) STRICT;
    CREATE INDEX vms_by_time ON vms (created_at, id);
    CREATE INDEX vms_by_image ON vms (image_id);
    CREATE INDEX vms_by_kernel ON vms (kernel_id);

    CREATE TABLE running (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        pid INTEGER NOT NULL CHECK (pid > 0),
        start_time INTEGER NOT NULL,
        acceleration TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        boot_id TEXT NOT NULL
    ) STRICT;

    CREATE TABLE operations (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        finished_at INTEGER,
        target_id TEXT NOT NULL,
        stages TEXT NOT NULL CHECK (json_valid(stages)),
        reason TEXT,
        message TEXT,
        remedy TEXT
    ) STRICT;
    CREATE INDEX operations_by_time ON operations (created_at);

    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        op_id TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        step TEXT NOT NULL,
        UNIQUE (op_id, step)
    ) STRICT;
    """,
    """
    ALTER TABLE vms ADD COLUMN ports TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ports));
    """,
    # A VM that lives for a process, or where pid is NULL for a call.
    """
    CREATE TABLE owners (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        pid INTEGER,
        start_time INTEGER
    ) STRICT;
    """,
    """
    CREATE TABLE networks (
        name TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 0 AND 255)
    ) STRICT;
    ALTER TABLE vms ADD COLUMN network TEXT NOT NULL DEFAULT 'user';
    ALTER TABLE vms ADD COLUMN slot INTEGER CHECK (slot IS NOT NULL OR network = 'user');
    ALTER TABLE vms ADD COLUMN nat INTEGER NOT NULL DEFAULT 1 CHECK (nat IN (0, 1));
    ALTER TABLE running ADD COLUMN address TEXT NOT NULL DEFAULT '';
    CREATE UNIQUE INDEX vms_by_slot ON vms (slot) WHERE slot IS NOT NULL;
    CREATE INDEX running_by_address ON running (address) WHERE address != '';
    """,
    """
    ALTER TABLE vms ADD COLUMN init TEXT NOT NULL DEFAULT 'agent';
    ALTER TABLE vms ADD COLUMN ssh_keys TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ssh_keys));
    """,
    """
    ALTER TABLE running ADD COLUMN address6 TEXT NOT NULL DEFAULT '';
    CREATE INDEX running_by_address6 ON running (address6) WHERE address6 != '';
    """,
    # A journal by resource. What an operation has completed, and keeps whatever becomes of the rest of it.
    """
    ALTER TABLE journal RENAME TO journal_of_vms;
    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        op_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        step TEXT NOT NULL,
        UNIQUE (op_id, kind, resource_id, step)
    ) STRICT;
    INSERT INTO journal SELECT seq, op_id, 'vm', vm_id, step FROM journal_of_vms;
    DROP TABLE journal_of_vms;
    CREATE TABLE kept (
        op_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        UNIQUE (op_id, kind, resource_id)
    ) STRICT;
    """,
    # Settings in one column, which says its version; what is queried of them follows from it. And two better names.
    """
    CREATE TABLE new_vms (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        state TEXT NOT NULL,
        error TEXT NOT NULL,
        slot INTEGER CHECK (slot IS NOT NULL OR network = 'user'),
        token BLOB NOT NULL CHECK (length(token) = 32),
        image_id TEXT NOT NULL AS (json_extract(settings, '$.image_id')) STORED REFERENCES images (id),
        kernel_id TEXT NOT NULL AS (json_extract(settings, '$.kernel_id')) STORED REFERENCES kernels (id),
        network TEXT NOT NULL AS (json_extract(settings, '$.network')) STORED
    ) STRICT;
    INSERT INTO new_vms (id, name, created_at, settings, state, error, slot, token)
    SELECT
        id, name, created_at,
        json_object(
            'v', 1,
            'image_id', image_id, 'image_name', image_name, 'kernel_id', kernel_id, 'kernel_name', kernel_name,
            'engine', engine, 'acceleration', acceleration, 'disk_backend', disk_backend,
            'vcpus', vcpus, 'memory_bytes', memory_bytes, 'disk_bytes', disk_bytes,
            'env', json(env),
            'ports', (
                SELECT json_group_array(json_object(
                    'host_port', json_extract(value, '$[0]'), 'vm_port', json_extract(value, '$[1]'),
                    'protocol', json_extract(value, '$[2]'), 'address', ifnull(json_extract(value, '$[3]'), '')
                )) FROM json_each(ports)
            ),
            'network', network, 'nat', json(iif(nat, 'true', 'false')), 'init', init, 'ssh_keys', json(ssh_keys)
        ),
        state, error, slot, token
    FROM vms;
    DROP TABLE vms;
    ALTER TABLE new_vms RENAME TO vms;
    CREATE INDEX vms_by_time ON vms (created_at, id);
    CREATE INDEX vms_by_image ON vms (image_id);
    CREATE INDEX vms_by_kernel ON vms (kernel_id);
    CREATE UNIQUE INDEX vms_by_slot ON vms (slot) WHERE slot IS NOT NULL;
    ALTER TABLE running RENAME TO live_vmms;
    ALTER TABLE owners RENAME TO keepers;
    """,
    # What VMs were before a change that is under way.
    """
    CREATE TABLE former (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        settings TEXT NOT NULL CHECK (json_valid(settings))
    ) STRICT;
    CREATE INDEX former_by_name ON former (name);
    """,
    # One more with each change, for who must not change what another has changed.
    """
    ALTER TABLE vms ADD COLUMN generation INTEGER NOT NULL DEFAULT 1 CHECK (generation > 0);
    """,
    # Creates that may be sent again, by what their callers call them.
    """
    CREATE TABLE requests (
        uid INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        digest BLOB NOT NULL,
        op_id TEXT NOT NULL,
        UNIQUE (uid, request_id)
    ) STRICT;
    """,
    # Owners, as uids. Names of VMs and of networks are theirs.
    """
    CREATE TABLE new_vms (
        id TEXT PRIMARY KEY,
        owner INTEGER NOT NULL,
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        generation INTEGER NOT NULL DEFAULT 1 CHECK (generation > 0),
        state TEXT NOT NULL,
        error TEXT NOT NULL,
        slot INTEGER CHECK (slot IS NOT NULL OR network = 'user'),
        token BLOB NOT NULL CHECK (length(token) = 32),
        image_id TEXT NOT NULL AS (json_extract(settings, '$.image_id')) STORED REFERENCES images (id),
        kernel_id TEXT NOT NULL AS (json_extract(settings, '$.kernel_id')) STORED REFERENCES kernels (id),
        network TEXT NOT NULL AS (json_extract(settings, '$.network')) STORED,
        UNIQUE (owner, name)
    ) STRICT;
    INSERT INTO new_vms (id, owner, name, created_at, settings, generation, state, error, slot, token)
    SELECT id, heir(), name, created_at, settings, generation, state, error, slot, token FROM vms;
    DROP TABLE vms;
    ALTER TABLE new_vms RENAME TO vms;
    CREATE INDEX vms_by_time ON vms (created_at, id);
    CREATE INDEX vms_by_image ON vms (image_id);
    CREATE INDEX vms_by_kernel ON vms (kernel_id);
    CREATE UNIQUE INDEX vms_by_slot ON vms (slot) WHERE slot IS NOT NULL;
    CREATE TABLE new_networks (
        owner INTEGER NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 0 AND 255),
        PRIMARY KEY (owner, name)
    ) STRICT;
    INSERT INTO new_networks SELECT heir(), name, number FROM networks;
    DROP TABLE networks;
    ALTER TABLE new_networks RENAME TO networks;
    ALTER TABLE operations ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
    UPDATE operations SET owner = heir();
    CREATE INDEX operations_by_owner ON operations (owner, created_at);
    """,
    # Who has made an image or a kernel, and who has given it a name.
    """
    ALTER TABLE images ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE image_names ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE kernels ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE kernel_names ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
    UPDATE images SET owner = heir();
    UPDATE image_names SET owner = heir();
    UPDATE kernels SET owner = heir();
    UPDATE kernel_names SET owner = heir();
    """,
    # What has happened, by whose it is; -1: what all users share. And up to where what had happened was forgotten.
    """
    CREATE TABLE events (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        kind TEXT NOT NULL,
        resource_kind TEXT,
        resource_id TEXT,
        name TEXT NOT NULL,
        labels TEXT NOT NULL CHECK (json_valid(labels)),
        op_id TEXT NOT NULL,
        cause TEXT,
        message TEXT NOT NULL,
        attributes TEXT NOT NULL CHECK (json_valid(attributes)),
        size INTEGER NOT NULL AS (
            length(CAST(labels AS BLOB)) + length(CAST(message AS BLOB)) + length(CAST(attributes AS BLOB))
        ) STORED
    ) STRICT;
    CREATE INDEX events_by_owner ON events (owner, cursor);
    CREATE INDEX events_by_time ON events (time);
    CREATE INDEX events_by_resource ON events (resource_id);
    CREATE TABLE forgotten_events (owner INTEGER PRIMARY KEY, cursor INTEGER NOT NULL) STRICT;
    """,
    """
    ALTER TABLE operations ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(warnings));
    """,
    # By whose they are, in the order in which they came: each user's own push its own out.
    """
    CREATE INDEX requests_by_user ON requests (uid);
    CREATE INDEX operations_of_owner ON operations (owner);
    """,
    # Sleep: since when a VM is in its state, and its guest stands still; and what its disk was when memory was saved.
    """
    ALTER TABLE vms ADD COLUMN state_since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE vms ADD COLUMN asleep_since INTEGER;
    ALTER TABLE vms ADD COLUMN disk_generation INTEGER NOT NULL DEFAULT 1 CHECK (disk_generation > 0);
    UPDATE vms SET state_since = created_at;
    """,
    # VMs as they were, and which of these VMs and others rest on.
    """
    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        owner INTEGER NOT NULL,
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        vm_name TEXT NOT NULL,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        memory INTEGER NOT NULL CHECK (memory IN (0, 1)),
        acceleration TEXT NOT NULL,
        memory_key TEXT NOT NULL,
        parent_id TEXT REFERENCES snapshots (id),
        labels TEXT NOT NULL CHECK (json_valid(labels)),
        size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
        pause INTEGER NOT NULL CHECK (pause >= 0),
        digest TEXT NOT NULL,
        image_id TEXT NOT NULL AS (json_extract(settings, '$.image_id')) STORED REFERENCES images (id),
        kernel_id TEXT NOT NULL AS (json_extract(settings, '$.kernel_id')) STORED REFERENCES kernels (id)
    ) STRICT;
    CREATE UNIQUE INDEX snapshots_by_name ON snapshots (owner, name) WHERE name != '';
    CREATE INDEX snapshots_by_time ON snapshots (created_at, id);
    CREATE INDEX snapshots_by_parent ON snapshots (parent_id);
    CREATE INDEX snapshots_by_image ON snapshots (image_id);
    CREATE INDEX snapshots_by_kernel ON snapshots (kernel_id);
    ALTER TABLE vms ADD COLUMN snapshot_id TEXT REFERENCES snapshots (id);
    CREATE INDEX vms_by_snapshot ON vms (snapshot_id) WHERE snapshot_id IS NOT NULL;
    """,
    # What the agent in a snapshot's memory wants of its callers.
    """
    ALTER TABLE snapshots ADD COLUMN token BLOB NOT NULL DEFAULT x'';
    """,
    # The memory that a guest has begun with, where it has not booted.
    """
    ALTER TABLE live_vmms ADD COLUMN warm_key TEXT NOT NULL DEFAULT '';
    """,
    # What an image from a registry says of how it is to be run.
    """
    ALTER TABLE images ADD COLUMN config TEXT NOT NULL DEFAULT '' CHECK (config = '' OR json_valid(config));
    """,
    # Addresses are a VM's also while it has no VMM, and is asleep.
    """
    ALTER TABLE vms ADD COLUMN address TEXT NOT NULL DEFAULT '';
    ALTER TABLE vms ADD COLUMN address6 TEXT NOT NULL DEFAULT '';
    UPDATE vms SET address = live.address, address6 = live.address6 FROM live_vmms AS live WHERE live.vm_id = vms.id;
    DROP INDEX running_by_address;
    DROP INDEX running_by_address6;
    CREATE INDEX vms_by_address ON vms (id) WHERE address != '';
    ALTER TABLE live_vmms DROP COLUMN address;
    ALTER TABLE live_vmms DROP COLUMN address6;
    """,
    # How many modules a kernel has on the disk that its guests share: none, of those from before.
    """
    ALTER TABLE kernels ADD COLUMN disk_modules INTEGER NOT NULL DEFAULT 0;
    """,
    # And how long that disk is.
    """
    ALTER TABLE kernels ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 0;
    """,
    # A VM that is put back to a snapshot may be again what it was: on which it has rested, and that it has hibernated.
    """
    ALTER TABLE former ADD COLUMN snapshot_id TEXT REFERENCES snapshots (id);
    ALTER TABLE former ADD COLUMN state TEXT NOT NULL DEFAULT '';
    ALTER TABLE former ADD COLUMN state_since INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE former ADD COLUMN asleep_since INTEGER;
    ALTER TABLE former ADD COLUMN disk_generation INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE former ADD COLUMN address TEXT NOT NULL DEFAULT '';
    ALTER TABLE former ADD COLUMN address6 TEXT NOT NULL DEFAULT '';
    ALTER TABLE former ADD COLUMN token BLOB NOT NULL DEFAULT x'';
    UPDATE former SET snapshot_id = vms.snapshot_id FROM vms WHERE id = vm_id;
    CREATE INDEX former_by_snapshot ON former (snapshot_id) WHERE snapshot_id IS NOT NULL;
    """,
)
