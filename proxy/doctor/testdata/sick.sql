SET lock_timeout = '2s'; -- rather fail than make the application wait; then run this again

-- postgres.wal_level: it is "replica"
-- ALTER SYSTEM SET wal_level = logical; -- then restart PostgreSQL

-- postgres.replication: role "walcache" may not replicate
ALTER ROLE "walcache" REPLICATION;

-- postgres.statistics: it may not see the sessions of other roles
GRANT pg_read_all_stats TO "walcache";

-- postgres.publications: missing: "walcache", "walcache_updates"
DO $walcache$ BEGIN CREATE PUBLICATION "walcache" FOR ALL TABLES WITH (publish = 'insert, truncate'); EXCEPTION WHEN duplicate_object THEN NULL; END $walcache$;
DO $walcache$ BEGIN CREATE PUBLICATION "walcache_updates" WITH (publish = 'update, delete'); EXCEPTION WHEN duplicate_object THEN NULL; END $walcache$;
DO $walcache$ BEGIN ALTER PUBLICATION "walcache_updates" ADD TABLE ONLY public.properties; EXCEPTION WHEN duplicate_object THEN NULL; END $walcache$;

-- postgres.replica_identity: without: codes, jobs
-- codes: by an index, which adds nothing to the WAL of updates that leave its columns alone
DO $walcache$ BEGIN ALTER TABLE public.codes REPLICA IDENTITY USING INDEX codes_code_key; ALTER PUBLICATION "walcache_updates" ADD TABLE ONLY public.codes; EXCEPTION WHEN duplicate_object THEN NULL; END $walcache$;
-- jobs: FULL logs the whole old row with each update and delete; a primary key would be cheaper
DO $walcache$ BEGIN ALTER TABLE public.jobs REPLICA IDENTITY FULL; ALTER PUBLICATION "walcache_updates" ADD TABLE ONLY public.jobs; EXCEPTION WHEN duplicate_object THEN NULL; END $walcache$;

-- postgres.unlogged_tables: sessions
-- ALTER TABLE public.sessions SET LOGGED; -- writes the whole table anew

-- postgres.wal_kept: max_slot_wal_keep_size is -1: slots keep WAL without bound
-- ALTER SYSTEM SET max_slot_wal_keep_size = '4096MB'; -- then SELECT pg_reload_conf()

