PRAGMA application_id = 1296650834;
PRAGMA user_version = 5;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'bitbucket-mirror','m001_mirrored_things','2026-11-29 01:15:54.247856+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'bitbucket-mirror','m002_the_crawl','2026-11-29 01:15:54.251077+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'bitbucket-mirror','m003_views_for_people','2026-11-29 01:15:54.252150+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'bitbucket-mirror','m004_search_index','2026-11-29 01:15:54.257867+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'bitbucket-mirror','m005_api_tokens','2026-11-29 01:15:54.258737+00:00');
CREATE TABLE api_tokens (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            user_id INTEGER REFERENCES users(id),
            token_hash TEXT NOT NULL UNIQUE,
            scope TEXT NOT NULL CHECK (scope IN ('read', 'write')),
            created_at TEXT NOT NULL,
            last_used_at TEXT,
            expires_at TEXT,
            revoked_at TEXT
        );
CREATE TABLE branches (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            name TEXT NOT NULL,
            target_hash TEXT NOT NULL,
            target_date TEXT,
            target_author TEXT,
            target_author_name TEXT,
            target_author_uuid TEXT,
            target_message TEXT,
            target_parents TEXT, heads TEXT, PRIMARY KEY (repository_id, name)) WITHOUT ROWID;
INSERT INTO "branches" VALUES(1,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO "branches" VALUES(2,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO "branches" VALUES(3,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO "branches" VALUES(4,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO "branches" VALUES(5,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO "branches" VALUES(6,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
CREATE TABLE changes (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            run_id INTEGER REFERENCES sync_runs(id),
            repository_id INTEGER REFERENCES repositories(id),
            user_id INTEGER REFERENCES users(id),
            kind TEXT NOT NULL,
            ref TEXT,
            old TEXT,
            new TEXT
        );
INSERT INTO "changes" VALUES(1,'2026-11-29T01:15:56.204898Z',2,4,NULL,'made_public',NULL,NULL,NULL);
INSERT INTO "changes" VALUES(2,'2026-11-29T01:15:56.204898Z',2,2,NULL,'renamed',NULL,'ws/tool-2','ws/other');
INSERT INTO "changes" VALUES(3,'2026-11-29T01:15:56.204898Z',2,2,NULL,'updated',NULL,'{"name": "Tool 2"}','{"name": "Other"}');
INSERT INTO "changes" VALUES(4,'2026-11-29T01:15:56.204898Z',2,6,NULL,'created',NULL,NULL,'ws/tool-9');
CREATE TABLE cursors (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            stream TEXT NOT NULL,
            value TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, stream)
        ) WITHOUT ROWID;
INSERT INTO "cursors" VALUES(1,'caller','{"at":"2026-11-29T01:15:54.337760Z","bucket":"basic-d159ef624ed86697@127.0.0.1:8002","names":[]}','2026-11-29T01:15:54.337833Z');
INSERT INTO "cursors" VALUES(1,'workspace:ws','{"owner_uuid":"{w}","listing":null,"cursor":"2026-11-29T01:15:55.000000Z","swept_at":"2026-11-29T01:15:54.451402Z","surplus":0,"absent_since":null,"gone":false,"moved_at":"2026-11-29T01:15:56.207022Z"}','2026-11-29T01:15:56.207050Z');
CREATE TABLE followers (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            PRIMARY KEY (repository_id, user_id)
        ) WITHOUT ROWID;
CREATE TABLE members (
            workspace_id INTEGER NOT NULL REFERENCES users(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            permission TEXT,
            last_seen_at TEXT NOT NULL,
            PRIMARY KEY (workspace_id, user_id)
        ) WITHOUT ROWID;
INSERT INTO "members" VALUES(1,2,NULL,'2026-11-29T01:15:54.451891Z');
CREATE TABLE repositories (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            uuid TEXT NOT NULL,
            owner_id INTEGER NOT NULL REFERENCES users(id),
            slug TEXT NOT NULL,
            name TEXT NOT NULL,
            full_name TEXT NOT NULL,
            scm TEXT,
            is_private INTEGER NOT NULL,
            description TEXT,
            website TEXT,
            language TEXT,
            size INTEGER,
            main_branch TEXT,
            fork_policy TEXT,
            parent_id INTEGER REFERENCES repositories(id),
            parent_uuid TEXT,
            parent_full_name TEXT,
            followers_count INTEGER,
            forks_count INTEGER,
            has_issues INTEGER,
            has_wiki INTEGER,
            project_key TEXT,
            project_name TEXT,
            project_uuid TEXT,
            avatar_url TEXT,
            clone_https TEXT,
            clone_ssh TEXT,
            created_at TEXT,
            updated_at TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            refs_synced_at TEXT,
            refs_stale INTEGER NOT NULL DEFAULT 1,
            deleted_at TEXT,
            gone_reason TEXT,
            UNIQUE (upstream_id, uuid)
        );
INSERT INTO "repositories" VALUES(1,1,'{00000000-1111-2222-3333-444444444444}',1,'tool-1','Tool 1','ws/tool-1','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:00.000000Z','2024-06-01T00:00:00.000000Z','2026-11-29T01:15:54.449725Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:54.500173Z',0,NULL,NULL);
INSERT INTO "repositories" VALUES(2,1,'{00000001-1111-2222-3333-444444444444}',1,'other','Other','ws/other','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:01.000000Z','2024-07-01T00:00:00.000000Z','2026-11-29T01:15:54.449725Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:56.254630Z',0,NULL,NULL);
INSERT INTO "repositories" VALUES(3,1,'{00000002-1111-2222-3333-444444444444}',1,'Übung','Übung','ws/Übung','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:02.000000Z','2024-06-01T00:00:02.000000Z','2026-11-29T01:15:54.449725Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:54.501789Z',0,NULL,NULL);
INSERT INTO "repositories" VALUES(4,1,'{00000003-1111-2222-3333-444444444444}',1,'plans','Plans','ws/plans','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:03.000000Z','2024-07-02T00:00:00.000000Z','2026-11-29T01:15:54.449725Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:56.255836Z',0,NULL,NULL);
INSERT INTO "repositories" VALUES(5,1,'{00000004-1111-2222-3333-444444444444}',1,'tool-5','Tool 5','ws/tool-5','git',0,'',NULL,'',1,'main','allow_forks',1,'{00000000-1111-2222-3333-444444444444}','ws/tool-1',NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:04.000000Z','2024-06-01T00:00:04.000000Z','2026-11-29T01:15:54.449725Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:54.541453Z',0,NULL,NULL);
INSERT INTO "repositories" VALUES(6,1,'{00000005-1111-2222-3333-444444444444}',1,'tool-9','tool-9','ws/tool-9','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:05.000000Z','2024-06-01T00:00:05.000000Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:56.204898Z','2026-11-29T01:15:56.301501Z',0,NULL,NULL);
CREATE TABLE request_ledger (
            bucket TEXT NOT NULL,
            at INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            PRIMARY KEY (bucket, at)
        ) WITHOUT ROWID;
INSERT INTO "request_ledger" VALUES('basic-d159ef624ed86697@127.0.0.1:8002',1795914954,9);
INSERT INTO "request_ledger" VALUES('basic-d159ef624ed86697@127.0.0.1:8002',1795914956,4);
CREATE TABLE request_limits (
            bucket TEXT PRIMARY KEY,
            requests_per_hour INTEGER,
            held_until REAL
        ) WITHOUT ROWID;
CREATE TABLE search_common (
            path BLOB NOT NULL,
            collection INTEGER NOT NULL,
            repositories INTEGER NOT NULL,
            best BLOB NOT NULL,
            PRIMARY KEY (path, collection)
        ) WITHOUT ROWID;
CREATE TABLE search_crowds (
            text BLOB NOT NULL,
            chunk BLOB NOT NULL,
            ids BLOB NOT NULL,
            PRIMARY KEY (text, chunk)
        ) WITHOUT ROWID;
CREATE TABLE search_misspellings (
            hash INTEGER NOT NULL,
            spelling INTEGER NOT NULL,
            PRIMARY KEY (hash, spelling)
        ) WITHOUT ROWID;
CREATE TABLE search_pending (
            id INTEGER PRIMARY KEY,
            was_name TEXT,
            was_slug TEXT,
            was_collection INTEGER,
            name TEXT,
            slug TEXT
        );
CREATE TABLE search_rare (path BLOB PRIMARY KEY, ids BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE search_spellings (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            weight INTEGER NOT NULL
        );
CREATE TABLE search_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            up_to INTEGER NOT NULL
        );
INSERT INTO "search_state" VALUES(1,0);
CREATE TABLE seen_refs (
            repository_id INTEGER NOT NULL,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (repository_id, kind, name)
        ) WITHOUT ROWID;
CREATE TABLE sync_failures (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            repository_id INTEGER REFERENCES repositories(id),
            status INTEGER,
            error TEXT NOT NULL,
            place TEXT,
            first_at TEXT NOT NULL,
            last_at TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            next_try_at TEXT NOT NULL,
            UNIQUE (upstream_id, kind, subject)
        );
CREATE TABLE sync_runs (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            kind TEXT NOT NULL,
            started_at TEXT NOT NULL,
            finished_at TEXT,
            state TEXT NOT NULL,
            requests INTEGER NOT NULL DEFAULT 0,
            git_requests INTEGER NOT NULL DEFAULT 0,
            retries INTEGER NOT NULL DEFAULT 0,
            slept_seconds REAL NOT NULL DEFAULT 0,
            repositories_new INTEGER NOT NULL DEFAULT 0,
            repositories_changed INTEGER NOT NULL DEFAULT 0,
            repositories_gone INTEGER NOT NULL DEFAULT 0,
            refs_new INTEGER NOT NULL DEFAULT 0,
            refs_changed INTEGER NOT NULL DEFAULT 0,
            refs_gone INTEGER NOT NULL DEFAULT 0,
            failures INTEGER NOT NULL DEFAULT 0,
            error TEXT
        );
INSERT INTO "sync_runs" VALUES(1,1,'full','2026-11-29T01:15:54.329215Z','2026-11-29T01:15:54.542036Z','complete',9,0,0,0.0,5,0,0,6,0,0,0,NULL);
INSERT INTO "sync_runs" VALUES(2,1,'incremental','2026-11-29T01:15:56.156097Z','2026-11-29T01:15:56.302079Z','complete',4,0,0,0.0,1,2,0,1,0,0,0,NULL);
CREATE TABLE tags (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            name TEXT NOT NULL,
            target_hash TEXT NOT NULL,
            target_date TEXT,
            target_author TEXT,
            target_author_name TEXT,
            target_author_uuid TEXT,
            target_message TEXT,
            target_parents TEXT, tagger TEXT, message TEXT, date TEXT,
            PRIMARY KEY (repository_id, name)) WITHOUT ROWID;
INSERT INTO "tags" VALUES(1,'v1','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL,NULL,NULL);
CREATE TABLE upstreams (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            url TEXT NOT NULL
        );
INSERT INTO "upstreams" VALUES(1,'cloud','cloud','http://127.0.0.1:8002/2.0');
CREATE TABLE users (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            uuid TEXT NOT NULL,
            username TEXT,
            display_name TEXT,
            first_name TEXT,
            last_name TEXT,
            nickname TEXT,
            account_id TEXT,
            kind TEXT NOT NULL,
            is_owner INTEGER NOT NULL DEFAULT 0,
            avatar_url TEXT,
            created_at TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            deleted_at TEXT,
            gone_reason TEXT,
            UNIQUE (upstream_id, uuid)
        );
INSERT INTO "users" VALUES(1,1,'{w}','ws','ws',NULL,NULL,NULL,NULL,'team',1,NULL,NULL,'2026-11-29T01:15:54.401234Z','2026-11-29T01:15:56.204898Z',NULL,NULL);
INSERT INTO "users" VALUES(2,1,'{u1}','ann','Ann',NULL,NULL,'ann',NULL,'user',0,NULL,NULL,'2026-11-29T01:15:54.451891Z','2026-11-29T01:15:54.451891Z',NULL,NULL);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX users_username ON users (username COLLATE NOCASE);
CREATE INDEX members_user ON members (user_id);
CREATE INDEX repositories_full_name ON repositories (full_name COLLATE NOCASE);
CREATE INDEX repositories_owner ON repositories (owner_id, created_at);
CREATE INDEX repositories_parent ON repositories (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX repositories_orphan ON repositories (upstream_id, parent_uuid)
            WHERE parent_id IS NULL AND parent_uuid IS NOT NULL;
CREATE INDEX repositories_refs_stale ON repositories (upstream_id) WHERE refs_stale;
CREATE INDEX tags_name ON tags (name);
CREATE INDEX sync_runs_upstream ON sync_runs (upstream_id, id);
CREATE INDEX changes_at ON changes (at);
CREATE INDEX changes_repository ON changes (repository_id);
CREATE INDEX sync_failures_repository ON sync_failures (repository_id);
CREATE VIEW "recent_changes" AS SELECT c.id, c.at, c.kind, r.full_name AS repository, c.ref, c.old, c.new,
                  u.username AS owner, c.repository_id
           FROM changes c LEFT JOIN repositories r ON r.id = c.repository_id
           LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
           ORDER BY c.id DESC;
CREATE VIEW "stale_repositories" AS SELECT id, full_name, updated_at,
                  CAST(julianday('now') - julianday(updated_at) AS INTEGER) AS days,
                  scm, size, is_private, description
           FROM repositories
           WHERE deleted_at IS NULL AND updated_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 year')
           ORDER BY updated_at;
CREATE VIEW "languages" AS SELECT coalesce(nullif(lower(language), ''), '(not said)') AS language, count(*) AS repositories,
                  sum(size) AS bytes, max(updated_at) AS last_update
           FROM repositories WHERE deleted_at IS NULL
           GROUP BY 1 ORDER BY repositories DESC, language;
CREATE VIEW "freshness" AS SELECT u.name AS upstream, r.id AS repository_id, r.full_name,
                  r.last_seen_at, r.refs_synced_at, r.refs_stale,
                  strftime('%s', 'now') - strftime('%s', r.last_seen_at) AS seen_seconds_ago,
                  strftime('%s', 'now') - strftime('%s', r.refs_synced_at) AS refs_seconds_ago
           FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
           WHERE r.deleted_at IS NULL;
CREATE INDEX search_odd_owners ON users (username) WHERE username GLOB '*[^!-~]*';
CREATE TRIGGER search_updated AFTER UPDATE OF name, slug, is_private, deleted_at, followers_count, forks_count, created_at ON repositories
            WHEN old.id <= (SELECT up_to FROM search_state) AND (old.name IS NOT new.name OR old.slug IS NOT new.slug OR old.is_private IS NOT new.is_private OR old.deleted_at IS NOT new.deleted_at OR old.followers_count IS NOT new.followers_count OR old.forks_count IS NOT new.forks_count OR old.created_at IS NOT new.created_at)
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug) VALUES (old.id, old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL), new.name, new.slug) ON CONFLICT (id) DO UPDATE SET name = excluded.name, slug = excluded.slug; END;
CREATE TRIGGER search_inserted AFTER INSERT ON repositories WHEN new.id <= (SELECT up_to FROM search_state)
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug) VALUES (new.id, NULL, NULL, NULL, new.name, new.slug) ON CONFLICT (id) DO UPDATE SET name = excluded.name, slug = excluded.slug; END;
CREATE TRIGGER search_deleted AFTER DELETE ON repositories WHEN old.id <= (SELECT up_to FROM search_state)
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug) VALUES (old.id, old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL), NULL, NULL) ON CONFLICT (id) DO UPDATE SET name = excluded.name, slug = excluded.slug; END;
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name) WHERE revoked_at IS NULL;
CREATE INDEX repositories_private ON repositories (owner_id) WHERE is_private = 1;
CREATE INDEX changes_made_public ON changes (repository_id, id) WHERE kind = 'made_public';
COMMIT;
