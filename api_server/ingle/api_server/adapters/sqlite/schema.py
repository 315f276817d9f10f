"""The tables, as migrations: entry N brings a database from `user_version` N to N + 1. Entries are never edited.

Times are microseconds since the epoch, UTC. `journal` refers to nothing on purpose: it must outlive the rows that it
is about.
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
)
