-- name: NewestRelease :one
SELECT name
FROM releases
ORDER BY started_at DESC, name
LIMIT 1;

-- name: AnnounceRelease :execrows
-- Nothing happens where it is the newest already: a restart is no new release.
INSERT INTO releases AS r (name, started_at)
SELECT @name::text, clock_timestamp()
WHERE @name::text IS DISTINCT FROM (SELECT n.name FROM releases n ORDER BY n.started_at DESC, n.name LIMIT 1)
ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at;

-- name: AnnounceReleaseAgain :exec
UPDATE releases AS r
SET started_at = clock_timestamp()
WHERE r.name = @name AND r.name = (SELECT n.name FROM releases n ORDER BY n.started_at DESC, n.name LIMIT 1);
