-- Run after every migration, as the superuser: publishes the updates and deletes
-- of each table that has a replica identity and is not listed yet, which takes the
-- table's owner and the publication's in one. It leaves out what has none, or the
-- application's own updates of it would fail, and partitioned tables, whose
-- partitions are listed. `proxy doctor` says which table lacks an identity, and
-- what to do about it.

SELECT format('ALTER PUBLICATION walcache_updates ADD TABLE ONLY %s', c.oid::regclass)
FROM pg_class c
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  AND (c.relreplident = 'f' OR EXISTS (
      SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND CASE c.relreplident
          WHEN 'd' THEN i.indisprimary AND i.indimmediate
          WHEN 'i' THEN i.indisreplident END))
  AND NOT EXISTS (
      SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
      WHERE p.pubname = 'walcache_updates' AND r.prrelid = c.oid)
ORDER BY 1
\gexec
