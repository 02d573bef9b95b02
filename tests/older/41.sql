PRAGMA application_id = 1296650834;
PRAGMA user_version = 41;
BEGIN TRANSACTION;
CREATE TABLE IF NOT EXISTS "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO _sqlite_migrations VALUES(1,'bitbucket-mirror','m001_mirrored_things','2026-11-29 01:16:27.951016+00:00');
INSERT INTO _sqlite_migrations VALUES(2,'bitbucket-mirror','m002_the_crawl','2026-11-29 01:16:27.951949+00:00');
INSERT INTO _sqlite_migrations VALUES(3,'bitbucket-mirror','m003_views_for_people','2026-11-29 01:16:27.952643+00:00');
INSERT INTO _sqlite_migrations VALUES(4,'bitbucket-mirror','m004_search_index','2026-11-29 01:16:27.953491+00:00');
INSERT INTO _sqlite_migrations VALUES(5,'bitbucket-mirror','m005_api_tokens','2026-11-29 01:16:27.953926+00:00');
INSERT INTO _sqlite_migrations VALUES(6,'bitbucket-mirror','m006_writes','2026-11-29 01:16:27.954260+00:00');
INSERT INTO _sqlite_migrations VALUES(7,'bitbucket-mirror','m007_orders_of_listings','2026-11-29 01:16:27.954704+00:00');
INSERT INTO _sqlite_migrations VALUES(8,'bitbucket-mirror','m008_webhook_deliveries','2026-11-29 01:16:27.955013+00:00');
INSERT INTO _sqlite_migrations VALUES(9,'bitbucket-mirror','m009_search_lists_of_fixed_width','2026-11-29 01:16:27.955219+00:00');
INSERT INTO _sqlite_migrations VALUES(10,'bitbucket-mirror','m010_order_of_popularity','2026-11-29 01:16:27.955478+00:00');
INSERT INTO _sqlite_migrations VALUES(11,'bitbucket-mirror','m011_pending_in_full','2026-11-29 01:16:27.964482+00:00');
INSERT INTO _sqlite_migrations VALUES(12,'bitbucket-mirror','m012_what_is_hidden_of_the_public','2026-11-29 01:16:27.965538+00:00');
INSERT INTO _sqlite_migrations VALUES(13,'bitbucket-mirror','m013_names_that_sql_cannot_judge','2026-11-29 01:16:27.965835+00:00');
INSERT INTO _sqlite_migrations VALUES(14,'bitbucket-mirror','m014_whatever_is_not_git','2026-11-29 01:16:27.966042+00:00');
INSERT INTO _sqlite_migrations VALUES(15,'bitbucket-mirror','m015_what_the_first_versions_made_otherwise','2026-11-29 06:49:48.003540+00:00');
INSERT INTO _sqlite_migrations VALUES(16,'bitbucket-mirror','m016_which_refs_were_read','2026-11-29 06:49:48.005583+00:00');
INSERT INTO _sqlite_migrations VALUES(17,'bitbucket-mirror','m017_deliveries_by_number','2026-11-29 06:49:48.006040+00:00');
INSERT INTO _sqlite_migrations VALUES(18,'bitbucket-mirror','m018_failures_that_are_accepted','2026-11-29 06:49:48.007112+00:00');
INSERT INTO _sqlite_migrations VALUES(19,'bitbucket-mirror','m019_authors_without_account','2026-11-29 06:49:48.007512+00:00');
INSERT INTO _sqlite_migrations VALUES(20,'bitbucket-mirror','m020_parents_are_told_by_their_row_alone','2026-11-29 06:49:48.007726+00:00');
INSERT INTO _sqlite_migrations VALUES(21,'bitbucket-mirror','m021_requests_that_were_sent','2026-11-29 06:49:48.009294+00:00');
INSERT INTO _sqlite_migrations VALUES(22,'bitbucket-mirror','m022_followers_by_user','2026-11-29 06:49:48.009781+00:00');
INSERT INTO _sqlite_migrations VALUES(23,'bitbucket-mirror','m023_archived','2026-11-29 06:49:48.010954+00:00');
INSERT INTO _sqlite_migrations VALUES(24,'bitbucket-mirror','m024_projects','2026-11-29 07:40:44.324410+00:00');
INSERT INTO _sqlite_migrations VALUES(25,'bitbucket-mirror','m025_what_no_column_holds','2026-11-29 08:08:24.424861+00:00');
INSERT INTO _sqlite_migrations VALUES(26,'bitbucket-mirror','m026_what_kind_of_file','2026-11-29 09:56:08.339576+00:00');
INSERT INTO _sqlite_migrations VALUES(27,'bitbucket-mirror','m027_refs_index','2026-11-29 10:28:04.614407+00:00');
INSERT INTO _sqlite_migrations VALUES(28,'bitbucket-mirror','m028_words_of_descriptions','2026-11-29 10:42:38.243446+00:00');
INSERT INTO _sqlite_migrations VALUES(29,'bitbucket-mirror','m029_looks_around_changes','2026-11-29 11:11:36.784076+00:00');
INSERT INTO _sqlite_migrations VALUES(30,'bitbucket-mirror','m030_what_moved_that_should_not','2026-11-29 12:41:00.447395+00:00');
INSERT INTO _sqlite_migrations VALUES(31,'bitbucket-mirror','m031_sizes_of_the_past','2026-11-29 13:17:41.347803+00:00');
INSERT INTO _sqlite_migrations VALUES(32,'bitbucket-mirror','m032_spans_of_refs','2026-11-29 13:35:58.560486+00:00');
INSERT INTO _sqlite_migrations VALUES(33,'bitbucket-mirror','m033_columns_of_the_search_index','2026-11-29 13:46:38.654893+00:00');
INSERT INTO _sqlite_migrations VALUES(34,'bitbucket-mirror','m034_names_below_every_path','2026-11-29 14:00:12.250918+00:00');
INSERT INTO _sqlite_migrations VALUES(35,'bitbucket-mirror','m035_changes_of_owners','2026-11-29 15:20:41.118034+00:00');
INSERT INTO _sqlite_migrations VALUES(36,'bitbucket-mirror','m036_moves_of_main_branches','2026-11-29 16:22:57.887108+00:00');
INSERT INTO _sqlite_migrations VALUES(37,'bitbucket-mirror','m037_blocks_of_refs','2026-11-29 17:18:35.822667+00:00');
INSERT INTO _sqlite_migrations VALUES(38,'bitbucket-mirror','m038_more_rare_changes','2026-11-30 01:23:21.842071+00:00');
INSERT INTO _sqlite_migrations VALUES(39,'bitbucket-mirror','m039_pending_rows_without_derived_columns','2026-11-30 01:58:19.854006+00:00');
INSERT INTO _sqlite_migrations VALUES(40,'bitbucket-mirror','m040_slugs','2026-11-30 04:19:43.586372+00:00');
INSERT INTO _sqlite_migrations VALUES(41,'bitbucket-mirror','m041_segments','2026-11-30 22:39:25.787451+00:00');
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
INSERT INTO branches VALUES(1,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO branches VALUES(2,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO branches VALUES(3,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO branches VALUES(4,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO branches VALUES(5,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
INSERT INTO branches VALUES(6,'main','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL);
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
        , previous_look TEXT, forced INTEGER, old_date TEXT, is_main INTEGER);
INSERT INTO changes VALUES(1,'2026-11-29T01:16:29.269778Z',2,4,NULL,'made_public',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO changes VALUES(2,'2026-11-29T01:16:29.269778Z',2,2,NULL,'renamed',NULL,'ws/tool-2','ws/other',NULL,NULL,NULL,NULL);
INSERT INTO changes VALUES(3,'2026-11-29T01:16:29.269778Z',2,2,NULL,'updated',NULL,'{"name": "Tool 2"}','{"name": "Other"}',NULL,NULL,NULL,NULL);
INSERT INTO changes VALUES(4,'2026-11-29T01:16:29.269778Z',2,6,NULL,'created',NULL,NULL,'ws/tool-9',NULL,NULL,NULL,NULL);
CREATE TABLE cursors (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            stream TEXT NOT NULL,
            value TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, stream)
        ) WITHOUT ROWID;
INSERT INTO cursors VALUES(1,'answers','{"200": 13}','2026-11-29T01:16:29.330646Z');
INSERT INTO cursors VALUES(1,'caller','{"at":"2026-11-29T01:16:28.006200Z","bucket":"basic-d159ef624ed86697@127.0.0.1:8002","names":[],"next":null,"landmark":null,"pages":0}','2026-11-29T01:16:28.006266Z');
INSERT INTO cursors VALUES(1,'workspace:ws','{"owner_uuid":"{w}","name":null,"listing":null,"members":null,"whole":true,"cursor":"2026-11-29T01:16:28.000000Z","swept_at":"2026-11-29T01:16:28.158241Z","surplus":0,"doubt":false,"absent_since":null,"gone":false,"round":"2026-11-29T01:16:29.248188Z","moved_at":"2026-11-29T01:16:29.271820Z"}','2026-11-29T01:16:29.271839Z');
CREATE TABLE extras (
            kind TEXT NOT NULL,
            row_id INTEGER NOT NULL,
            name TEXT NOT NULL DEFAULT '',
            anonymous INTEGER NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (kind, row_id, name)
        ) WITHOUT ROWID;
CREATE TABLE followers (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            PRIMARY KEY (repository_id, user_id)
        ) WITHOUT ROWID;
CREATE TABLE measures (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            until TEXT NOT NULL,
            size INTEGER,
            updated_at TEXT,
            followers_count INTEGER,
            PRIMARY KEY (repository_id, until)
        ) WITHOUT ROWID;
CREATE TABLE members (
            workspace_id INTEGER NOT NULL REFERENCES users(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            permission TEXT,
            last_seen_at TEXT NOT NULL,
            PRIMARY KEY (workspace_id, user_id)
        ) WITHOUT ROWID;
INSERT INTO members VALUES(1,2,NULL,'2026-11-29T01:16:28.109629Z');
CREATE TABLE mirror_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO mirror_meta VALUES('measures_since','2026-11-29T01:16:29.269778Z');
CREATE TABLE projects (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            owner_id INTEGER NOT NULL REFERENCES users(id),
            uuid TEXT NOT NULL,
            key TEXT NOT NULL,
            name TEXT,
            description TEXT,
            is_private INTEGER,
            avatar_url TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            UNIQUE (upstream_id, uuid)
        );
INSERT INTO projects VALUES(1,1,1,'name:ws/odd','ODD',NULL,NULL,NULL,NULL,'2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z');
INSERT INTO projects VALUES(2,1,1,'{0aa1b6a1-0000-4000-8000-000000000001}','TOOLS','Tools',NULL,NULL,NULL,'2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z');
INSERT INTO projects VALUES(3,1,1,'{p}','P','P',NULL,NULL,NULL,'2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z');
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
            gone_reason TEXT, public_from INTEGER NOT NULL DEFAULT 0, archived INTEGER, refs_known_since TEXT,
            UNIQUE (upstream_id, uuid)
        );
INSERT INTO repositories VALUES(1,1,'{00000000-1111-2222-3333-444444444444}',1,'tool-1','Tool 1','ws/tool-1','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'TOOLS','Tools','{0aa1b6a1-0000-4000-8000-000000000001}',NULL,NULL,NULL,'2024-01-01T00:00:00.000000Z','2024-06-01T00:00:00.000000Z','2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:28.209477Z',0,NULL,NULL,0,NULL,NULL);
INSERT INTO repositories VALUES(2,1,'{00000001-1111-2222-3333-444444444444}',1,'other','Other','ws/other','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'TOOLS','Tools','{0aa1b6a1-0000-4000-8000-000000000001}',NULL,NULL,NULL,'2024-01-01T00:00:01.000000Z','2024-07-01T00:00:00.000000Z','2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:29.329345Z',0,NULL,NULL,0,NULL,NULL);
INSERT INTO repositories VALUES(3,1,'{00000002-1111-2222-3333-444444444444}',1,'Übung','Übung','ws/Übung','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:02.000000Z','2024-06-01T00:00:02.000000Z','2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:28.210461Z',0,NULL,NULL,0,NULL,NULL);
INSERT INTO repositories VALUES(4,1,'{00000003-1111-2222-3333-444444444444}',1,'plans','Plans','ws/plans','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'ODD',NULL,NULL,NULL,NULL,NULL,'2024-01-01T00:00:03.000000Z','2024-07-02T00:00:00.000000Z','2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:29.329879Z',0,NULL,NULL,4,NULL,NULL);
INSERT INTO repositories VALUES(5,1,'{00000004-1111-2222-3333-444444444444}',1,'tool-5','Tool 5','ws/tool-5','git',0,'',NULL,'',1,'main','allow_forks',1,'{00000000-1111-2222-3333-444444444444}','ws/tool-1',NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:04.000000Z','2024-06-01T00:00:04.000000Z','2026-11-29T01:16:28.156395Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:28.220837Z',0,NULL,NULL,0,NULL,NULL);
INSERT INTO repositories VALUES(6,1,'{00000005-1111-2222-3333-444444444444}',1,'tool-9','tool-9','ws/tool-9','git',0,'',NULL,'',1,'main','allow_forks',NULL,NULL,NULL,NULL,NULL,0,0,'P','P','{p}',NULL,NULL,NULL,'2024-01-01T00:00:05.000000Z','2024-06-01T00:00:05.000000Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:29.269778Z','2026-11-29T01:16:29.330124Z',0,NULL,NULL,0,NULL,NULL);
CREATE TABLE request_ledger (
            bucket TEXT NOT NULL,
            at INTEGER NOT NULL,
            requests INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (bucket, at)
        ) WITHOUT ROWID;
INSERT INTO request_ledger VALUES('basic-d159ef624ed86697@127.0.0.1:8002',1795914988,9,9);
INSERT INTO request_ledger VALUES('basic-d159ef624ed86697@127.0.0.1:8002',1795914989,4,4);
CREATE TABLE request_limits (
            bucket TEXT PRIMARY KEY,
            requests_per_hour INTEGER,
            held_until REAL
        ) WITHOUT ROWID;
CREATE TABLE search_columns (
            name TEXT NOT NULL,
            chunk INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (name, chunk)
        ) WITHOUT ROWID;
CREATE TABLE search_common (
            path BLOB NOT NULL,
            collection INTEGER NOT NULL,
            repositories INTEGER NOT NULL,
            best BLOB NOT NULL,
            bar INTEGER NOT NULL,
            PRIMARY KEY (path, collection)
        ) WITHOUT ROWID;
CREATE TABLE search_crowds (
            text BLOB NOT NULL,
            chunk BLOB NOT NULL,
            ids BLOB NOT NULL,
            PRIMARY KEY (text, chunk)
        ) WITHOUT ROWID;
CREATE TABLE search_dense (
            path BLOB NOT NULL,
            chunk INTEGER NOT NULL,
            bits BLOB NOT NULL,
            PRIMARY KEY (path, chunk)
        ) WITHOUT ROWID;
PRAGMA writable_schema=ON;
INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','search_descriptions','search_descriptions',0,'CREATE VIRTUAL TABLE search_descriptions USING fts5(
            description, content=''search_descriptions_texts'',
            content_rowid=''id'', tokenize=''unicode61 remove_diacritics 2'', columnsize=0)');
CREATE TABLE IF NOT EXISTS 'search_descriptions_config'(k PRIMARY KEY, v) WITHOUT ROWID;
INSERT INTO search_descriptions_config VALUES('version',4);
CREATE TABLE IF NOT EXISTS 'search_descriptions_data'(id INTEGER PRIMARY KEY, block BLOB);
INSERT INTO search_descriptions_data VALUES(1,X'0600');
INSERT INTO search_descriptions_data VALUES(10,X'00000000000000');
CREATE TABLE IF NOT EXISTS 'search_descriptions_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;
CREATE TABLE search_descriptions_texts (id INTEGER PRIMARY KEY, description TEXT);
CREATE TABLE search_languages (
            code INTEGER PRIMARY KEY,
            language TEXT NOT NULL UNIQUE COLLATE NOCASE
        );
CREATE TABLE search_rare (path BLOB PRIMARY KEY, ids BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE search_ref_blocks (
            start INTEGER PRIMARY KEY,
            lists BLOB NOT NULL,
            counts BLOB NOT NULL
        );
CREATE TABLE search_ref_common (
            node INTEGER NOT NULL,
            collection INTEGER NOT NULL,
            branches INTEGER NOT NULL,
            tags INTEGER NOT NULL,
            with_branches INTEGER NOT NULL,
            with_tags INTEGER NOT NULL,
            with_either INTEGER NOT NULL,
            best_branches BLOB NOT NULL,
            best_tags BLOB NOT NULL,
            PRIMARY KEY (node, collection)
        ) WITHOUT ROWID;
CREATE TABLE search_ref_counts (
            node INTEGER NOT NULL,
            collection INTEGER NOT NULL,
            branches BLOB NOT NULL,
            tags BLOB NOT NULL,
            PRIMARY KEY (node, collection)
        );
CREATE TABLE search_ref_hashes (
            bucket INTEGER PRIMARY KEY,
            digits BLOB NOT NULL,
            repositories BLOB NOT NULL
        );
CREATE TABLE search_ref_lists (
            name_id INTEGER NOT NULL,
            list INTEGER NOT NULL,
            start INTEGER NOT NULL,
            repositories BLOB NOT NULL,
            ages BLOB NOT NULL,
            PRIMARY KEY (name_id, list, start)
        ) WITHOUT ROWID;
CREATE TABLE search_ref_moved (repository_id INTEGER PRIMARY KEY, was INTEGER NOT NULL);
CREATE TABLE search_ref_names (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            text BLOB NOT NULL
        );
CREATE TABLE search_ref_paths (path BLOB PRIMARY KEY, node INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE search_ref_pending (
            id INTEGER PRIMARY KEY,
            repository_id INTEGER NOT NULL,
            kind INTEGER NOT NULL,
            name TEXT NOT NULL,
            was_hash TEXT,
            was_date TEXT,
            UNIQUE (repository_id, kind, name)
        );
CREATE TABLE search_ref_rare (
            path BLOB PRIMARY KEY,
            cost INTEGER NOT NULL,
            names BLOB NOT NULL
        ) WITHOUT ROWID;
CREATE TABLE search_ref_spans (start INTEGER PRIMARY KEY);
CREATE TABLE search_ref_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            up_to INTEGER NOT NULL
        , commits INTEGER NOT NULL DEFAULT 1);
INSERT INTO search_ref_state VALUES(1,0,1);
CREATE TABLE search_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            up_to INTEGER NOT NULL
        );
INSERT INTO search_state VALUES(1,0);
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
            next_try_at TEXT NOT NULL, accepted INTEGER NOT NULL DEFAULT 0,
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
INSERT INTO sync_runs VALUES(1,1,'full','2026-11-29T01:16:27.999818Z','2026-11-29T01:16:28.221749Z','complete',9,0,0,0.0,5,0,0,6,0,0,0,NULL);
INSERT INTO sync_runs VALUES(2,1,'incremental','2026-11-29T01:16:29.247188Z','2026-11-29T01:16:29.330557Z','complete',4,0,0,0.0,1,2,0,1,0,0,0,NULL);
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
INSERT INTO tags VALUES(1,'v1','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','2024-01-02T03:04:05.000000Z','A <a@example.org>',NULL,NULL,'m','[]',NULL,NULL,NULL);
CREATE TABLE upstreams (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            url TEXT NOT NULL
        , refs TEXT);
INSERT INTO upstreams VALUES(1,'cloud','cloud','http://127.0.0.1:8002/2.0',NULL);
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
INSERT INTO users VALUES(1,1,'{w}','ws','ws',NULL,NULL,NULL,NULL,'team',1,NULL,NULL,'2026-11-29T01:16:28.061298Z','2026-11-29T01:16:29.269778Z',NULL,NULL);
INSERT INTO users VALUES(2,1,'{u1}','ann','Ann',NULL,NULL,'ann',NULL,'user',0,NULL,NULL,'2026-11-29T01:16:28.109629Z','2026-11-29T01:16:28.109629Z',NULL,NULL);
CREATE TABLE webhook_deliveries (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            request TEXT NOT NULL,
            event TEXT NOT NULL,
            body_hash TEXT NOT NULL,
            at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, request, event, body_hash)
        ) WITHOUT ROWID;
CREATE TABLE writes (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            action TEXT NOT NULL CHECK (action IN ('create', 'update', 'delete', 'fork')),
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            repository_id INTEGER REFERENCES repositories(id),
            full_name TEXT NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('done', 'unknown'))
        );
CREATE TABLE search_pending (
            id INTEGER PRIMARY KEY,
            was_name TEXT,
            was_slug TEXT,
            was_collection INTEGER,
            name TEXT,
            slug TEXT,
            turn INTEGER
        );
CREATE TABLE search_segments (
            last_turn INTEGER PRIMARY KEY,
            first_turn INTEGER NOT NULL,
            rows INTEGER NOT NULL,
            digest BLOB NOT NULL,
            data BLOB NOT NULL
        );
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
CREATE INDEX search_odd_owners ON users (username) WHERE username GLOB '*[^!-~]*';
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name) WHERE revoked_at IS NULL;
CREATE INDEX changes_made_public ON changes (repository_id, id) WHERE kind = 'made_public';
CREATE INDEX writes_at ON writes (at);
CREATE INDEX repositories_created ON repositories (created_at, id, is_private, deleted_at)
            WHERE deleted_at IS NULL;
CREATE INDEX repositories_owner_updated
            ON repositories (owner_id, updated_at, id, is_private, deleted_at) WHERE deleted_at IS NULL;
CREATE INDEX repositories_gone ON repositories (owner_id, deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX repositories_private ON repositories (owner_id, is_private, deleted_at)
            WHERE is_private = 1;
CREATE INDEX repositories_private_forks ON repositories (parent_id)
            WHERE is_private = 1 AND deleted_at IS NULL AND parent_id IS NOT NULL;
CREATE INDEX repositories_other_scm ON repositories (scm) WHERE scm IS NOT 'git';
CREATE VIEW "freshness" AS SELECT u.name AS upstream, r.id AS repository_id, r.full_name,
                  r.last_seen_at, r.refs_synced_at, r.refs_stale,
                  strftime('%s', 'now') - strftime('%s', r.last_seen_at) AS seen_seconds_ago,
                  strftime('%s', 'now') - strftime('%s', r.refs_synced_at) AS refs_seconds_ago,
                  CASE WHEN r.refs_synced_at IS NOT NULL THEN 'read' WHEN u.refs = 'none' THEN 'not mirrored'
                      ELSE 'not read yet' END AS refs
           FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
           WHERE r.deleted_at IS NULL;
CREATE INDEX followers_user ON followers (user_id);
CREATE INDEX projects_owner ON projects (owner_id, key COLLATE NOCASE);
CREATE TRIGGER search_ref_repository_updated
            AFTER UPDATE OF is_private, deleted_at, public_from ON repositories
            WHEN old.id <= (SELECT up_to FROM search_ref_state) AND (old.is_private <> 0 OR old.public_from = 9223372036854775807) + 2 * (old.deleted_at IS NOT NULL) <> (new.is_private <> 0 OR new.public_from = 9223372036854775807) + 2 * (new.deleted_at IS NOT NULL) BEGIN INSERT INTO search_ref_moved VALUES (old.id, (old.is_private <> 0 OR old.public_from = 9223372036854775807) + 2 * (old.deleted_at IS NOT NULL)) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_repository_deleted AFTER DELETE ON repositories
            WHEN old.id <= (SELECT up_to FROM search_ref_state) BEGIN INSERT INTO search_ref_moved VALUES (old.id, (old.is_private <> 0 OR old.public_from = 9223372036854775807) + 2 * (old.deleted_at IS NOT NULL)) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_branches_inserted AFTER INSERT ON branches
                WHEN new.repository_id <= (SELECT up_to FROM search_ref_state) BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (new.repository_id, 0, new.name, NULL, NULL) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_branches_updated
                AFTER UPDATE OF repository_id, name, target_hash, target_date ON branches
                WHEN old.repository_id <= (SELECT up_to FROM search_ref_state)
                    AND (old.repository_id, old.name, old.target_hash, old.target_date)
                        IS NOT (new.repository_id, new.name, new.target_hash, new.target_date)
                BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (old.repository_id, 0, old.name, old.target_hash, old.target_date) ON CONFLICT DO NOTHING; INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (new.repository_id, 0, new.name, NULL, NULL) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_branches_deleted AFTER DELETE ON branches
                WHEN old.repository_id <= (SELECT up_to FROM search_ref_state) BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (old.repository_id, 0, old.name, old.target_hash, old.target_date) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_tags_inserted AFTER INSERT ON tags
                WHEN new.repository_id <= (SELECT up_to FROM search_ref_state) BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (new.repository_id, 1, new.name, NULL, NULL) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_tags_updated
                AFTER UPDATE OF repository_id, name, target_hash, target_date ON tags
                WHEN old.repository_id <= (SELECT up_to FROM search_ref_state)
                    AND (old.repository_id, old.name, old.target_hash, old.target_date)
                        IS NOT (new.repository_id, new.name, new.target_hash, new.target_date)
                BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (old.repository_id, 1, old.name, old.target_hash, old.target_date) ON CONFLICT DO NOTHING; INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (new.repository_id, 1, new.name, NULL, NULL) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_ref_tags_deleted AFTER DELETE ON tags
                WHEN old.repository_id <= (SELECT up_to FROM search_ref_state) BEGIN INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date) VALUES (old.repository_id, 1, old.name, old.target_hash, old.target_date) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER search_description_added AFTER INSERT ON repositories BEGIN INSERT INTO search_descriptions (rowid, description) VALUES (new.id, new.description); END;
CREATE TRIGGER search_description_removed AFTER DELETE ON repositories BEGIN INSERT INTO search_descriptions (search_descriptions, rowid, description)
        VALUES ('delete', old.id, old.description); END;
CREATE TRIGGER search_description_changed AFTER UPDATE OF description ON repositories
            WHEN old.description IS NOT new.description BEGIN INSERT INTO search_descriptions (search_descriptions, rowid, description)
        VALUES ('delete', old.id, old.description); INSERT INTO search_descriptions (rowid, description) VALUES (new.id, new.description); END;
CREATE INDEX changes_names ON changes (old COLLATE NOCASE)
            WHERE kind IN ('renamed', 'transferred');
CREATE INDEX changes_user ON changes (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX changes_forced ON changes (id) WHERE forced = 1 AND is_main = 1;
CREATE INDEX changes_rare ON changes (kind, id) WHERE kind IN ('branch_deleted', 'deleted',
            'made_private', 'made_public', 'owner_renamed', 'renamed', 'restored', 'tag_created',
            'tag_deleted', 'tag_moved', 'transferred');
CREATE INDEX repositories_slug ON repositories (slug COLLATE NOCASE, owner_id)
           WHERE deleted_at IS NULL;
CREATE INDEX search_unprepared ON search_pending (id) WHERE turn IS NULL;
CREATE TRIGGER search_updated AFTER UPDATE OF name, slug, is_private, deleted_at, followers_count, forks_count, created_at, owner_id, scm, language, archived, parent_id, parent_uuid, parent_full_name ON repositories
            WHEN old.id <= (SELECT up_to FROM search_state) AND (old.name IS NOT new.name OR old.slug IS NOT new.slug OR old.is_private IS NOT new.is_private OR old.deleted_at IS NOT new.deleted_at OR old.followers_count IS NOT new.followers_count OR old.forks_count IS NOT new.forks_count OR old.created_at IS NOT new.created_at OR old.owner_id IS NOT new.owner_id OR old.scm IS NOT new.scm OR old.language IS NOT new.language OR old.archived IS NOT new.archived OR (old.parent_id IS NOT NULL OR old.parent_uuid IS NOT NULL OR old.parent_full_name IS NOT NULL) <> (new.parent_id IS NOT NULL OR new.parent_uuid IS NOT NULL OR new.parent_full_name IS NOT NULL))
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug)
                VALUES (old.id, old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL), new.name, new.slug) ON CONFLICT (id)
                DO UPDATE SET name = excluded.name, slug = excluded.slug, was_name = iif(turn IS NULL, was_name, excluded.was_name), was_slug = iif(turn IS NULL, was_slug, excluded.was_slug), was_collection = iif(turn IS NULL, was_collection, excluded.was_collection), turn = NULL; END;
CREATE TRIGGER search_deleted AFTER DELETE ON repositories
            WHEN old.id <= (SELECT up_to FROM search_state)
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection)
                VALUES (old.id, old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL))
                ON CONFLICT (id) DO UPDATE SET name = NULL, slug = NULL, was_name = iif(turn IS NULL, was_name, excluded.was_name), was_slug = iif(turn IS NULL, was_slug, excluded.was_slug), was_collection = iif(turn IS NULL, was_collection, excluded.was_collection), turn = NULL; END;
PRAGMA writable_schema=OFF;
COMMIT;
