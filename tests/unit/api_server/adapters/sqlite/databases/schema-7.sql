PRAGMA user_version = 7;
BEGIN TRANSACTION;
CREATE TABLE image_names (
        name TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
    ) STRICT;
INSERT INTO "image_names" VALUES('debian:bookworm','abababababababababababababababababababababababababababababababab');
CREATE TABLE images (
        id TEXT PRIMARY KEY,
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        created_at INTEGER NOT NULL,
        source TEXT NOT NULL
    ) STRICT;
INSERT INTO "images" VALUES('abababababababababababababababababababababababababababababababab',300000000,1767323045678901,'debian:bookworm');
CREATE TABLE journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        op_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        step TEXT NOT NULL,
        UNIQUE (op_id, kind, resource_id, step)
    ) STRICT;
CREATE TABLE kept (
        op_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        UNIQUE (op_id, kind, resource_id)
    ) STRICT;
CREATE TABLE kernel_names (
        name TEXT PRIMARY KEY,
        kernel_id TEXT NOT NULL REFERENCES kernels (id) ON DELETE CASCADE
    ) STRICT;
INSERT INTO "kernel_names" VALUES('debian','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd');
CREATE TABLE kernels (
        id TEXT PRIMARY KEY,
        release TEXT NOT NULL,
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        modules TEXT NOT NULL CHECK (json_valid(modules)),
        created_at INTEGER NOT NULL,
        source TEXT NOT NULL
    ) STRICT;
INSERT INTO "kernels" VALUES('cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','6.1.0',60000000,'["00-virtio.ko"]',1767323045678901,'debian');
CREATE TABLE networks (
        name TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 0 AND 255)
    ) STRICT;
INSERT INTO "networks" VALUES('backend',0);
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
CREATE TABLE owners (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        pid INTEGER,
        start_time INTEGER
    ) STRICT;
INSERT INTO "owners" VALUES('0123456789ab',41,7);
INSERT INTO "owners" VALUES('ba9876543210',NULL,NULL);
CREATE TABLE running (
        vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
        pid INTEGER NOT NULL CHECK (pid > 0),
        start_time INTEGER NOT NULL,
        acceleration TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        boot_id TEXT NOT NULL
    , address TEXT NOT NULL DEFAULT '', address6 TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO "running" VALUES('ba9876543210',4242,99,'tcg',1767323045678901,'b','10.0.0.2','fd00::2');
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
    , ports TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ports)), network TEXT NOT NULL DEFAULT 'user', slot INTEGER CHECK (slot IS NOT NULL OR network = 'user'), nat INTEGER NOT NULL DEFAULT 1 CHECK (nat IN (0, 1)), init TEXT NOT NULL DEFAULT 'agent', ssh_keys TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ssh_keys))) STRICT;
INSERT INTO "vms" VALUES('0123456789ab','demo','stopped','abababababababababababababababababababababababababababababababab','debian:bookworm','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','debian','qemu','auto','qcow2',1,536870912,8589934592,1767323045678901,'{"A": "b=c\n", "LANG": "\u00fc\"''"}','',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','[[80, 1, "udp", "192.0.2.1"], [81, 2, "tcp"]]','user',NULL,1,'image','["a key", "another"]');
INSERT INTO "vms" VALUES('ba9876543210','shared','running','abababababababababababababababababababababababababababababababab','debian:bookworm','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','debian','qemu','tcg','qcow2',1,536870912,8589934592,1767323046678901,'{}','',X'0000000000000000000000000000000000000000000000000000000000000000','[]','backend',2,0,'agent','[]');
CREATE INDEX image_names_by_image ON image_names (image_id);
CREATE INDEX kernel_names_by_kernel ON kernel_names (kernel_id);
CREATE INDEX vms_by_time ON vms (created_at, id);
CREATE INDEX vms_by_image ON vms (image_id);
CREATE INDEX vms_by_kernel ON vms (kernel_id);
CREATE INDEX operations_by_time ON operations (created_at);
CREATE UNIQUE INDEX vms_by_slot ON vms (slot) WHERE slot IS NOT NULL;
CREATE INDEX running_by_address ON running (address) WHERE address != '';
CREATE INDEX running_by_address6 ON running (address6) WHERE address6 != '';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('journal',0);
COMMIT;
